"""What generated images are measured with: a classifier to see them through, and the real ones."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from torch import Tensor

from models.common.errors import InputError
from models.onnx_file.card import Dataset
from training.data import WITH_TEST_SPLIT, DataError, LabelledImages, load_dataset
from training.evaluation.classifier import (
    ClassifierOutput,
    classify,
    classify_stacked,
    enough_epochs,
    load_pinned_classifier,
    train_classifier,
)

NEAREST_IMAGES = 2_000
"""Images whose nearest neighbours are looked for."""
NEAR_QUANTILE = 0.01
CONFIDENCE = 2.0
"""Standard errors by which the accuracy of a classifier is lowered before it is compared with the required one."""


@dataclass(frozen=True)
class MetricContext:
    read: Callable[[Tensor], ClassifierOutput]
    train: LabelledImages
    """What generators learn from."""
    test: LabelledImages
    """Images that the classifier has not learned from, in random order: generated images are compared with them."""
    class_shares: NDArray[np.float64]
    """What share of the images each class should have."""
    progress: Progress | None = None
    allow_weak: bool = False
    """Whether to measure with a classifier that does not separate the classes."""

    @cached_property
    def reference(self) -> ClassifierOutput:
        return self.read(self.test.images)

    @cached_property
    def accuracy(self) -> float:
        """Share of the held-out real images whose class the classifier recognises."""
        return float((self.reference.labels == self.test.labels.numpy()).mean())

    @cached_property
    def classifier_problem(self) -> str | None:
        """Explains that the classifier does not separate the classes; None if it does."""
        n = len(self.test)
        chance = float(np.bincount(self.test.labels.numpy()).max() / n)
        surely, required = accuracy_bound(self.accuracy, n), (1 + chance) / 2
        if surely > required:
            return None
        return (
            f"the classifier does not separate the classes: it is right about {self.accuracy:.2%} of {n:,} held-out "
            f"real images (with {CONFIDENCE:g} standard errors of uncertainty at least {surely:.2%}), and more than "
            f"{required:.2%} is required, halfway from the share of the most frequent class to 100 %"
        )

    @property
    def trusted(self) -> bool:
        """Whether metrics may depend on the classifier."""
        return self.allow_weak or self.classifier_problem is None

    @cached_property
    def near(self) -> float:
        """A distance: one test image in a hundred has a training image nearer than this."""
        return float(np.quantile(nearest_images(self.test.images, self.train.images)[0], NEAR_QUANTILE))


def real_images(
    dataset: str, data_dir: Path, shape: tuple[int, int, int] | None
) -> tuple[LabelledImages, LabelledImages, str]:
    """The images that generators learn from, those that they are held against, and what those are.

    Raises:
        DataError: there are too few, or none.
    """
    channels, image_size, _ = shape or (None, None, None)
    train = load_dataset(dataset, data_dir, image_size, channels)
    if dataset in WITH_TEST_SPLIT:
        return train, test_images(train.info, data_dir), "of the test split"
    if len(train) < 2:
        raise DataError(f"{dataset} in {data_dir}: has {len(train)} images, too few to judge by")
    learned, held = split_in_half(train)
    return learned, held, "that it may have learned from, since there is no test split: a random half of each class"


def test_images(of: Dataset, data_dir: Path) -> LabelledImages:
    """The test split of a data set, in the same shape and in a fixed random order."""
    channels, image_size, _ = of.image_shape
    return shuffled(load_dataset(of.name, data_dir, image_size, channels, "test"))


def shuffled(data: LabelledImages) -> LabelledImages:
    """The same images in a fixed random order, so that the first n are a random subset.

    In files they are not: the first 5,000 test images of MNIST are cleaner than the others.
    """
    return _select(data, torch.randperm(len(data), generator=torch.Generator().manual_seed(0)))


def split_in_half(data: LabelledImages) -> tuple[LabelledImages, LabelledImages]:
    """Two random halves of each class, in random order; always the same ones."""
    mixed = shuffled(data)
    by_class = mixed.labels.argsort(stable=True)
    first, second = (_select(mixed, by_class[i::2].sort().values) for i in range(2))
    return first, second


def _select(data: LabelledImages, indices: Tensor) -> LabelledImages:
    return replace(data, images=data.images[indices], labels=data.labels[indices])


def accuracy_bound(accuracy: float, n: int) -> float:
    """Lower end of Wilson's score interval of an accuracy that was measured on n images.

    Unlike the accuracy less two standard errors, it is below 1 where all of a few images are right.
    """
    z = CONFIDENCE**2 / n
    return (accuracy + z / 2 - math.sqrt(z * accuracy * (1 - accuracy) + z * z / 4)) / (1 + z)


def make_metric_context(
    train: LabelledImages,
    test: LabelledImages,
    fit_classifier: bool = False,
    progress: Progress | None = None,
    allow_weak: bool = False,
) -> tuple[MetricContext, str]:
    """What to measure with, and a description of the classifier.

    Raises:
        InputError: there is no classifier for this data.
    """
    name, shape = train.info.name, train.info.image_shape
    shares = np.array(train.info.class_weights) / sum(train.info.class_weights)
    if (name, shape) == ("stacked-mnist", (3, 28, 28)):
        shares = np.full_like(shares, 1 / len(shares))  # by its protocol
        read, whose = partial(classify_stacked, load_pinned_classifier()), "pinned"
    elif (name, shape) == ("mnist", (1, 28, 28)):
        read, whose = partial(classify, load_pinned_classifier()), "pinned"
    elif fit_classifier:
        epochs = enough_epochs(len(train))
        classifier = train_classifier(train, epochs, progress=progress, task=f"a classifier of {name}")
        read, whose = partial(classify, classifier), f"trained just now on {len(train):,} other images"
    else:
        raise InputError(
            "fit-classifier",
            f"there is no pinned classifier of {name} in the shape {shape}; `evaluate --fit-classifier` trains one",
        )
    context = MetricContext(read, train, test, shares, progress, allow_weak)
    return context, f"classifier: {whose}, right about {context.accuracy:.2%} of the {len(test):,} images"


def nearest_images(images: Tensor, among: Tensor) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
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
