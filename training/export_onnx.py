"""The `export-onnx` command: exports the generator of a run to one ONNX file, if its output matches PyTorch's.

    export-onnx runs/a --out a.onnx
    export-onnx runs/a --out a-int8.onnx --precision int8 --data-dir data
    export-onnx runs/a --out a.onnx --sign-key key.pem

In every precision the file takes `latent` (float32) and, if the generator is class-conditional, `label` (int64), and
returns `image` (uint8). `models.export.parity` checks the file, and `models.onnx_file.generator` opens and runs it.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from models.common.commands import Version, command, interruptible_imports
from models.common.errors import InputError
from models.common.files import check_writable, signature_path, write_together
from models.common.threads import set_threads
from models.onnx_file.card import Precision

# The functions below import PyTorch and onnxruntime only when they run: the import takes seconds, and --help or a
# mistyped option should not wait for it.
if TYPE_CHECKING:
    from models.export.exporter import Export
    from models.onnx_file.generator import Generator
    from training.evaluation.evaluation_report import EvaluationReport


@dataclass(frozen=True)
class Options:
    """Exports the generator of a run to one ONNX file, compared with PyTorch. Writes nothing if a check fails."""

    run: tyro.conf.Positional[Path]
    """Folder of a training run, whose newest checkpoint is exported, or a checkpoint file (.safetensors)."""
    out: Path
    """ONNX file to write. An existing file is replaced."""
    name: str | None = None
    """Name of the generator on its card, in logs and in metrics, 1 to 100 printable characters. If omitted, the name of
    the run folder or of the checkpoint file."""
    opset: int = 20
    """Version of the ONNX standard operators, 16 to 26. Older runtimes need a lower version."""
    precision: Precision = "fp32"
    """Data type of the weights. fp16 is for GPUs, and int8 makes the smallest file. For both, the fp32 file and the
    converted one are evaluated on the real images of --data-dir, and the command fails if the classifier FID is more
    than 1.25 times that of the fp32 file or the label agreement falls by more than 0.5 percentage points."""
    evaluate: bool = False
    """Measure every metric of the `evaluate` command, which takes minutes, and put them on the card as the quality of
    the generator. Needs the real images of --data-dir."""
    data_dir: Path | None = None
    """Folder of the data sets, for --evaluate, fp16 and int8. If omitted, $MNIST_GAN_DATA, else data. If the generator
    was trained on a folder of images, give that folder."""
    report: Path | None = None
    """JSON file to write, with every parity metric and its bound, and with the evaluation if there was one."""
    allow_low_quality: bool = False
    """Write the file even if the quality check finds that the generator is untrained or has collapsed. Its card says
    so, and it is not registered."""
    sign_key: Path | None = None
    """PEM file of a private key (ECDSA on P-256, P-384 or P-521) to sign the file with. Writes OUT.sig, a signature in
    the format of OpenSSF Model Signing."""
    register: bool = True
    """Add the file to the BentoML model store ($BENTOML_HOME, else ~/bentoml) as mnist-gan, for `bentoml serve`."""
    version: Version = False


@command("export-onnx")
def main() -> None:
    options = tyro.cli(Options, prog="export-onnx")
    check_report_path(options)
    set_threads()
    check_store(options)
    sign = load_signer(options)
    load_libraries()
    check_outputs(options)
    exported, evaluation = export_generator(options)
    signature = sign(exported.generator.file, options.out.name) if sign else None
    write_files(options, exported, evaluation, signature)
    print(exported.parity)
    print(exported.generator.card.quality_check)
    print(f"{options.out}: {len(exported.generator.file) / 1e6:.1f} MB, opset {options.opset}, {options.precision}")
    if signature:
        print(f"{signature_path(options.out)}: signature by {options.sign_key}")
    if options.register:
        register_in_store(options.out, exported.generator, signature)


def check_report_path(options: Options) -> None:
    """Checks that the report overwrites neither the model file nor its signature.

    Raises:
        InputError: --report names the same file as --out, or the signature.
    """
    if not options.report:
        return
    if options.report.resolve() == options.out.resolve():
        raise InputError("out", f"must be another file than --report, both are {options.out}")
    if options.report.resolve() == signature_path(options.out).resolve():
        raise InputError("report", f"must be another file than the signature of the model file, {options.report}")


def check_store(options: Options) -> None:
    """Checks, before minutes of work, that the model store has a folder.

    Raises:
        InputError: the user has no home folder, and BENTOML_HOME is not set.
    """
    with interruptible_imports("export-onnx"):
        from models.onnx_file.store import check_home
    if options.register:
        check_home()


def load_signer(options: Options) -> Callable[[bytes, str], bytes] | None:
    """Returns a function that signs a model file, given its content and its name; None without --sign-key.

    Raises:
        SignatureError: the key cannot be read, or is not of a supported kind.
    """
    if options.sign_key is None:
        return None
    from models.onnx_file.signature import load_private_key, sign

    key = load_private_key(options.sign_key)
    return lambda file, name: sign(file, name, key)


def load_libraries() -> None:
    """Imports PyTorch and the other slow libraries, so that Ctrl-C during the import prints one line instead of a
    traceback."""
    with interruptible_imports("export-onnx", "PyTorch"):
        import models.export.exporter  # noqa: F401
        import training.export_quality
        import training.quality_check  # noqa: F401


def check_outputs(options: Options) -> None:
    """Checks, before minutes of work, that the outputs can be written.

    Raises:
        OSError: --out, --report or the signature cannot be written.
    """
    for path in filter(None, (options.out, options.report, options.sign_key and signature_path(options.out))):
        check_writable(path)


def export_generator(options: Options) -> "tuple[Export, EvaluationReport | None]":
    """Exports, checks and, if asked for or if the precision requires it, evaluates the generator.

    Returns:
        the export, with the quality check and, if it was evaluated, its quality on the card; and the evaluation. The
        last source of the evaluation is the export.

    Raises:
        CheckpointError: there is no checkpoint, or it cannot be read.
        ParityError, ModelFileError, ExportError: the file fails a check.
        QualityError: the generator is untrained or has collapsed, and --allow-low-quality is not given.
        InputError, DataError, ClassifierError, SourceError: the generator cannot be evaluated.
    """
    from models.checkpoint import load_checkpoint, run_name
    from models.export.exporter import export, export_variant, with_fields
    from training.evaluation.tables import print_report
    from training.export_quality import card_quality, check_quality_loss, compare_with_original, evaluate_generator
    from training.quality_check import check_quality, require_quality

    checkpoint = load_checkpoint(options.run)
    name = options.name if options.name is not None else run_name(options.run) or None
    exported = original = export(checkpoint, options.opset, name)
    if options.precision != "fp32":
        exported = export_variant(checkpoint, original, options.precision)
    quality_check = check_quality(exported.generator)
    for warning in quality_check.warnings():
        print(f"export-onnx: warning: {warning}", file=sys.stderr)
    if not options.allow_low_quality:
        require_quality(quality_check)
    evaluation = None
    if exported is not original:
        evaluation = compare_with_original(
            original.generator, exported.generator, options.data_dir, all_metrics=options.evaluate
        )
        print_report(evaluation)
        check_quality_loss(evaluation)
    elif options.evaluate:
        evaluation = evaluate_generator(exported.generator, options.data_dir)
        print_report(evaluation)
    quality = card_quality(evaluation, evaluation.results[-1]) if evaluation else None
    return with_fields(exported, quality=quality, quality_check=quality_check), evaluation


def write_files(
    options: Options, exported: "Export", evaluation: "EvaluationReport | None", signature: bytes | None
) -> None:
    """Writes the model file, its signature and the report, all or none. Without a signature, deletes that of the file
    that is replaced.

    Raises:
        OSError: one of them cannot be written.
    """
    files = {options.out: exported.generator.file}
    if signature:
        files[signature_path(options.out)] = signature
    if options.report:
        report = exported.parity.to_dict()
        check = exported.generator.card.quality_check
        assert check is not None
        report["quality_check"] = asdict(check) | {"passed": check.passed}
        if evaluation:
            report["quality"] = evaluation.to_dict()
        files[options.report] = json.dumps(report, indent=2).encode() + b"\n"
    write_together(files)
    if not signature:
        signature_path(options.out).unlink(missing_ok=True)


def register_in_store(out: Path, generator: "Generator", signature: bytes | None) -> None:
    """Adds a model file to the BentoML model store, with its signature if there is one, and prints its tag there. Does
    not add a generator that failed the quality check.

    Exits with an error if the store cannot be written. `out`, which is written already, is named in the message.
    """
    from models.onnx_file.store import register

    if generator.card.quality_check and not generator.card.quality_check.passed:
        print("not registered: the quality check failed, see above")
        return
    try:
        tag = register(generator, signature)
    except OSError as error:
        sys.exit(
            f"export-onnx: {out} was written but not registered; the BentoML model store reports: {error}; "
            "set BENTOML_HOME to a folder that can be written, or give --no-register"
        )
    print(f"registered as {tag}" if tag else "not registered: bentoml is not installed (pip install '.[serving]')")


if __name__ == "__main__":
    main()
