"""The training images: one uint8 tensor on the training device, batched by index."""

import hashlib
import math
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Literal

import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn.functional import interpolate

from models.card import Dataset
from models.errors import MnistGanError

IMAGE_SIZE = 28
MIN_IMAGE_SIZE = 8
DOWNLOAD_TIMEOUT_SECONDS = 20


Split = Literal["train", "test"]

WITH_TEST_SPLIT = ("mnist", "fashion-mnist", "kmnist", "emnist-digits", "stacked-mnist")
STACKED_IMAGES: dict[Split, int] = {"train": 128_000, "test": 26_000}


class DataError(MnistGanError):
    """A data set that is damaged, or not what its name says."""


class DataUnavailableError(DataError):
    """A data set that is not there and cannot be downloaded."""

    exit_code = os.EX_NOINPUT


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


def load(
    name: str, data_dir: Path, image_size: int | None = None, channels: int | None = None, split: Split = "train"
) -> Images:
    """Loads a split of a data set, downloading it if it is not in `data_dir`.

    Args:
        name: a key of `LOADERS`.
        data_dir: the folder of the data sets; for "folder", the data set itself: images in one subfolder a class.
        image_size: height and width to resample to. None: as they are, and 28 for "folder".
        channels: 1 (grey) or 3 (RGB). None: as they are; for "folder", 1 if no image has colours.
        split: "test" is there for the sets of `WITH_TEST_SPLIT`; the others are all "train".

    Raises:
        DataError: a file of it is damaged; the message names the file. Or a size or channels out of range, or no such
            split.
        DataUnavailableError: it is not there and cannot be downloaded.
    """
    if image_size is not None and image_size < MIN_IMAGE_SIZE:
        raise DataError(f"the image size must be at least {MIN_IMAGE_SIZE}, got {image_size}")
    if channels not in (None, 1, 3):
        raise DataError(f"the channels must be 1 or 3, got {channels}")
    if split == "test" and name not in WITH_TEST_SPLIT:
        raise DataError(f"{name} has no test split")
    images, labels, class_names = LOADERS[name](data_dir, image_size, channels, split)
    if len(images) != len(labels):
        raise DataError(f"{name} in {data_dir}: {len(images):,} images, but {len(labels):,} labels")
    counts = torch.bincount(labels, minlength=len(class_names))
    if len(counts) != len(class_names):
        raise DataError(f"{name} in {data_dir}: labels up to {len(counts) - 1}, but {len(class_names)} classes")
    sha256 = hashlib.sha256(images.numpy().data)
    sha256.update(labels.numpy().data)
    _, depth, height, width = images.shape
    info = Dataset(name, sha256.hexdigest(), (depth, height, width), tuple(class_names), tuple(counts.tolist()))
    return Images(images, labels, info)


def _torchvision(
    class_name: str,
    data_dir: Path,
    image_size: int | None,
    channels: int | None,
    split: Split,
    file_prefix: str = "",
    transposed: bool = False,
    subset: str | None = None,
) -> tuple[Tensor, Tensor, list[str]]:
    """A data set of torchvision's MNIST family: IDX files in a folder of the class's name.

    Args:
        file_prefix: what the names of its files start with, where the folder holds others too.
        transposed: whether the files hold the images column by column, which torchvision leaves so.
        subset: which of a class's data sets, where it has several.
    """
    from torchvision import datasets

    folder = data_dir / class_name / "raw"
    for file in sorted(folder.glob(f"{file_prefix}*-ubyte")):
        _check_idx(file)
    try:
        with _download_timeout():
            dataset = getattr(datasets, class_name)(
                data_dir, train=split == "train", download=True, **({"split": subset} if subset else {})
            )
    except (RuntimeError, OSError, HTTPException) as error:
        raise DataUnavailableError(
            f"{class_name} is not in {folder} and cannot be downloaded ({error}); put its IDX files "
            f"({file_prefix}train-images-idx3-ubyte ...) there, or use --dataset uci-digits, which needs no download"
        ) from error
    images = dataset.data.unsqueeze(1)
    class_names = [name.split(" - ")[0] for name in dataset.classes]  # MNIST's are "0 - zero" and so on
    return _fit(images.mT if transposed else images, image_size, channels), dataset.targets, class_names


def _stacked_mnist(
    data_dir: Path, image_size: int | None, channels: int | None, split: Split
) -> tuple[Tensor, Tensor, list[str]]:
    """Three random digits of MNIST as the channels of one image: a thousand classes, to count what a generator forgets.

    Metz et al. (2017), "Unrolled generative adversarial networks"; sizes as in Lin et al. (2018), "PacGAN".
    """
    if channels not in (None, 3):
        raise DataError(f"stacked-mnist has 3 channels, got {channels}")
    digits, labels, _ = LOADERS["mnist"](data_dir, image_size, None, split)
    index = torch.randint(len(digits), (STACKED_IMAGES[split], 3), generator=torch.Generator().manual_seed(0))
    class_names = [f"{number:03}" for number in range(1_000)]
    return digits[index].squeeze(2), labels[index] @ torch.tensor([100, 10, 1]), class_names


