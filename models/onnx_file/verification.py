"""Results of the checks of a model file, one by one, for the command `verify-model`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from models.common.errors import ModelFileError
from models.common.files import signature_path
from models.onnx_file.generator import CHECKS, Generator


@dataclass(frozen=True)
class CheckResult:
    """Result of one check."""

    name: str
    """Name of the check."""
    result: Literal["passed", "failed", "skipped"]
    """Whether the check passed. "skipped": it was not made."""
    detail: str = ""
    """Finding of the check, or the reason why it failed or was skipped."""


def verify_file(path: Path, public_key: Path | None = None) -> tuple[Generator | None, list[CheckResult]]:
    """Makes all checks of a model file that need no other files than its signature.

    Args:
        path: the model file.
        public_key: PEM file of the key that must have signed the file; None skips this check.

    Returns:
        the generator, or None if it cannot be opened, and the results in the order of the checks. After a check that
        failed, the later ones are skipped, since each relies on those before it.
    """
    begun: list[str] = []
    try:
        generator = Generator.open(path, public_key=public_key, begin=begun.append)
    except ModelFileError as error:
        name = begun.pop() if begun else "file"
        message = str(error).removeprefix(f"{path}: ").removeprefix(f"{name}: ")
        results = {name: CheckResult(name, "passed") for name in begun}
        results[name] = CheckResult(name, "failed", message)
        later = "an earlier check failed"
        return None, [
            *([results["file"]] if name == "file" else []),
            *(results.get(name, _skipped(name, path, public_key, later)) for name in _checks()),
        ]
    details = {
        "checksum": f"file_sha256 {generator.card.file_sha256} (not what sha256sum prints)",
        "card": f"{generator.card.name}, {generator.card.precision}",
        "golden images": str(generator.golden_comparison).removeprefix("golden images: "),
    }
    results = {name: CheckResult(name, "passed", details.get(name, "")) for name in begun}
    results["quality"] = _quality(generator)
    return generator, [results.get(name, _skipped(name, path, public_key, "")) for name in _checks()]


def _checks() -> tuple[str, ...]:
    return (*(name for name in CHECKS if name != "pinned hash"), "quality")


def _skipped(name: str, path: Path, public_key: Path | None, reason: str) -> CheckResult:
    if name == "signature" and public_key is None:
        exists = signature_path(path).exists()
        reason = "give --public-key to check it" if exists else "the file is not signed, and no --public-key was given"
    return CheckResult(name, "skipped", reason)


def _quality(generator: Generator) -> CheckResult:
    """Reports the quality check that `export-onnx` made, as the card contains it."""
    check = generator.card.quality_check
    if check is None:
        return CheckResult("quality", "skipped", "it was not checked when the file was exported")
    if check.passed:
        return CheckResult("quality", "passed", f"measured at export on {check.images:,} images")
    return CheckResult(
        "quality", "failed", f"the file was exported with --allow-low-quality, although {'; '.join(check.problems())}"
    )
