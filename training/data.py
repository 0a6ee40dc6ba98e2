"""The training images: one uint8 tensor on the training device, batched by index."""

import hashlib
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from models.card import Dataset

IMAGE_SIZE = 28
DOWNLOAD_TIMEOUT_SECONDS = 20


class DataError(ValueError):
    """A data set that is damaged, or not what its name says."""


class DataUnavailableError(DataError):
    """A data set that is not there and cannot be downloaded."""


@dataclass(frozen=True)
class Images:
    """A labelled data set in memory."""

    images: Tensor
    """uint8 (n, channels, height, width)."""
    labels: Tensor
    """int64 (n,), indices into `info.class_names`."""
    info: Dataset

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device) -> "Images":
        return Images(self.images.to(device), self.labels.to(device), self.info)


def load(name: str, data_dir: Path) -> Images:
    """Loads the training split of a data set, downloading it if it is not in `data_dir`.

    Raises:
        DataError: a file of it is damaged; the message names the file.
        DataUnavailableError: it is not there and cannot be downloaded.
    """
    images, labels, class_names = LOADERS[name](data_dir)
    if len(images) != len(labels):
        raise DataError(f"{name} in {data_dir}: {len(images):,} images, but {len(labels):,} labels")
    counts = torch.bincount(labels, minlength=len(class_names))
    if len(counts) != len(class_names):
        raise DataError(f"{name} in {data_dir}: labels up to {len(counts) - 1}, but {len(class_names)} classes")
    sha256 = hashlib.sha256(images.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()
    _, channels, height, width = images.shape
    info = Dataset(name, sha256, (channels, height, width), tuple(class_names), tuple(counts.tolist()))
    return Images(images, labels, info)


def _mnist(data_dir: Path) -> tuple[Tensor, Tensor, list[str]]:
    from torchvision.datasets import MNIST

    folder = data_dir / MNIST.__name__ / "raw"
    files = [folder / Path(archive).stem for archive, _ in MNIST.resources]
    present = [file for file in files if file.is_file()]
    for file in present:
        _check_idx(file)
    if len(present) < len(files):
        try:
            with _download_timeout():
                MNIST(data_dir, download=True)
        except (RuntimeError, OSError) as error:
            raise DataUnavailableError(
                f"MNIST is not in {folder} and cannot be downloaded ({error}); put its four IDX files there, "
                "or use --dataset uci-digits, which needs no download"
            ) from error
    mnist = MNIST(data_dir)
    return mnist.data.unsqueeze(1), mnist.targets, [str(digit) for digit in range(10)]


def _check_idx(file: Path) -> None:
    """IDX: two zero bytes, a type (8: uint8), the number of dimensions, each as a big-endian int32, then the data."""
    with file.open("rb") as stream:
        zeros, kind, dimensions = stream.read(2), stream.read(1), int.from_bytes(stream.read(1))
        shape = [int.from_bytes(stream.read(4)) for _ in range(dimensions)]
    expected, actual = 4 + 4 * dimensions + int(np.prod(shape)), file.stat().st_size
    rank = 3 if "images" in file.name else 1
    if zeros != b"\0\0" or kind != b"\x08" or dimensions != rank:
        raise DataError(
            f"{file}: not an IDX file of uint8 {'images' if rank == 3 else 'labels'}; delete it to fetch it anew"
        )
    if expected != actual:
        raise DataError(f"{file}: {actual:,} bytes long, its header says {expected:,}; delete it to fetch it anew")


@contextmanager
def _download_timeout() -> Iterator[None]:
    """Without one, a network that drops packets would hold us for minutes at each mirror."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _uci_digits(_: Path) -> tuple[Tensor, Tensor, list[str]]:
    """Optical recognition of handwritten digits (Alpaydin and Kaynak, 1998): 8x8 images in 17 levels of grey."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(digits.images).unsqueeze(1) * (255 / 16)
    images = interpolate(images, size=(IMAGE_SIZE, IMAGE_SIZE), mode="bicubic").round().clamp(0, 255).to(torch.uint8)
    return images, torch.from_numpy(digits.target), [str(digit) for digit in range(10)]


LOADERS: dict[str, Callable[[Path], tuple[Tensor, Tensor, list[str]]]] = {"mnist": _mnist, "uci-digits": _uci_digits}