def _check_idx(file: Path) -> None:
    """IDX: two zero bytes, a type (8: uint8), the number of dimensions, each as a big-endian int32, then the data."""
    with file.open("rb") as stream:
        zeros, kind, dimensions = stream.read(2), stream.read(1), int.from_bytes(stream.read(1))
        shape = [int.from_bytes(stream.read(4)) for _ in range(dimensions)]
    expected, actual = 4 + 4 * dimensions + math.prod(shape), file.stat().st_size
    rank = 3 if "images" in file.name else 1
    if zeros != b"\0\0" or kind != b"\x08" or dimensions != rank or 0 in shape:
        raise DataError(f"{file}: not an IDX file of uint8 in {rank} dimensions; delete it to fetch it anew")
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


def _fit(images: Tensor, image_size: int | None, channels: int | None) -> Tensor:
    """Resamples grey images, uint8 (n, 1, height, width), and repeats their channel; None leaves them as they are."""
    if image_size is not None and images.shape[2:] != (image_size, image_size):
        # On uint8 this is Pillow's arithmetic, without a float copy of the whole data set.
        images = interpolate(images, size=(image_size, image_size), mode="bicubic", antialias=True)
    return images.expand(-1, channels or -1, -1, -1).contiguous()


def _uci_digits(_: Path, image_size: int | None, channels: int | None, __: Split) -> tuple[Tensor, Tensor, list[str]]:
    """Optical recognition of handwritten digits (Alpaydin and Kaynak, 1998): 8x8 images in 17 levels of grey."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(digits.images).unsqueeze(1) * (255 / 16)
    images = interpolate(images, size=(IMAGE_SIZE, IMAGE_SIZE), mode="bicubic").round().clamp(0, 255).to(torch.uint8)
    return _fit(images, image_size, channels), torch.from_numpy(digits.target), [str(digit) for digit in range(10)]


def _folder(path: Path, image_size: int | None, channels: int | None, _: Split) -> tuple[Tensor, Tensor, list[str]]:
    """Images of any size, at any depth in one subfolder a class. What starts with a dot is passed over."""
    from torchvision.datasets.folder import make_dataset
    from torchvision.transforms.functional import pil_to_tensor

    if not path.is_dir():
        raise DataUnavailableError(f"{path}: no such folder; it should hold images in one subfolder a class")
    class_names = sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not class_names:
        raise DataError(f"{path}: no subfolders; put the images of each class into one of the class's name")
    indices = {name: index for index, name in enumerate(class_names)}
    files = make_dataset(
        path, indices, is_valid_file=lambda file: "/." not in file.removeprefix(str(path)), allow_empty=True
    )
    if empty := set(indices.values()) - {label for _, label in files}:
        raise DataError(f"{path / class_names[min(empty)]}: no images of this class; add some, or delete the folder")
    size, mode = image_size or IMAGE_SIZE, "L" if channels == 1 else "RGB"
    images = torch.stack([pil_to_tensor(_read_image(file, size, mode)) for file, _ in files])
    if channels is None and (images == images[:, :1]).all():
        images = images[:, :1].contiguous()
    return images, torch.tensor([label for _, label in files]), class_names


def _read_image(file: str, size: int, mode: str) -> Image.Image:
    """The middle square of an image, (size, size), upright, on white where it is transparent, as Pillow's `mode`."""
    try:
        with Image.open(file) as image:
            if image.mode.startswith(("I", "F")):  # Pillow would clip them to white without a word
                raise ValueError(f"its mode is {image.mode}; save it with 8 bits a channel")
            rgba = ImageOps.exif_transpose(image).convert("RGBA")
    except Exception as error:  # a decoder raises whatever damaged bytes lead it to: SyntaxError, struct.error, ...
        raise DataError(f"{file}: not an image that can be read ({error})") from error
    rgba = ImageOps.fit(rgba, (size, size), Image.Resampling.LANCZOS)
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert(mode)


LOADERS: dict[str, Callable[[Path, int | None, int | None, Split], tuple[Tensor, Tensor, list[str]]]] = {
    "mnist": partial(_torchvision, "MNIST"),
    "fashion-mnist": partial(_torchvision, "FashionMNIST"),
    "kmnist": partial(_torchvision, "KMNIST"),
    "emnist-digits": partial(_torchvision, "EMNIST", subset="digits", file_prefix="emnist-digits-", transposed=True),
    "stacked-mnist": _stacked_mnist,
    "uci-digits": _uci_digits,
    "folder": _folder,
}
