"""What generated images are measured with: a classifier to see them through, and the real ones."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from torch import Tensor

from models.card import Dataset
from models.errors import InputError
from training import data as datasets
from training.data import DataError, Images
from training.evaluation import classifier as classifiers
from training.evaluation.classifier import Reading

NEAREST_IMAGES = 2_000
"""Images whose nearest neighbours are looked for."""
NEAR_QUANTILE = 0.01


@dataclass(frozen=True)
class Ruler:
    read: Callable[[Tensor], Reading]
    train: Images
    """What generators learn from."""
    test: Images
    """What they are held against."""
    class_shares: NDArray[np.float64]
    """What share of the images each class should have."""
    progress: Progress | None = None

    @cached_property
    def reference(self) -> Reading:
        return self.read(self.test.images)

    @cached_property
    def near(self) -> float:
        """A distance: one test image in a hundred has a training image nearer than this."""
        return float(np.quantile(nearest(self.test.images, self.train.images)[0], NEAR_QUANTILE))


def real_images(dataset: str, data_dir: Path, shape: tuple[int, int, int] | None) -> tuple[Images, Images, str]:
    """The images that generators learn from, those that they are held against, and what those are.

    Raises:
        DataError: there are too few, or none.
    """
    channels, image_size, _ = shape or (None, None, None)
    train = datasets.load(dataset, data_dir, image_size, channels)
    if dataset in datasets.WITH_TEST_SPLIT:
        return train, test_images(train.info, data_dir), "of the test split"
    if len(train) < 2:
        raise DataError(f"{dataset} in {data_dir}: has {len(train)} images, too few to judge by")
    learned, held = (replace(train, images=train.images[i::2], labels=train.labels[i::2]) for i in range(2))
    return learned, held, "that it may have learned from, since there is no test split: every second one"


def test_images(of: Dataset, data_dir: Path) -> Images:
    """The test split of a data set, in the same shape."""
    channels, image_size, _ = of.image_shape
    return datasets.load(of.name, data_dir, image_size, channels, "test")


def make_ruler(
    train: Images, test: Images, fit_classifier: bool = False, progress: Progress | None = None
) -> tuple[Ruler, str]:
    """What to measure with, and a word on it.

    Raises:
        InputError: there is no classifier for this data.
    """
    name, shape = train.info.name, train.info.image_shape
    shares = np.array(train.info.class_counts) / sum(train.info.class_counts)
    if (name, shape) == ("stacked-mnist", (3, 28, 28)):
        shares = np.full_like(shares, 1 / len(shares))  # by its protocol
        read, whose = partial(classifiers.read_stacked, classifiers.load_pinned()), "pinned"
    elif (name, shape) == ("mnist", (1, 28, 28)):
        read, whose = partial(classifiers.read, classifiers.load_pinned()), "pinned"
    elif fit_classifier:
        classifier = classifiers.fit(train, progress=progress, task=f"a classifier of {name}")
        read, whose = partial(classifiers.read, classifier), "trained just now on the training images"
    else:
        raise InputError(
            "fit-classifier",
            f"there is no pinned classifier of {name} in the shape {shape}; `evaluate --fit-classifier` trains one",
        )
    ruler = Ruler(read, train, test, shares, progress)
    right = (ruler.reference.labels == test.labels.numpy()).mean()
    return ruler, f"classifier: {whose}, right about {right:.2%} of them"


def nearest(images: Tensor, among: Tensor) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The nearest of `among` to each of the first 2,000 images: Euclidean distances of pixels in [0, 1], and indices.

    Args:
        images, among: uint8 (n, channels, height, width) and (m, ...).
    """
    pixels, others = (x.flatten(1).float() / 255 for x in (images[:NEAREST_IMAGES], among))
    norms = others.square().sum(1)
    found = []
    for rows in pixels.split(250):
        squares = torch.addmm(norms, rows, others.T, alpha=-2)  # less |row|^2, which changes no order
        smallest, index = squares.min(1)
        found.append(((smallest + rows.square().sum(1)).clamp_min(0).sqrt(), index))
    distances, indices = (torch.cat(column) for column in zip(*found, strict=True))
    return distances.double().numpy(), indices.numpy()
