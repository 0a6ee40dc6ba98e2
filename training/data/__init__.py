"""The training images: one uint8 tensor on the training device, batched by index."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch

from models.onnx_file.card import Dataset
from training.data.digits import STACKED_IMAGES, stacked_mnist, uci_digits
from training.data.folder import load_folder
from training.data.idx import IDX_SETS
from training.data.images import (
    IMAGE_SIZE,
    MIN_IMAGE_SIZE,
    DataError,
    DataUnavailableError,
    LabelledImages,
    Loaded,
    LoadOptions,
    Split,
)

__all__ = [
    "IMAGE_SIZE",
    "LOADERS",
    "STACKED_IMAGES",
    "WITH_TEST_SPLIT",
    "DataError",
    "DataUnavailableError",
    "LabelledImages",
    "LoadOptions",
    "Loaded",
    "Split",
    "load_dataset",
]

WITH_TEST_SPLIT = (*IDX_SETS, "stacked-mnist")
CLASSES_SHOWN = 12
"""Longest list of classes in a summary."""

LOADERS: dict[str, Callable[[LoadOptions], Loaded]] = {
    **{name: idx_set.load for name, idx_set in IDX_SETS.items()},
    "stacked-mnist": lambda request: stacked_mnist(request, LOADERS["mnist"]),
    "uci-digits": uci_digits,
    "folder": load_folder,
}


def load_dataset(
    name: str,
    data_dir: Path,
    image_size: int | None = None,
    channels: int | None = None,
    split: Split = "train",
    download: bool = True,
) -> LabelledImages:
    """Loads a split of a data set, downloading it if it is not in `data_dir`.

    Args:
        name: a key of `LOADERS`.
        data_dir: the folder of the data sets; for "folder", the data set itself: images in one subfolder per class.
        image_size: height and width to resample to. None: as they are, and 28 for "folder".
        channels: 1 (grey) or 3 (RGB). None: as they are; for "folder", 1 if no image has colours.
        split: "test" exists for the sets of `WITH_TEST_SPLIT`; the others are all "train".
        download: False raises an error instead, and writes nothing.

    Raises:
        DataError: a file of it is damaged; the message names the file. Or a size or channels out of range, or no such
            split.
        DataUnavailableError: it is missing and cannot be downloaded.
    """
    if image_size is not None and image_size < MIN_IMAGE_SIZE:
        raise DataError(f"the image size must be at least {MIN_IMAGE_SIZE}, got {image_size}")
    if channels not in (None, 1, 3):
        raise DataError(f"the channels must be 1 or 3, got {channels}")
    if split == "test" and name not in WITH_TEST_SPLIT:
        raise DataError(f"{name} has no test split")
    loaded = LOADERS[name](LoadOptions(data_dir, image_size, channels, split, download))
    images, labels, class_names = loaded.images, loaded.labels, loaded.class_names
    if len(images) != len(labels):
        raise DataError(f"{name} in {data_dir}: {len(images):,} images, but {len(labels):,} labels")
    counts = torch.bincount(labels, minlength=len(class_names))
    if len(counts) != len(class_names):
        raise DataError(f"{name} in {data_dir}: labels up to {len(counts) - 1}, but {len(class_names)} classes")
    sha256 = hashlib.sha256(images.numpy().data)
    sha256.update(labels.numpy().data)
    _, depth, height, width = images.shape
    info = Dataset(name, sha256.hexdigest(), (depth, height, width), tuple(class_names), tuple(counts.tolist()))
    return LabelledImages(images, labels, info, (_describe(info), *loaded.notes))


def _describe(info: Dataset) -> str:
    """The data set in one line: images, size, channels, and the classes with their counts."""
    channels, height, width = info.image_shape
    names = [name if name.isprintable() else ascii(name) for name in info.class_names]
    classes = [f"{name} ({count:,})" for name, count in zip(names, info.class_weights, strict=True)]
    if len(classes) > CLASSES_SHOWN:
        least, most = min(info.class_weights), max(info.class_weights)
        classes = [*classes[: CLASSES_SHOWN - 2], f"and so on, {least:,} to {most:,} images each"]
    return (
        f"{info.name}: {sum(info.class_weights):,} images of {width} x {height} pixels, "
        f"{'grey' if channels == 1 else 'RGB'}; {len(names):,} {'class' if len(names) == 1 else 'classes'}: "
        + ", ".join(classes)
    )
