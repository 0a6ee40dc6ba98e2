"""The metrics of `evaluate`: how each is measured, which direction is better, and how many images it needs.

Each metric has a real-data baseline: the same metric of real images in place of generated ones, which is what a perfect
generator would get. Most baselines use as many random training images as each source has. `nearest` and `memorised`
search training images, which would find themselves, so their baseline uses the test images.
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
from training.evaluation.metric_context import MetricContext
from training.evaluation.neighbours import nearest_images

SCORE_EPOCHS = 4
"""Number of epochs over the generated images for which the accuracy score trains its classifier."""
MAX_CLASSES = 100
"""Largest number of classes for which the accuracy score is measured."""


class MetricError(ValueError):
    """A metric cannot be measured on a sample. The message completes "the metric ...", for example "needs labels"."""


@dataclass(frozen=True)
class Sample:
    """Images to measure, generated or real, with everything that several metrics compute from them, cached."""

    context: MetricContext
    images: Tensor
    """uint8 (n, channels, height, width)."""
    labels: Tensor | None
    """Classes that the images should show, int64 (n,); None if unknown."""

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def classifier_output(self) -> ClassifierOutput:
        """Features and class probabilities of the images."""
        return self.context.classify(self.images)

    @cached_property
    def manifold(self) -> Manifold:
        """Precision, recall, density and coverage, computed on equally many generated and test images."""
        real = self.context.test_output.features[: len(self)]
        return manifold(real, self.classifier_output.features[: len(real)])

    @cached_property
    def nearest_training_images(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Pixel distances and indices of the nearest training images of the first 2,000 images."""
        return nearest_images(self.images, self.context.train.images)


@dataclass(frozen=True)
class Measurement:
    """Value of a metric for one sample."""

    value: float
    standard_error: float | None = None
    """Standard error of the value; None if it is not estimated."""


@dataclass(frozen=True)
class Metric:
    """Describes a metric: how it is measured, in which direction it is better, and how tables show it."""

    title: str
    """Name in tables."""
    function: Callable[[Sample], Measurement]
    min_images: int
    """Smallest number of images on which the metric is measured."""
    better: Literal["lower", "higher", "like real"]
    """Direction of better values; "like real" means that the value of real images is best."""
    percent: bool = False
    """Whether tables show the value as a percentage."""
    needs_classifier: bool = True
    """Whether the metric depends on the classifier of the `MetricContext`."""
    baseline: Literal["train", "test"] = "train"
    """Real images on which the real-data baseline is measured."""


def measure(metric: Metric, sample: Sample) -> Measurement:
    """Measures a metric on a sample.

    Raises:
        MetricError: the sample has too few images or no labels, the data set has too many classes, or the classifier
            does not separate the classes.
    """
    if len(sample) < metric.min_images:
        raise MetricError(f"needs {metric.min_images:,} images, but there are {len(sample):,}")
    if metric.needs_classifier and not sample.context.classifier_usable:
        raise MetricError("needs a classifier that separates the classes")
    return metric.function(sample)


def classifier_fid(sample: Sample) -> Measurement:
    """Returns the Frechet distance between classifier features of sample and test images; at least 0, lower is better.

    Formula and paper (Heusel et al., 2017): `feature_metrics.frechet_distance`. It uses the features of the digit
    classifier instead of Inception, so that values cannot be compared with published FIDs. It needs at least 256
    images, twice the number of features of the classifier, and decreases with their number: compare equal numbers, or
    the ratio to the real-data baseline.
    """
    return Measurement(*frechet_distance(sample.context.test_output.features, sample.classifier_output.features))


def classifier_kid(sample: Sample) -> Measurement:
    """Returns the kernel distance between the classifier features of sample and test images; lower is better.

    Formula and paper (Binkowski et al., 2018): `feature_metrics.kernel_distance`. The value is unbiased: about 0 for a
    perfect generator at any number of images, and slightly negative by chance. It needs 100 images and has a standard
    error; differences within it are not significant.
    """
    return Measurement(*kernel_distance(sample.context.test_output.features, sample.classifier_output.features))


def precision(sample: Sample) -> Measurement:
    """Returns the share of generated images that resemble real ones, 0 to 1; higher is better.

    Kynkaanniemi et al. (2019). Definition: `feature_metrics.Manifold`. It needs 100 images and depends on their number:
    compare equal numbers. Real images do not reach 1: compare with the real-data baseline.
    """
    return Measurement(sample.manifold.precision)


def recall(sample: Sample) -> Measurement:
    """Returns the share of real images that resemble generated ones, 0 to 1; higher is better.

    Kynkaanniemi et al. (2019). Definition: `feature_metrics.Manifold`. It needs 100 images and depends on their number:
    compare equal numbers. Real images do not reach 1: compare with the real-data baseline.
    """
    return Measurement(sample.manifold.recall)


def density(sample: Sample) -> Measurement:
    """Returns the density of real images around generated ones, at least 0; higher is better (Naeem et al., 2020).

    Definition: `feature_metrics.Manifold`. It needs 100 images and is about 1 for real ones; it can exceed 1 where
    generated images are more typical than real ones. Compare equal numbers of images.
    """
    return Measurement(sample.manifold.density)


def coverage(sample: Sample) -> Measurement:
    """Returns the share of real images with a generated one nearby, 0 to 1; higher is better (Naeem et al., 2020).

    Definition: `feature_metrics.Manifold`. It needs 100 images and is about 1 - 2^-5 = 0.97 for real ones. Compare
    equal numbers of images.
    """
    return Measurement(sample.manifold.coverage)


