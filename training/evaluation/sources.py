"""What can be judged: a model file, a run (with and without averaged weights), or an .npz of images from anywhere."""

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.checkpoint import Checkpoint, load_checkpoint
from models.common.errors import MnistGanError
from models.onnx_file.generator import Generator

SEED = 0
"""Images 0 to n - 1 of this seed are judged, so that a file's metrics can be had again."""


class SourceError(MnistGanError):
    """Something that cannot be judged."""


@dataclass(frozen=True)
class ImageArrays:
    """Images of unknown origin."""

    images: Tensor
    """uint8 (n, channels, height, width)."""
    labels: Tensor | None
    """int64 (n,)."""

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_shape(self) -> tuple[int, ...]:
        return tuple(self.images.shape[1:])

    def take(self, n: int) -> tuple[Tensor, Tensor | None]:
        return self.images[:n], None if self.labels is None else self.labels[:n]


@dataclass(frozen=True)
class ImageSource:
    """Images to judge: those that a model draws, or some from anywhere."""

    name: str
    """What to call it in a table."""
    origin: Generator | ImageArrays
    history: Path | None = None
    """The metrics.jsonl of a run."""

    @property
    def generator(self) -> Generator | None:
        return self.origin if isinstance(self.origin, Generator) else None

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(channels, height, width)."""
        return self.origin.card.image_shape if isinstance(self.origin, Generator) else self.origin.image_shape

    def take(self, n: int) -> tuple[Tensor, Tensor | None]:
        """The first `n` images, uint8 (n, channels, height, width), and their labels."""
        if isinstance(self.origin, ImageArrays):
            return self.origin.take(n)
        images, labels = self.origin.images(SEED, 0, n)
        return torch.from_numpy(images), None if labels is None else torch.from_numpy(labels)


def open_sources(paths: Sequence[Path]) -> Iterator[ImageSource]:
    """Opens model files, runs (their newest checkpoint), and .npz files. They are named as they differ.

    Raises:
        SourceError, ModelFileError, CheckpointError, ParityError: one cannot be read; the message says why.
    """
    paths = tuple(dict.fromkeys(paths))
    ends = [path.name for path in paths]
    for path in paths:
        yield from _open(path, path.name if ends.count(path.name) == 1 else str(path))


def _open(path: Path, name: str) -> Iterator[ImageSource]:
    if path.suffix == ".npz":
        yield ImageSource(name, _arrays(path))
    elif path.is_dir() or path.suffix == ".safetensors":
        from models.export.exporter import export  # takes seconds to import, and model files do without

        checkpoint = load_checkpoint(path)
        history = path / "metrics.jsonl" if (path / "metrics.jsonl").is_file() else None
        if not checkpoint.part("ema"):
            yield ImageSource(name, export(checkpoint).generator, history)
        else:
            raw = replace(checkpoint, tensors=_without_ema(checkpoint))
            yield ImageSource(f"{name}, averaged", export(checkpoint).generator, history)
            yield ImageSource(f"{name}, raw", export(raw).generator)
    else:
        yield ImageSource(name, Generator.open(path))


def _without_ema(checkpoint: Checkpoint) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in checkpoint.tensors.items() if not name.startswith("ema.")}


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


def _arrays(path: Path) -> ImageArrays:
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
    return ImageArrays(
        torch.from_numpy(np.ascontiguousarray(images)),
        None if labels is None else torch.from_numpy(labels.astype(np.int64)),
    )
