"""What can be judged: a model file, a run (with and without averaged weights), or an .npz of images from anywhere."""

import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models import checkpoint as checkpoints
from models.artifact import Generator
from models.checkpoint import Checkpoint
from models.errors import ModelFileError
from models.exporter import export

SEED = 0
"""Images 0 to n - 1 of this seed are judged, so that a file's figures can be had again."""


class SourceError(ValueError):
    """Something that cannot be judged."""


@dataclass(frozen=True)
class Source:
    """Images to judge, and the model file that drew them, if one did."""

    name: str
    images: Tensor
    """uint8 (n, channels, height, width)."""
    labels: Tensor | None
    file: bytes | None = None
    generator: Generator | None = None
    history: Path | None = None
    """The metrics.jsonl of a run."""

    @property
    def file_sha256(self) -> str | None:
        return self.generator.card.file_sha256 if self.generator else None


def open_sources(path: Path, n: int, name: str) -> list[Source]:
    """Draws the first `n` images of a model or of a run's newest checkpoint; or takes those of an .npz.

    Args:
        name: what to call it.

    Raises:
        SourceError, ModelFileError, CheckpointError: it cannot be read; the message says why.
    """
    if path.suffix == ".npz":
        return [_arrays(path, n, name)]
    if path.is_dir() or path.suffix == ".safetensors":
        checkpoint = checkpoints.load(path)
        history = path / "metrics.jsonl" if (path / "metrics.jsonl").is_file() else None
        if not checkpoint.part("average"):
            return [replace(_draw(name, export(checkpoint).file, n), history=history)]
        raw = replace(checkpoint, tensors=_without_average(checkpoint))
        return [
            replace(_draw(f"{name}, averaged", export(checkpoint).file, n), history=history),
            _draw(f"{name}, raw", export(raw).file, n),
        ]
    try:
        file = path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{path}: {error.strerror}") from error
    Generator.open(path)
    return [_draw(name, file, n)]


def _without_average(checkpoint: Checkpoint) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in checkpoint.tensors.items() if not name.startswith("average.")}


def _draw(name: str, file: bytes, n: int) -> Source:
    generator = Generator.from_bytes(file)
    images, labels = generator.images(SEED, 0, n)
    return Source(name, torch.from_numpy(images), None if labels is None else torch.from_numpy(labels), file, generator)


def _read_npz(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    try:
        zipfile.ZipFile(path).close()  # under this name NumPy would open a lone array, too, or think of a pickle
        with np.load(path, allow_pickle=False) as arrays:
            if "images" not in arrays:
                raise SourceError(f"{path}: has no array `images`, but {', '.join(arrays) or 'none'}")
            return np.asarray(arrays["images"]), np.asarray(arrays["labels"]) if "labels" in arrays else None
    except SourceError:
        raise
    except FileNotFoundError as error:
        raise SourceError(f"{path}: no such file") from error
    except Exception as error:  # a damaged stream, or a header, which NumPy evaluates as Python: a dozen ways to fail
        raise SourceError(f"{path}: not an .npz that can be read ({error})") from error


def _arrays(path: Path, n: int, name: str) -> Source:
    images, labels = _read_npz(path)
    if images.dtype != np.uint8:
        raise SourceError(f"{path}: `images` are {images.dtype}, give uint8 from 0 to 255")
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4:
        images = images.transpose(0, 3, 1, 2)
    else:
        raise SourceError(
            f"{path}: `images` have shape {images.shape}, give (n, height, width) or (n, height, width, 3)"
        )
    if not len(images):
        raise SourceError(f"{path}: `images` are none")
    if labels is not None and (labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer)):
        raise SourceError(
            f"{path}: `labels` are {labels.dtype} of shape {labels.shape}, give {len(images):,} whole numbers"
        )
    return Source(
        name,
        torch.from_numpy(np.ascontiguousarray(images[:n])),
        None if labels is None else torch.from_numpy(labels[:n].astype(np.int64)),
    )
