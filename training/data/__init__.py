"""Training data: loads a data set as one uint8 tensor of images and one tensor of labels.

A data set is a loader in `LOADERS`. To add one, write a function from `LoadOptions` to `Loaded`, add it there, and add
its name to `dataset` in training/config.py.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import ImageColor

from models.onnx_file.card import Dataset
from training.data.digits import STACKED_IMAGES, stacked_mnist, uci_digits
from training.data.folder import load_folder
from training.data.idx import IDX_SETS
from training.data.labelled_images import (
    IMAGE_SIZE,
    MAX_IMAGE_SIZE,
    MIN_IMAGE_SIZE,
    DataError,
    DataUnavailableError,
    LabelledImages,
    Loaded,
    LoadOptions,
    Split,
)
from training.data.messages import counted
from training.fit import DEFAULT_BACKGROUND, Fit

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
"""Data sets that have a test split."""
MAX_CLASSES_IN_SUMMARY = 12
"""Largest number of classes that a summary lists; a longer list is abbreviated."""

LOADERS: dict[str, Callable[[LoadOptions], Loaded]] = {
    **{name: idx_set.load for name, idx_set in IDX_SETS.items()},
    "stacked-mnist": lambda options: stacked_mnist(options, LOADERS["mnist"]),
    "uci-digits": uci_digits,
    "folder": load_folder,
}
"""Loaders by the name that `train --dataset` takes."""


def load_dataset(
    name: str,
    data_dir: Path,
    image_size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    fit: Fit = "crop",
    background: str = DEFAULT_BACKGROUND,
    split: Split = "train",
    download: bool = True,
) -> LabelledImages:
    """Loads a split of a data set, and downloads it if it is not in `data_dir`.

    Args:
        name: a key of `LOADERS`.
        data_dir: folder of the data sets; for "folder" the data set itself, with images in one subfolder per class.
        image_size: side of a square, or width and height, to resample to, in pixels; each from 8 to 256. None: as
            stored; for "folder" 28 if the images have several sizes.
        channels: 1 for grey, 3 for RGB. None: as stored; for "folder" 1 if no image has colours, otherwise 3.
        fit: for "folder", how images with other proportions become `image_size`; see `training.fit.Fit`.
        background: for "folder", the colour behind transparent images and around padded ones, as CSS writes it.
        split: "test" is available for the data sets in `WITH_TEST_SPLIT`.
        download: whether to download a missing data set; if False, an error is raised and nothing is written.

    Raises:
        DataError: a file is damaged (the message names it), an option does not fit the data set, or it has no such
            split.
        DataUnavailableError: the data set is missing and cannot be downloaded.
    """
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    if size is not None and not MIN_IMAGE_SIZE <= min(size) <= max(size) <= MAX_IMAGE_SIZE:
        raise DataError(
            f"--image-size must be from {MIN_IMAGE_SIZE} to {MAX_IMAGE_SIZE} pixels on each side, got "
            f"{image_size if isinstance(image_size, int) else 'x'.join(map(str, size))}"
        )
    if channels not in (None, 1, 3):
        raise DataError(f"--channels must be 1 or 3, got {channels}")
    if split == "test" and name not in WITH_TEST_SPLIT:
        raise DataError(f"{name} has no test split; these data sets have one: {', '.join(WITH_TEST_SPLIT)}")
    loaded = LOADERS[name](LoadOptions(data_dir, size, channels, fit, _rgb(background), split, download))
    images, labels, class_names = loaded.images, loaded.labels, loaded.class_names
    if len(images) != len(labels):
        raise DataError(
            f"{name} in {data_dir}: {len(images):,} images, but {len(labels):,} labels; replace the files, or move "
            "them away so that they are downloaded again"
        )
    counts = torch.bincount(labels, minlength=len(class_names))
    if len(counts) != len(class_names):
        raise DataError(
            f"{name} in {data_dir}: labels up to {len(counts) - 1}, but {len(class_names)} classes; replace the file "
            "of the labels, or move it away so that it is downloaded again"
        )
    sha256 = hashlib.sha256(images.numpy().data)
    sha256.update(labels.numpy().data)
    _, channel_count, height, width = images.shape
    shape = (channel_count, height, width)
    info = Dataset(name, sha256.hexdigest(), shape, tuple(class_names), tuple(counts.tolist()), *_statistics(images))
    return LabelledImages(images, labels, info, (_describe(info), *loaded.notes))


def _statistics(images: torch.Tensor) -> tuple[float, float]:
    """Returns the mean of the pixels and the mean standard deviation within an image, as `Dataset` defines them.

    Args:
        images: uint8 (n, channels, height, width), with n at least 1. They are converted to floats in parts, to save
            memory.
    """
    deviations, means = zip(
        *(torch.std_mean(part.flatten(1).float(), 1, correction=0) for part in images.split(4096)), strict=True
    )
    return torch.cat(means).double().mean().item(), torch.cat(deviations).double().mean().item()


def _rgb(colour: str) -> tuple[int, int, int]:
    """Parses a colour: a name or #rrggbb.

    Raises:
        DataError: it is not a colour.
    """
    try:
        red, green, blue, *_ = ImageColor.getrgb(colour)
    except ValueError:
        raise DataError(f"--background {colour!r:.40} is not a colour; give a name such as black, or #rrggbb") from None
    return red, green, blue


def _describe(info: Dataset) -> str:
    """Describes a data set in one line: number of images, size, channels, and the classes with their numbers."""
    channels, height, width = info.image_shape
    names = [name if name.isprintable() else ascii(name) for name in info.class_names]
    classes = [f"{name} ({count:,})" for name, count in zip(names, info.class_weights, strict=True)]
    if len(classes) > MAX_CLASSES_IN_SUMMARY:
        fewest, most = min(info.class_weights), max(info.class_weights)
        classes = [*classes[: MAX_CLASSES_IN_SUMMARY - 2], f"and so on, {fewest:,} to {most:,} images each"]
    return (
        f"{info.name}: {counted(sum(info.class_weights), 'image')} of {width} x {height} pixels, "
        f"{'grey' if channels == 1 else 'RGB'}; {len(names):,} {'class' if len(names) == 1 else 'classes'}: "
        + ", ".join(classes)
    )
