"""Turns a run's generator into one ONNX file, checked against PyTorch: parity or nothing.

    export-onnx runs/a --out a.onnx

The file takes `latent` (float32) and, if the generator is class-conditional, `label` (int64), and yields `image`
(uint8); see `models.artifact` for opening and running it.
"""

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from models.card import Card, CardError
from models.commands import ends_in_one_line, importing
from models.files import write_together

MODEL_NAME = "mnist-gan"


@dataclass(frozen=True)
class Options:
    """Turns a run's generator into one ONNX file, checked against PyTorch. Writes nothing if a check fails."""

    run: tyro.conf.Positional[Path]
    """Folder of a run, or a checkpoint file."""
    out: Path
    """The ONNX file to write."""
    opset: int = 20
    """Version of the ONNX standard operators."""
    report: Path | None = None
    """JSON file for the parity figures and their bounds."""
    register: bool = True
    """Add the file to the BentoML model store as mnist-gan."""


@ends_in_one_line("export-onnx")
def main() -> None:
    options = tyro.cli(Options, prog="export-onnx")
    if options.report and options.report.resolve() == options.out.resolve():
        sys.exit(f"export-onnx: --out and --report are both {options.out}; give each a file of its own")

    # Imported only now: PyTorch takes seconds, and --help or a mistyped option should not wait for it.
    with importing("export-onnx", "PyTorch"):
        from models import checkpoint as checkpoints
        from models.artifact import Generator
        from models.checkpoint import CheckpointError
        from models.exporter import ExportError, export
        from models.parity import ParityError

    try:
        checkpoint = checkpoints.load(options.run)
        file, figures = export(checkpoint, options.opset)
        files = {options.out: file}
        if options.report:
            files[options.report] = json.dumps(figures.report(), indent=2).encode() + b"\n"
        write_together(files)
    except (CheckpointError, ParityError, ExportError, CardError) as error:
        sys.exit(f"export-onnx: {error}\nexport-onnx: no file was written")
    except OSError as error:
        sys.exit(f"export-onnx: cannot write {error.filename}: {error.strerror}\nexport-onnx: no file was written")

    print(figures)
    print(f"{options.out}: {len(file) / 1e6:.1f} MB, opset {options.opset}")
    if options.register:
        try:
            tag = register(options.out, Generator.from_bytes(file).card)
        except OSError as error:
            sys.exit(
                f"export-onnx: {options.out} was written but not registered; the BentoML model store says: {error}"
            )
        print(f"registered as {tag}" if tag else "not registered: bentoml is not installed (pip install '.[serving]')")


def register(path: Path, card: Card) -> str | None:
    """Copies a model file into the BentoML model store.

    Returns:
        Its tag there, or None where BentoML is not installed.

    Raises:
        OSError: the store, which is in $BENTOML_HOME if that is set, cannot be written.
    """
    try:
        import bentoml
    except ImportError:
        return None
    labels = {
        "dataset": card.dataset.name,
        "classes": str(len(card.class_names)),
        "preset": card.training.config["preset"],
    }
    metadata = {"name": card.name, "images_seen": card.training.images_seen, "file_sha256": card.file_sha256}
    with bentoml.models.create(MODEL_NAME, labels=labels, metadata=metadata) as model:
        shutil.copy(path, model.path_of("generator.onnx"))
    return str(model.tag)


if __name__ == "__main__":
    main()
