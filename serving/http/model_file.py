"""Finds and opens the model file that the service serves."""

import logging
import re
from collections.abc import Collection
from pathlib import Path

import bentoml
import onnxruntime

from models.common.errors import ModelFileError
from models.onnx_file.generator import Generator
from models.onnx_file.session import CUDA
from models.onnx_file.store import MODEL_NAME, SHIPPED

TAG = re.compile(r"[a-z0-9][-._a-z0-9]*:[a-z0-9][-._a-z0-9]*")
"""A tag of the BentoML model store, with its version."""

logger = logging.getLogger("bentoml.mnist-gan")


def newest_in_store() -> Path | None:
    """Returns the newest model file of the BentoML model store, or None if there is none.

    In a Bento, this is the model that the Bento contains.
    """
    try:
        return Path(bentoml.models.get(f"{MODEL_NAME}:latest").path_of("generator.onnx"))
    except bentoml.exceptions.NotFound:
        return None


def model_file(source: str | None) -> Path:
    """Returns the path of a model file.

    Args:
        source: a path, or a tag of the BentoML model store if no such file exists. None chooses the newest model of the
            store, or the generator that is included in this repository if the store has none.

    Raises:
        ModelFileError: the store has no model with this tag.
    """
    if not source:
        return newest_in_store() or SHIPPED
    if TAG.fullmatch(source) and not Path(source).exists():
        try:
            return Path(bentoml.models.get(source).path_of("generator.onnx"))
        except bentoml.exceptions.BentoMLException:
            raise ModelFileError(
                f"{source}: the BentoML model store has no such model, and no such file exists"
            ) from None
    return Path(source)


def open_model(path: Path, device: str, public_key: Path | None, allowed_hashes: Collection[str]) -> Generator:
    """Opens and checks a model file.

    Args:
        path: the model file.
        device: cpu; cuda, which fails if no GPU can be used; or auto, which uses a GPU if onnxruntime can use one.
        public_key: PEM file of the key that must have signed the file; None checks no signature.
        allowed_hashes: values of `file_sha256` that are allowed; empty: all are.

    Raises:
        ModelFileError: the file fails a check, or the device is cuda and onnxruntime cannot use a GPU.
    """
    if device == "cpu" or (device == "auto" and CUDA not in onnxruntime.get_available_providers()):
        return Generator.open(path, public_key=public_key, allowed_hashes=allowed_hashes)
    try:
        return Generator.open(path, CUDA, public_key, allowed_hashes)
    except ModelFileError as error:
        if device == "cuda":
            raise
        generator = Generator.open(path, public_key=public_key, allowed_hashes=allowed_hashes)
        logger.warning("no GPU is used: %s", error)
        return generator
