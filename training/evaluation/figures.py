"""The figures: what each says of a set of images, which way is better, and how many images it needs.

Every one is measured on generated images and, for its noise floor, on as many real ones in their place.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from training.data import Images
from training.evaluation import classifier as classifiers
from training.evaluation.classifier import Reading
from training.evaluation.fidelity import Manifold, frechet_distance, kernel_distance, manifold
from training.evaluation.ruler import Ruler, nearest

SCORE_EPOCHS = 4
"""Of the classifiers that are trained for the classification accuracy score."""
MOST_CLASSES = 100


class FigureError(ValueError):
    """A figure that cannot be had of a set; the message says why."""


@dataclass(frozen=True)
class Sample:
    """A set of images to be judged."""

    ruler: Ruler
    images: Tensor
    """uint8 (n, channels, height, width)."""
    labels: Tensor | None
    """int64 (n,), the classes that were asked for."""

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def reading(self) -> Reading:
        return self.ruler.read(self.images)

    @cached_property
    def manifold(self) -> Manifold:
        reference = self.ruler.reference.features[: len(self)]
        return manifold(reference, self.reading.features[: len(reference)])

    @cached_property
    def neighbours(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Distances and indices of the nearest training images."""
        return nearest(self.images, self.ruler.train.images)


@dataclass(frozen=True)
class Value:
    value: float
    error: float | None = None
    """Its standard error, where that is known."""


@dataclass(frozen=True)
class Figure:
    title: str
    measure: Callable[[Sample], Value]
    needs: int
    """Images, at least."""
    better: Literal["lower", "higher", "like real"]
    percent: bool = False
    by_classifier: bool = True
    """Whether it is measured through the classifier of the `Ruler`."""
    floor: Literal["train", "test"] = "train"
    """Which real images stand in for generated ones: test images where training images would meet themselves."""


def measure(figure: Figure, sample: Sample) -> Value:
    """Raises:
    FigureError: the sample is too small for it, or has no labels where it takes some, or the classifier does not
        separate the classes.
    """
    if len(sample) < figure.needs:
        raise FigureError(f"needs {figure.needs:,} images, there are {len(sample):,}")
    if figure.by_classifier and not sample.ruler.trusted:
        raise FigureError("needs a classifier that separates the classes")
    return figure.measure(sample)


def _frechet(sample: Sample) -> Value:
    return Value(frechet_distance(sample.ruler.reference.features, sample.reading.features))


def _kernel(sample: Sample) -> Value:
    return Value(*kernel_distance(sample.ruler.reference.features, sample.reading.features))


def _modes(sample: Sample) -> Value:
    return Value(len(np.unique(sample.reading.labels)))


def _balance(sample: Sample) -> Value:
    """KL(generated classes || the data's) in nats: what the classifier reads, against what it should."""
    shares = np.bincount(sample.reading.labels, minlength=len(sample.ruler.class_shares)) / len(sample)
    present = shares > 0
    return Value(float(np.sum(shares[present] * np.log(shares[present] / sample.ruler.class_shares[present]))))


def _agreement(sample: Sample) -> Value:
    labels = _labels(sample)
    share = float((sample.reading.labels == labels.numpy()).mean())
    return Value(share, _share_error(share, len(sample)))


def _confidence(sample: Sample) -> Value:
    return Value(float(sample.reading.probabilities.max(1).mean()))


def _accuracy_score(sample: Sample) -> Value:
    """Ravuri and Vinyals (2019), "Classification accuracy score for conditional generative models"."""
    ruler = sample.ruler
    if len(ruler.train.info.class_names) > MOST_CLASSES:
        raise FigureError(f"needs at most {MOST_CLASSES} classes, of more no small classifier learns much")
    labelled = Images(sample.images, _labels(sample), ruler.train.info)
    student = classifiers.fit(labelled, SCORE_EPOCHS, progress=ruler.progress, task="a classifier of its own")
    right = classifiers.read(student, ruler.test.images).labels == ruler.test.labels.numpy()
    return Value(float(right.mean()), _share_error(float(right.mean()), len(right)))


def _distance(sample: Sample) -> Value:
    return Value(float(np.median(sample.neighbours[0])))


def _memorised(sample: Sample) -> Value:
    return Value(float((sample.neighbours[0] < sample.ruler.near).mean()))


def _labels(sample: Sample) -> Tensor:
    if sample.labels is None:
        raise FigureError("needs labels")
    return sample.labels


def _share_error(share: float, n: int) -> float:
    return float(np.sqrt(share * (1 - share) / n))


FIGURES = {
    "fid": Figure("classifier FID", _frechet, 2 * classifiers.FEATURES, "lower"),
    "kid": Figure("classifier KID", _kernel, 100, "lower"),
    "precision": Figure("precision", lambda sample: Value(sample.manifold.precision), 100, "higher"),
    "recall": Figure("recall", lambda sample: Value(sample.manifold.recall), 100, "higher"),
    "density": Figure("density", lambda sample: Value(sample.manifold.density), 100, "higher"),
    "coverage": Figure("coverage", lambda sample: Value(sample.manifold.coverage), 100, "higher"),
    "modes": Figure("classes covered", _modes, 1, "higher"),
    "class_balance": Figure("class balance, KL", _balance, 100, "lower"),
    "label_agreement": Figure("label agreement", _agreement, 1, "higher", percent=True),
    "confidence": Figure("mean confidence", _confidence, 1, "like real", percent=True),
    "accuracy_score": Figure("accuracy score", _accuracy_score, 1_000, "higher", percent=True, by_classifier=False),
    "nearest": Figure("nearest training image", _distance, 1, "like real", by_classifier=False, floor="test"),
    "memorised": Figure("near copies", _memorised, 100, "like real", percent=True, by_classifier=False, floor="test"),
}
FAST = ("fid", "precision", "recall", "modes", "class_balance", "label_agreement", "confidence")
"""What is quick enough to be measured while training."""
