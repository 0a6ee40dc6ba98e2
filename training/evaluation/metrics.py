"""The metrics: what each says of a set of images, which way is better, and how many images it needs.

Every one is measured on generated images and, for its noise floor, on as many real ones in their place.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from training.data import LabelledImages
from training.evaluation.classifier import FEATURES, ClassifierOutput, classify, train_classifier
from training.evaluation.feature_metrics import Manifold, frechet_distance, kernel_distance, manifold
from training.evaluation.metric_context import MetricContext, nearest_images

SCORE_EPOCHS = 4
"""Of the classifiers that are trained for the classification accuracy score."""
MAX_CLASSES = 100


class MetricError(ValueError):
    """A metric that cannot be had of a set; the message says why."""


@dataclass(frozen=True)
class Sample:
    """A set of images to be judged."""

    context: MetricContext
    images: Tensor
    """uint8 (n, channels, height, width)."""
    labels: Tensor | None
    """int64 (n,), the classes that were asked for."""

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def classifier_output(self) -> ClassifierOutput:
        return self.context.read(self.images)

    @cached_property
    def manifold(self) -> Manifold:
        reference = self.context.reference.features[: len(self)]
        return manifold(reference, self.classifier_output.features[: len(reference)])

    @cached_property
    def nearest_training_images(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Distances and indices of the nearest training images."""
        return nearest_images(self.images, self.context.train.images)


@dataclass(frozen=True)
class Measurement:
    value: float
    error: float | None = None
    """Its standard error, where that is known."""


@dataclass(frozen=True)
class Metric:
    title: str
    measure: Callable[[Sample], Measurement]
    min_images: int
    """Images, at least."""
    better: Literal["lower", "higher", "like real"]
    percent: bool = False
    needs_classifier: bool = True
    """Whether it is measured through the classifier of the `MetricContext`."""
    baseline: Literal["train", "test"] = "train"
    """Which real images stand in for generated ones: test images where training images would meet themselves."""


def measure(metric: Metric, sample: Sample) -> Measurement:
    """Raises:
    MetricError: the sample is too small for it, or has no labels where it takes some, or the classifier does not
        separate the classes.
    """
    if len(sample) < metric.min_images:
        raise MetricError(f"needs {metric.min_images:,} images, there are {len(sample):,}")
    if metric.needs_classifier and not sample.context.trusted:
        raise MetricError("needs a classifier that separates the classes")
    return metric.measure(sample)


def _frechet(sample: Sample) -> Measurement:
    return Measurement(frechet_distance(sample.context.reference.features, sample.classifier_output.features))


def _kernel(sample: Sample) -> Measurement:
    return Measurement(*kernel_distance(sample.context.reference.features, sample.classifier_output.features))


def _modes(sample: Sample) -> Measurement:
    return Measurement(len(np.unique(sample.classifier_output.labels)))


def _balance(sample: Sample) -> Measurement:
    """KL(generated classes || the data's) in nats: what the classifier reads, against what it should."""
    shares = np.bincount(sample.classifier_output.labels, minlength=len(sample.context.class_shares)) / len(sample)
    present = shares > 0
    return Measurement(float(np.sum(shares[present] * np.log(shares[present] / sample.context.class_shares[present]))))


def _agreement(sample: Sample) -> Measurement:
    labels = _labels(sample)
    share = float((sample.classifier_output.labels == labels.numpy()).mean())
    return Measurement(share, _share_error(share, len(sample)))


def _confidence(sample: Sample) -> Measurement:
    return Measurement(float(sample.classifier_output.probabilities.max(1).mean()))


def _accuracy_score(sample: Sample) -> Measurement:
    """Ravuri and Vinyals (2019), "Classification accuracy score for conditional generative models"."""
    context = sample.context
    if len(context.train.info.class_names) > MAX_CLASSES:
        raise MetricError(f"needs at most {MAX_CLASSES} classes, of more no small classifier learns much")
    labelled = LabelledImages(sample.images, _labels(sample), context.train.info)
    student = train_classifier(labelled, SCORE_EPOCHS, progress=context.progress, task="a classifier of its own")
    right = classify(student, context.test.images).labels == context.test.labels.numpy()
    return Measurement(float(right.mean()), _share_error(float(right.mean()), len(right)))


def _distance(sample: Sample) -> Measurement:
    return Measurement(float(np.median(sample.nearest_training_images[0])))


def _memorised(sample: Sample) -> Measurement:
    return Measurement(float((sample.nearest_training_images[0] < sample.context.near).mean()))


def _labels(sample: Sample) -> Tensor:
    if sample.labels is None:
        raise MetricError("needs labels")
    return sample.labels


def _share_error(share: float, n: int) -> float:
    return float(np.sqrt(share * (1 - share) / n))


METRICS = {
    "fid": Metric("classifier FID", _frechet, 2 * FEATURES, "lower"),
    "kid": Metric("classifier KID", _kernel, 100, "lower"),
    "precision": Metric("precision", lambda sample: Measurement(sample.manifold.precision), 100, "higher"),
    "recall": Metric("recall", lambda sample: Measurement(sample.manifold.recall), 100, "higher"),
    "density": Metric("density", lambda sample: Measurement(sample.manifold.density), 100, "higher"),
    "coverage": Metric("coverage", lambda sample: Measurement(sample.manifold.coverage), 100, "higher"),
    "modes": Metric("classes covered", _modes, 1, "higher"),
    "class_balance": Metric("class balance, KL", _balance, 100, "lower"),
    "label_agreement": Metric("label agreement", _agreement, 1, "higher", percent=True),
    "confidence": Metric("mean confidence", _confidence, 1, "like real", percent=True),
    "accuracy_score": Metric("accuracy score", _accuracy_score, 1_000, "higher", percent=True, needs_classifier=False),
    "nearest": Metric("nearest training image", _distance, 1, "like real", needs_classifier=False, baseline="test"),
    "memorised": Metric(
        "near copies", _memorised, 100, "like real", percent=True, needs_classifier=False, baseline="test"
    ),
}
FAST = ("fid", "precision", "recall", "modes", "class_balance", "label_agreement", "confidence")
"""What is quick enough to be measured while training."""
