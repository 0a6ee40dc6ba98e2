"""Small data sets for the tests: IDX files, and folders of images."""

import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from training.data import DataError, load_dataset

DIGITS = tuple("0123456789")
CLASS_NAMES = {
    "mnist": DIGITS,
    "fashion-mnist": (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    "kmnist": ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    "emnist-digits": DIGITS,
}
TORCHVISION_CLASSES = {
    "mnist": "MNIST",
    "fashion-mnist": "FashionMNIST",
    "kmnist": "KMNIST",
    "emnist-digits": "EMNIST",
}
SEVEN = np.zeros((28, 28), np.uint8)
"""A drawn 7. It looks different when it is mirrored, turned or transposed."""
SEVEN[2:6, 4:24] = SEVEN[6:26, 16:20] = 255


class IdxFiles(NamedTuple):
    """A data set of twelve images per split. Image 7 is `SEVEN`."""

    name: str
    data_dir: Path
    images: Path
    """File of the training images."""
    labels: Path
    """File of the training labels."""


def write_idx(file: Path, array: np.ndarray) -> None:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    file.write_bytes(header + array.astype(np.uint8).tobytes())


def write_images(folder: Path, **classes: list[Image.Image]) -> Path:
    """Writes a folder of images with one subfolder per class, and returns it."""
    for name, images in classes.items():
        (folder / name).mkdir(parents=True)
        for index, image in enumerate(images):
            image.save(folder / name / f"{index}.png")
    return folder


def plain_image(size: tuple[int, int] = (28, 28), level: int = 0) -> Image.Image:
    return Image.fromarray(np.full(size[::-1], level, np.uint8))


def write_image(file: Path, image: Image.Image | None = None) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    (image or plain_image()).save(file)
    return file


def error_message(folder: Path, **options) -> str:
    """Returns the one-line message with which a folder of images is rejected."""
    with pytest.raises(DataError) as caught:
        load_dataset("folder", folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)
