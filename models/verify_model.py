"""The `verify-model` command: makes every check of a model file and prints the results.

    verify-model a.onnx
    verify-model a.onnx --public-key key.pub --json
    verify-model a.onnx --run runs/a                  # exports the checkpoint again and compares; needs PyTorch

docs/trust.md says what each check proves.
"""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from models.common.commands import Version, command, interruptible_imports, optional
from models.common.errors import InputError

if TYPE_CHECKING:
    from models.onnx_file.generator import Generator
    from models.onnx_file.verification import CheckResult


@dataclass(frozen=True)
class Options:
    """Makes every check of a model file and prints the results. The exit code is 0 if no check failed, else 1.

    A file is checked against itself, and with --public-key against the key of its author, with --run against the
    checkpoint that it was exported from. docs/trust.md says what each check proves.
    """

    file: tyro.conf.Positional[Path]
    """An ONNX file that export-onnx wrote."""
    public_key: Path | None = None
    """PEM file of the public key that must have signed FILE. The signature is FILE.sig."""
    run: Path | None = None
    """Folder of the training run, whose newest checkpoint is used, or the checkpoint file (.safetensors). Exports it
    again and compares the result with FILE. Needs PyTorch and takes about half a minute."""
    network: Annotated[str | None, optional("MODULE:CLASS", "a network of this package")] = None
    """Class of the generator of --run, if it is your own. Its module is imported, which runs its code."""
    json: bool = False
    """Print the results as JSON."""
    version: Version = False


@command("verify-model")
def main() -> None:
    options = tyro.cli(Options, prog="verify-model")
    if options.network and not options.run:
        raise InputError("network", "is only for --run; the model file alone is verified without the class")
    with interruptible_imports("verify-model"):
        from models.onnx_file.verification import verify_file
    generator, results = verify_file(options.file, options.public_key)
    if options.run:
        results += compare_with_run(generator, options.run, options.network)
    passed = all(result.result != "failed" for result in results)
    if options.json:
        report = {
            "file": str(options.file),
            "file_sha256": generator and generator.card.file_sha256,
            "passed": passed,
            "checks": [asdict(result) for result in results],
        }
        print(json.dumps(report, indent=2))
    else:
        width = max(len(result.name) for result in results)
        for result in results:
            print(f"{result.name:{width}}  {result.result:7}  {result.detail}".rstrip())
        print(f"{options.file}: {'no check failed' if passed else 'a check failed'}")
    sys.exit(0 if passed else 1)


def compare_with_run(generator: "Generator | None", run: Path, network: str | None) -> "list[CheckResult]":
    """Exports the checkpoint of a run again and compares it with the model file; skipped if that cannot be opened.

    Imports the module of `network`, unless that is None.

    Raises:
        NetworkError: the class cannot be imported.
        CheckpointError: there is no checkpoint, or it cannot be read.
    """
    from models.onnx_file.verification import CheckResult

    if generator is None:
        return [CheckResult("export again", "skipped", "an earlier check failed")]
    with interruptible_imports("verify-model", "PyTorch"):
        from models.checkpoint import load_checkpoint
        from models.export.reproduction import compare_with_checkpoint
        from models.networks.own import import_network
    if network:
        import_network(network)
    return compare_with_checkpoint(generator, load_checkpoint(run))


if __name__ == "__main__":
    main()
