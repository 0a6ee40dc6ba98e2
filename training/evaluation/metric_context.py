"""Everything that metrics need in addition to the images to measure: a classifier and the real images."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress
from torch import Tensor

from models.common.errors import InputError
from models.onnx_file.card import Dataset
from training.data import LabelledImages
from training.evaluation.classifier import (
    ClassifierOutput,
    classify,
    classify_stacked,
    enough_epochs,
    load_pinned_classifier,
    train_classifier,
)
from training.evaluation.neighbours import nearest_images

COPY_QUANTILE = 0.01
"""Quantile of the distances from test images to their nearest training images below which an image is a near copy."""
CONFIDENCE = 2.0
"""Number of standard errors by which the measured accuracy of a classifier is lowered before it is compared with the
required accuracy."""


@dataclass(frozen=True)
class MetricContext:
    """The classifier and the real images with which every source of an evaluation is measured."""

    classify: Callable[[Tensor], ClassifierOutput]
    """Classifies images, uint8 (n, channels, height, width)."""
    train: LabelledImages
    """Real training images, among which copies are searched for."""
    test: LabelledImages
    """Real images that the classifier was not trained on, in random order. Sources are compared with them."""
    class_shares: NDArray[np.float64]
    """Expected share of each class among generated images, (classes,), with sum 1."""
    progress: Progress | None = None
    """Shows the progress of classifiers that are trained for a metric; None shows nothing."""
    allow_weak_classifier: bool = False
    """Whether metrics may depend on a classifier that does not separate the classes."""

    @cached_property
    def test_output(self) -> ClassifierOutput:
        """Output of the classifier for the test images, with which that of generated images is compared."""
        return self.classify(self.test.images)

    @cached_property
    def classifier_accuracy(self) -> float:
        """Share of the test images that the classifier assigns to their true class, from 0 to 1."""
        return float((self.test_output.labels == self.test.labels.numpy()).mean())

    @cached_property
    def classifier_problem(self) -> str | None:
        """Explains that the classifier does not separate the classes of real images; None if it does.

        The lower bound of its accuracy must exceed the middle between the share of the most frequent class, which a
        constant prediction reaches, and 100 %.
        """
        n = len(self.test)
        chance = float(np.bincount(self.test.labels.numpy()).max() / n)
        lower_bound, required = accuracy_lower_bound(self.classifier_accuracy, n), (1 + chance) / 2
        if lower_bound > required:
            return None
        return (
            f"the classifier does not separate the classes: its accuracy on {n:,} held-out real images is "
            f"{self.classifier_accuracy:.2%} (at least {lower_bound:.2%} after subtracting {CONFIDENCE:g} standard "
            f"errors), and more than {required:.2%} is required, halfway from the share of the most frequent class to "
            "100 %"
        )

    @property
    def classifier_usable(self) -> bool:
        """Whether metrics may depend on the classifier."""
        return self.allow_weak_classifier or self.classifier_problem is None

    @cached_property
    def copy_distance(self) -> float:
        """Pixel distance below which an image is a near copy of a training image.

        1 % of the test images have a training image nearer than this. See `neighbours.nearest_images` for the unit.
        """
        return float(np.quantile(nearest_images(self.test.images, self.train.images)[0], COPY_QUANTILE))


def pinned_classifier(data: Dataset) -> Callable[[Tensor], ClassifierOutput] | None:
    """Returns the classifier that is pinned for a data set and its shape, as `MetricContext.classify`. None: no
    classifier is.

    Raises:
        ClassifierError: the file of the pinned classifier was changed.
    """
    if (data.name, data.image_shape) == ("stacked-mnist", (3, 28, 28)):
        return partial(classify_stacked, load_pinned_classifier())
    if (data.name, data.image_shape) == ("mnist", (1, 28, 28)):
        return partial(classify, load_pinned_classifier())
    return None


def make_metric_context(
    train: LabelledImages,
    test: LabelledImages,
    fit_classifier: bool = False,
    progress: Progress | None = None,
    allow_weak_classifier: bool = False,
) -> tuple[MetricContext, str]:
    """Chooses the classifier: the pinned one for MNIST and stacked MNIST, otherwise one trained on `train`.

    Args:
        train: real training images.
        test: real images that were not used for training.
        fit_classifier: whether to train a classifier if none is pinned for this data set and shape; if False, an error
            is raised in that case.
        progress: shows the progress of training; None shows nothing.
        allow_weak_classifier: whether to measure even if the classifier does not separate the classes.

    Returns:
        the context, and a line that describes the classifier and its accuracy.

    Raises:
        InputError: no classifier is pinned for this data set and shape, and `fit_classifier` is False.
        ClassifierError: the file of the pinned classifier was changed.
    """
    name = train.info.name
    class_shares = np.array(train.info.class_weights) / sum(train.info.class_weights)
    function, origin = pinned_classifier(train.info), "pinned"
    if function and name == "stacked-mnist":
        class_shares = np.full_like(class_shares, 1 / len(class_shares))  # The protocol compares with uniform classes.
    if function is None and fit_classifier:
        epochs = enough_epochs(len(train))
        classifier = train_classifier(train, epochs, progress=progress, task=f"training a classifier of {name}")
        function, origin = (
            partial(classify, classifier),
            f"trained for this evaluation on {len(train):,} training images",
        )
    if function is None:
        raise InputError(
            "fit-classifier",
            f"there is no pinned classifier for {name} in the shape {train.info.image_shape}; "
            "`evaluate --fit-classifier` trains one",
        )
    context = MetricContext(function, train, test, class_shares, progress, allow_weak_classifier)
    return context, f"classifier: {origin}, accuracy {context.classifier_accuracy:.2%} on the {len(test):,} real images"


def accuracy_lower_bound(accuracy: float, n: int) -> float:
    """Returns the lower end of Wilson's score interval for an accuracy on n images, at `CONFIDENCE` standard errors.

    The plain "accuracy minus two standard errors" is 1 if a few images are all classified correctly; this bound is not.
    """
    z = CONFIDENCE**2 / n
    return (accuracy + z / 2 - math.sqrt(z * accuracy * (1 - accuracy) + z * z / 4)) / (1 + z)
