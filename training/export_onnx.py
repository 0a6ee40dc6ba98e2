"""The `export-onnx` command: exports the generator of a run to one ONNX file, if its output matches PyTorch's.

    export-onnx runs/a --out a.onnx
    export-onnx runs/a --out a-int8.onnx --precision int8 --data-dir data
    export-onnx --weights netG.pth --network my_gan:Generator --latent-shape 100x1x1 --image-shape 1x28x28 --out b.onnx

In every precision the file takes `latent` (float32) and, if the generator is class-conditional, `label` (int64), and
returns `image` (uint8). `models.export.parity` checks the file, and `models.onnx_file.generator` opens and runs it.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from models.common.commands import Version, command, interruptible_imports, optional
from models.common.errors import InputError
from models.common.files import check_writable, write_together
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
    load_libraries()
    check_outputs(options)
    exported, evaluation = export_generator(options)
    write_files(options, exported, evaluation)
    print(exported.parity)
    print(f"{options.out}: {len(exported.generator.file) / 1e6:.1f} MB, opset {options.opset}, {options.precision}")
    if options.register:
        register_in_store(options.out, exported.generator)


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
    """Checks that the report does not overwrite the model file.

    Raises:
        InputError: --out and --report name the same file.
    """
    if options.report and options.report.resolve() == options.out.resolve():
        raise InputError("out", f"must be another file than --report, both are {options.out}")


def check_store(options: Options) -> None:
    """Checks, before minutes of work, that the model store has a folder.

    Raises:
        InputError: the user has no home folder, and BENTOML_HOME is not set.
    """
    with interruptible_imports("export-onnx"):
        from models.onnx_file.store import check_home
    if options.register:
        check_home()


def load_libraries() -> None:
    """Imports PyTorch and the other slow libraries, so that Ctrl-C during the import prints one line instead of a
    traceback."""
    with interruptible_imports("export-onnx", "PyTorch"):
        import models.export.exporter  # noqa: F401
        import training.export_quality  # noqa: F401


def check_outputs(options: Options) -> None:
    """Checks, before minutes of work, that the outputs can be written.

    Raises:
        OSError: --out or --report cannot be written.
    """
    for path in filter(None, (options.out, options.report)):
        check_writable(path)


def export_generator(options: Options) -> "tuple[Export, EvaluationReport | None]":
    """Exports, checks and, if asked for or if the precision requires it, evaluates the generator.

    Returns:
        the export, with its quality on the card if it was evaluated, and the evaluation. The last source of the
        evaluation is the export.

    Raises:
        CheckpointError: there is no checkpoint, or it cannot be read.
        NetworkError: the network of --network cannot be used.
        ParityError, ModelFileError, ExportError: the file fails a check.
        InputError, DataError, ClassifierError, SourceError: the generator cannot be evaluated.
    """
    from models.export.exporter import export, export_variant, with_quality
    from training.evaluation.tables import print_report
    from training.export_quality import card_quality, check_quality_loss, compare_with_original, evaluate_generator

    checkpoint, default_name = load_source(options)
    exported = export(checkpoint, options.opset, options.name if options.name is not None else default_name)
    evaluation = None
    if options.precision != "fp32":
        original, exported = exported, export_variant(checkpoint, exported, options.precision)
        evaluation = compare_with_original(
            original.generator, exported.generator, options.data_dir, all_metrics=options.evaluate
        )
        print_report(evaluation)
        check_quality_loss(evaluation)
    elif options.evaluate:
        evaluation = evaluate_generator(exported.generator, options.data_dir)
        print_report(evaluation)
    if evaluation:
        exported = with_quality(exported, card_quality(evaluation, evaluation.results[-1]))
    return exported, evaluation


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
        options.dataset if options.dataset is not None else foreign.UNKNOWN_DATASET,
    )
    return foreign.load_foreign(generator), options.weights.stem


def write_files(options: Options, exported: "Export", evaluation: "EvaluationReport | None") -> None:
    """Writes the model file and the report, both or neither.

    Raises:
        OSError: one of them cannot be written.
    """
    files = {options.out: exported.generator.file}
    if options.report:
        report = exported.parity.to_dict()
        if evaluation:
            report["quality"] = evaluation.to_dict()
        files[options.report] = json.dumps(report, indent=2).encode() + b"\n"
    write_together(files)


def register_in_store(out: Path, generator: "Generator") -> None:
    """Adds a model file to the BentoML model store and prints its tag there.

    Exits with an error if the store cannot be written. `out`, which is written already, is named in the message.
    """
    from models.onnx_file.store import register

    try:
        tag = register(generator)
    except OSError as error:
        sys.exit(
            f"export-onnx: {out} was written but not registered; the BentoML model store reports: {error}; "
            "set BENTOML_HOME to a folder that can be written, or give --no-register"
        )
    print(f"registered as {tag}" if tag else "not registered: bentoml is not installed (pip install '.[serving]')")


if __name__ == "__main__":
    main()
