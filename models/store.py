"""The BentoML model store: where `bentoml serve` and `bentoml build` look for the newest generator."""

from pathlib import Path

from models.artifact import Generator

MODEL_NAME = "mnist-gan"
SHIPPED = Path(__file__).parent / "pretrained" / "mnist.onnx"
"""What is served where the store is empty."""


def register(generator: Generator) -> str | None:
    """Adds a generator's file to the store, with what tells models apart.

    Returns:
        Its tag there, or None where BentoML is not installed.

    Raises:
        OSError: the store, which is in $BENTOML_HOME if that is set, cannot be written.
    """
    try:
        import bentoml
    except ImportError:
        return None
    card = generator.card
    labels = {
        "dataset": card.dataset.name,
        "classes": str(len(card.class_names)),
        "precision": card.precision,
        "preset": str(card.training.config["preset"]),
    }
    metadata = {
        "name": card.name,
        "images_seen": card.training.images_seen,
        "file_sha256": card.file_sha256,
        "bytes": len(generator.file),
    } | card.quality
    with bentoml.models.create(MODEL_NAME, labels=labels, metadata=metadata) as model:
        Path(model.path_of("generator.onnx")).write_bytes(generator.file)
    return str(model.tag)