def modes(sample: Sample) -> Measurement:
    """Returns the number of classes that the classifier predicts at least once, from 1 to all; higher is better.

    It grows with the number of images until all classes are found. The protocol of stacked MNIST, with 1,000 classes,
    takes 26,000 images.
    """
    return Measurement(len(np.unique(sample.classifier_output.labels)))


def class_balance(sample: Sample) -> Measurement:
    """Returns the KL divergence of the predicted classes from the expected ones, in nats; lower is better.

        KL(p || q) = sum p log(p / q)

    p are the shares of predicted classes, and q those of the training data, or uniform for stacked MNIST. The value is
    at least 0, and infinite if a class is predicted that the training data lacks. It needs 100 images; for n images
    drawn from q its expectation is about (classes - 1) / (2 n).
    """
    expected = sample.context.class_shares
    shares = np.bincount(sample.classifier_output.labels, minlength=len(expected)) / len(sample)
    present = shares > 0
    return Measurement(float(np.sum(shares[present] * np.log(shares[present] / expected[present]))))


def label_agreement(sample: Sample) -> Measurement:
    """Returns the share of images whose predicted class is their label, 0 to 1; higher is better.

    It has a binomial standard error. Real images do not reach 1, because the classifier makes mistakes: compare with
    the real-data baseline.
    """
    labels = _labels(sample)
    share = float((sample.classifier_output.labels == labels.numpy()).mean())
    return Measurement(share, _binomial_error(share, len(sample)))


def confidence(sample: Sample) -> Measurement:
    """Returns the mean probability of the predicted class, from 1 / classes to 1. The value of real images is best.

    Lower values come from images that are hard to read, higher ones from images that are more typical than real ones.
    """
    return Measurement(float(sample.classifier_output.probabilities.max(1).mean()))


def accuracy_score(sample: Sample) -> Measurement:
    """Returns the test accuracy of a new classifier that is trained on the sample only, 0 to 1; higher is better.

    Ravuri and Vinyals (2019), "Classification accuracy score for conditional generative models". The classifier is
    trained for 4 epochs, so that the value grows with the number of images. The baseline trains on as many real images.
    The standard error is the binomial one for the number of test images; it does not include the variation between
    trainings. It needs 1,000 images with labels, and at most 100 classes.
    """
    context = sample.context
    if len(context.train.info.class_names) > MAX_CLASSES:
        raise MetricError(f"is measured for at most {MAX_CLASSES} classes")
    labelled = LabelledImages(sample.images, _labels(sample), context.train.info)
    classifier = train_classifier(
        labelled, SCORE_EPOCHS, progress=context.progress, task="training a classifier for the accuracy score"
    )
    correct = classify(classifier, context.test.images).labels == context.test.labels.numpy()
    return Measurement(float(correct.mean()), _binomial_error(float(correct.mean()), len(correct)))


def nearest_distance(sample: Sample) -> Measurement:
    """Returns the median pixel distance from the first 2,000 images to their nearest training images.

    The value of test images is best. Euclidean distance of pixels in [0, 1]. Lower values than those of test images
    mean copies, higher ones images unlike the training images.
    """
    return Measurement(float(np.median(sample.nearest_training_images[0])))


def near_copies(sample: Sample) -> Measurement:
    """Returns the share of the first 2,000 images that are nearly copies of training images, 0 to 1.

    An image is a near copy if its pixel distance to a training image is lower than that of 99 % of the test images. The
    baseline, measured on test images, is therefore about 1 %; more means memorised training images. It needs 100
    images.
    """
    return Measurement(float((sample.nearest_training_images[0] < sample.context.copy_distance).mean()))


def _labels(sample: Sample) -> Tensor:
    if sample.labels is None:
        raise MetricError("needs labels")
    return sample.labels


def _binomial_error(share: float, n: int) -> float:
    return float(np.sqrt(share * (1 - share) / n))


METRICS = {
    "fid": Metric("classifier FID", classifier_fid, 2 * FEATURES, "lower"),
    "kid": Metric("classifier KID", classifier_kid, 100, "lower"),
    "precision": Metric("precision", precision, 100, "higher"),
    "recall": Metric("recall", recall, 100, "higher"),
    "density": Metric("density", density, 100, "higher"),
    "coverage": Metric("coverage", coverage, 100, "higher"),
    "modes": Metric("classes covered", modes, 1, "higher"),
    "class_balance": Metric("class balance, KL", class_balance, 100, "lower"),
    "label_agreement": Metric("label agreement", label_agreement, 1, "higher", percent=True),
    "confidence": Metric("mean confidence", confidence, 1, "like real", percent=True),
    "accuracy_score": Metric("accuracy score", accuracy_score, 1_000, "higher", percent=True, needs_classifier=False),
    "nearest": Metric(
        "distance to nearest training image", nearest_distance, 1, "like real", needs_classifier=False, baseline="test"
    ),
    "memorised": Metric(
        "near copies", near_copies, 100, "like real", percent=True, needs_classifier=False, baseline="test"
    ),
}
"""All metrics by their name in JSON files and on the command line."""

FAST = ("fid", "precision", "recall", "modes", "class_balance", "label_agreement", "confidence")
"""Metrics that are fast enough to be measured during training."""
