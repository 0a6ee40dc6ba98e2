"""The `export-onnx` command: exports the generator of a run to one ONNX file, if its output matches PyTorch's.

    export-onnx runs/a --out a.onnx
    export-onnx runs/a --out a-int8.onnx --precision int8 --data-dir data
    export-onnx runs/a --out a.onnx --sign-key key.pem
    export-onnx --weights netG.pth --network my_gan:Generator --latent-shape 100x1x1 --image-shape 1x28x28 --out b.onnx

In every precision the file takes `latent` (float32) and, if the generator is class-conditional, `label` (int64), and
returns `image` (uint8). `models.export.parity` checks the file, and `models.onnx_file.generator` opens and runs it.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from models.common.commands import Version, command, interruptible_imports, optional
from models.common.errors import InputError
from models.common.files import check_writable, signature_path, write_together
from models.common.threads import set_threads
from models.onnx_file.card import Precision

# The functions below import PyTorch and onnxruntime only when they run: the import takes seconds, and --help or a
# mistyped option should not wait for it.
if TYPE_CHECKING:
    from models.checkpoint import Checkpoint
    from models.export.exporter import Export
    from models.onnx_file.generator import Generator
    from training.evaluation.evaluation_report import EvaluationReport


@dataclass(frozen=True, kw_only=True)
class Options:
    """Exports a generator to one ONNX file, compared with PyTorch. Writes nothing if a check fails.

    The generator is that of a run, or one that was trained elsewhere (--weights).
    """

    run: Annotated[tyro.conf.Positional[Path | None], optional("RUN", "the generator of --weights")] = None
    """Folder of a training run, whose newest checkpoint is exported, or a checkpoint file (.safetensors)."""
    out: Path
    """ONNX file to write. An existing file is replaced."""
    name: str | None = None
    """Name of the generator on its card, in logs and in metrics, 1 to 100 printable characters. If omitted, the name of
    the run folder or of the checkpoint file."""
    opset: int = 20
    """Version of the ONNX standard operators, 16 to 26. Older runtimes need a lower version."""
    truncation: float = 1.0
    """Factor by which the graph multiplies latents, above 0 and at most 1. Smaller values make all images of the file
    more typical and less varied; `evaluate --truncation` measures which value is best."""
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
    network: Annotated[str | None, optional("MODULE:CLASS", "a network of this package")] = None
    """Class of the generator, if it is your own. Its module is imported, which runs its code."""
    weights: Annotated[Path | None, optional("FILE", "those of the run")] = None
    """Weights of a generator that was trained elsewhere: a state dict as .safetensors or of torch.save. Needs
    --network, --latent-shape and --image-shape; the options below describe the generator."""
    network_args: str = ""
    """Arguments of the constructor, for example nz=100,ngf=64."""
    latent_shape: Annotated[str | None, optional("SHAPE", "none")] = None
    """Shape of one latent that the generator takes, for example 100 or 100x1x1."""
    image_shape: Annotated[str | None, optional("SHAPE", "none")] = None
    """Channels, height and width of an image, for example 1x28x28. The generator may return flat vectors."""
    range: Annotated[str, tyro.conf.arg(metavar="BLACK:WHITE")] = "-1:1"
    """Values that the generator returns for black and for white: -1:1 after a tanh, 0:1 after a sigmoid."""
    classes: Annotated[str | None, optional("CLASSES", "not class-conditional")] = None
    """Number of classes, or their names such as cat,dog, if the generator takes (latents, labels)."""
    dataset: Annotated[str | None, optional("NAME", "unknown")] = None
    """Data set that the generator was trained on, for its card and for `evaluate`."""
    version: Version = False


@command("export-onnx")
def main() -> None:
    options = tyro.cli(Options, prog="export-onnx")
    check_source(options)
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


def check_source(options: Options) -> None:
    """Checks that the options name one generator, and everything that is needed to load it.

    Raises:
        InputError: an option is missing, or has no effect.
    """
    described = ("network_args", "latent_shape", "image_shape", "range", "classes", "dataset")
    given = [name for name in described if getattr(options, name) != getattr(Options(out=options.out), name)]
    if options.weights is None:
        if options.run is None:
            raise InputError(
                "run", "give the folder of a run, or --weights and --network of a generator trained elsewhere"
            )
        if given:
            raise InputError(given[0].replace("_", "-"), "is only for --weights; a run stores it")
        return
    if options.run is not None:
        raise InputError("weights", f"replaces the run, but both are given: {options.run} and {options.weights}")
    for name in ("network", "latent_shape", "image_shape"):
        if getattr(options, name) is None:
            raise InputError(name.replace("_", "-"), "is needed with --weights; see docs/own-network.md")


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
        NetworkError: the network of --network cannot be used.
        ParityError, ModelFileError, ExportError: the file fails a check.
        QualityError: the generator is untrained or has collapsed, and --allow-low-quality is not given.
        InputError, DataError, ClassifierError, SourceError: the generator cannot be evaluated.
    """
    from models.export.exporter import export, export_variant, with_fields
    from training.evaluation.tables import print_report
    from training.export_quality import card_quality, check_quality_loss, compare_with_original, evaluate_generator
    from training.quality_check import check_quality, require_quality

    checkpoint, default_name = load_source(options)
    name = options.name if options.name is not None else default_name
    exported = original = export(checkpoint, options.opset, name, options.truncation)
    if options.precision != "fp32":
        exported = export_variant(checkpoint, original, options.precision)
    quality_check = check_quality(exported.generator)
    if not options.allow_low_quality:
        require_quality(quality_check)
    for warning in quality_check.warnings():
        print(f"export-onnx: warning: {warning}", file=sys.stderr)
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


def load_source(options: Options) -> "tuple[Checkpoint, str | None]":
    """Loads the checkpoint of the run, or the weights of --weights. Imports the module of --network.

    Returns:
        the checkpoint, and the default name of the generator; None if the run folder has no name.

    Raises:
        CheckpointError, InputError, NetworkError: it cannot be loaded.
    """
    from models.checkpoint import load_checkpoint, run_name
    from models.export import foreign
    from models.networks.own import import_network
    from training.data import LOADERS

    if options.run is not None:
        if options.network:
            import_network(options.network)
        checkpoint = load_checkpoint(options.run)
        if options.network not in (None, checkpoint.generator.architecture):
            raise InputError(
                "network", f"the generator of {options.run} is {checkpoint.generator.architecture}; omit it"
            )
        return checkpoint, run_name(options.run) or None
    # `check_source` has checked these.
    assert options.weights is not None
    assert options.network is not None
    assert options.latent_shape is not None
    assert options.image_shape is not None
    channels, height, width = foreign.parse_shape("image-shape", options.image_shape, dimensions=3)
    generator = foreign.ForeignGenerator(
        options.weights,
        options.network,
        foreign.parse_arguments(options.network_args),
        foreign.parse_shape("latent-shape", options.latent_shape),
        (channels, height, width),
        foreign.parse_range(options.range),
        foreign.parse_classes(options.classes) if options.classes is not None else (),
        foreign.parse_dataset(options.dataset, LOADERS) if options.dataset is not None else foreign.UNKNOWN_DATASET,
    )
    return foreign.load_foreign(generator), options.weights.stem


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
