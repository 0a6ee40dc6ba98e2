"""Registers generators in the BentoML model store, where `bentoml serve` and `bentoml build` find the newest one."""

import errno
import os
import re
import shutil
from importlib.util import find_spec
from pathlib import Path

from models.common.errors import InputError
from models.common.files import signature_path, write_atomically
from models.onnx_file.generator import Generator

MODEL_NAME = "mnist-gan"
"""Name of all generators in the store. Their tags differ in the version, which BentoML chooses."""
SHIPPED = Path(__file__).parents[1] / "pretrained" / "mnist.onnx"
"""Pretrained generator, which is served if the store is empty."""


def check_home() -> None:
    """Checks that the store has a folder. For a user without a home folder, BentoML would create a folder named "~".

    Raises:
        InputError: BentoML is installed, BENTOML_HOME is not set, and this user has no home folder.
    """
    if find_spec("bentoml") is None or os.environ.get("BENTOML_HOME"):
        return
    try:
        Path.home()
    except RuntimeError:
        raise InputError(
            "register",
            "the BentoML model store has no folder, since this user has no home folder: "
            "set BENTOML_HOME to a folder, or give --no-register",
        ) from None


def register(generator: Generator, signature: bytes | None = None) -> str | None:
    """Adds a model file to the store, with labels and metadata from its card.

    Args:
        generator: the opened model file.
        signature: content of its signature, see `models.onnx_file.signature`. None: it is not signed.

    Returns:
        The tag of the new model, "mnist-gan:<version>", or None if BentoML is not installed.

    Raises:
        OSError: the store, in $BENTOML_HOME or else in ~/bentoml, cannot be written; the error names one file.
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
        "preset": (card.training.config or {}).get("preset"),
    }
    metadata = {
        "name": card.name,
        "images_seen": card.training.images_seen,
        "file_sha256": card.file_sha256,
        "bytes": len(generator.file),
    } | (card.quality or {})
    # BentoML accepts no null values.
    labels, metadata = (
        {key: value for key, value in entries.items() if value is not None} for entries in (labels, metadata)
    )
    try:
        with bentoml.models.create(MODEL_NAME, labels=labels, metadata=metadata) as model:
            file = Path(model.path_of("generator.onnx"))
            write_atomically(file, generator.file)
            if signature:
                write_atomically(signature_path(file), signature)
    except shutil.Error as error:
        raise _first_failure(error) from error
    return str(model.tag)


def _first_failure(error: shutil.Error) -> OSError:
    """Returns an error for the first file that could not be copied; shutil lists all as (source, target, reason)."""
    _, target, reason = error.args[0][0]
    number = re.match(r"\[Errno (\d+)\]", reason)
    code = int(number[1]) if number else errno.EIO
    return OSError(code, os.strerror(code), str(target))
