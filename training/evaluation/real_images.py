"""Real images for an evaluation: the training images, and held-out images that sources are compared with."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from models.onnx_file.card import Dataset
from training.data import WITH_TEST_SPLIT, DataError, LabelledImages, load_dataset
from training.fit import DEFAULT_BACKGROUND, Fit


@dataclass(frozen=True)
class RealImages:
    """Real images of one data set, in two sets without a common image (if the data set itself has no duplicates)."""

    train: LabelledImages
    """Images for training: for the classifier of --fit-classifier, the real-data baseline and the search for copies."""
    test: LabelledImages
    """Held-out images in a fixed random order, with which sources are compared."""
    test_description: str
    """Completes "n images ..." in the report, for example "of the test split"."""


def load_real_images(
    dataset: str,
    data_dir: Path,
    shape: tuple[int, int, int] | None,
    fit: Fit = "crop",
    background: str = DEFAULT_BACKGROUND,
) -> RealImages:
    """Loads the training and test split, or two random halves of each class if the data set has no test split.

    Args:
        dataset: key of `training.data.LOADERS`.
        data_dir: folder of the data sets; for "folder", the folder of images itself.
        shape: (channels, height, width) to convert the images to; None keeps the shape of the data set.
        fit, background: how images of a folder become that shape; see `training.data.load_dataset`.

    Raises:
        DataError: the data set cannot be loaded, or has fewer than two images.
    """
    channels, height, width = shape or (None, None, None)
    size = None if height is None or width is None else (width, height)
    train = load_dataset(dataset, data_dir, size, channels, fit, background)
    if dataset in WITH_TEST_SPLIT:
        return RealImages(train, load_test_images(train.info, data_dir), "of the test split")
    if len(train) < 2:
        raise DataError(f"{dataset} in {data_dir}: has {len(train)} images, but an evaluation needs at least 2")
    first, second = split_in_half(train)
    description = "of a random half of each class (there is no test split, so a model may have been trained on them)"
    return RealImages(first, second, description)


def load_test_images(info: Dataset, data_dir: Path) -> LabelledImages:
    """Loads the test split of a data set in the shape of `info`, in a fixed random order.

    Raises:
        DataError: the data set cannot be loaded, or has no test split.
    """
    channels, height, width = info.image_shape
    return shuffled(load_dataset(info.name, data_dir, (width, height), channels, split="test"))


def shuffled(data: LabelledImages) -> LabelledImages:
    """Returns the same images in a fixed random order, so that the first n are a random subset.

    Files are not in random order: the first 5,000 test images of MNIST are cleaner than the others.
    """
    return _select(data, torch.randperm(len(data), generator=torch.Generator().manual_seed(0)))


def split_in_half(data: LabelledImages) -> tuple[LabelledImages, LabelledImages]:
    """Returns two random halves of each class, each in random order. The split is the same each time."""
    mixed = shuffled(data)
    by_class = mixed.labels.argsort(stable=True)
    first, second = (_select(mixed, by_class[i::2].sort().values) for i in range(2))
    return first, second


def _select(data: LabelledImages, indices: Tensor) -> LabelledImages:
    return replace(data, images=data.images[indices], labels=data.labels[indices])
