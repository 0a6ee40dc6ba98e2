"""The quality check of `export-onnx`: finds generators that are untrained or have collapsed, without real images.

The parity check shows that the file computes what PyTorch computed, not that the images are any good. This check makes
1,000 images with the exported file and measures them. It refuses only what is certainly useless; for a measure of
quality, compare with real images by `evaluate`.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray

from models.common.errors import MnistGanError
from models.onnx_file.card import QualityCheck, QualityMeasurement
from models.onnx_file.generator import Generator
from training.evaluation.metric_context import pinned_classifier

SEED = 3
"""Seed of the images that are measured; golden images have 0, the parity check 1, the calibration of int8 2."""
IMAGES = 1_000
"""Number of images that are measured; fewer if they have more than `MAX_PIXELS` pixels in all."""
MAX_PIXELS = 2**26
MIN_IMAGES_PER_CLASS = 20
"""With fewer, the divergence of the predicted classes is large by chance alone, so it is not measured."""
NEAR = 0.03
"""Two images are near-identical if the root mean square of their difference is at most this share of the contrast.
For real digits of MNIST, the smallest of 1,000 nearest distances is about 0.2."""
CONSTANT_LEVELS = 16
"""An image is constant if its brightest and its darkest value differ by less than this number of levels of 255."""

LABEL_AGREEMENT_BY_CHANCE = 2.0
"""A label agreement of less than this number divided by the number of classes is refused: guessing reaches 1."""
MAX_LABEL_AGREEMENT_BOUND = 0.75
"""Upper limit of that bound, for generators of two classes: guessing reaches 0.5."""


class QualityError(MnistGanError):
    """The generator is untrained or has collapsed, so no file is written."""


def check_quality(generator: Generator) -> QualityCheck:
    """Measures the first images of seed 3.

    A measurement that is not possible is None: brightness and contrast if the statistics of the training data are
    unknown, the predicted classes if no classifier is pinned for the data set, and labels if the generator takes none.
    """
    card, data = generator.card, generator.card.dataset
    n = min(IMAGES, max(2, MAX_PIXELS // math.prod(card.image_shape)))
    images, labels = generator.images(SEED, 0, n)
    pixels = images.reshape(n, -1).astype(np.float32)
    contrast = float(pixels.std(1).mean())
    near = max(NEAR * contrast, 1.0)  # levels, since images of less contrast differ by rounding alone
    measurements = {
        "share of constant images": QualityMeasurement(
            float((np.ptp(pixels, 1) < CONSTANT_LEVELS).mean()), "lower", warn=0.01, refuse=0.1
        ),
        "share of near-identical images": QualityMeasurement(
            float((_nearest(pixels) <= near).mean()), "lower", warn=0.01, refuse=0.5
        ),
        "difference of brightness from the data": QualityMeasurement(
            None if data.pixel_mean is None else abs(float(pixels.mean()) - data.pixel_mean),
            "lower",
            warn=10,
            refuse=75,
        ),
        "ratio of contrast to the data": QualityMeasurement(
            None if data.pixel_contrast is None else _ratio(contrast, data.pixel_contrast),
            "higher",
            warn=0.8,
            refuse=0.25,
        ),
        "share of latents with one image for two classes": QualityMeasurement(
            _same_for_another_class(generator, pixels, near), "lower", warn=0.01, refuse=0.5
        ),
    }
    classify = pinned_classifier(data)
    output = classify(torch.from_numpy(images)) if classify else None
    classes = len(data.class_names)
    agreement = None if output is None or labels is None or classes < 2 else float((output.labels == labels).mean())
    measurements["label agreement"] = QualityMeasurement(
        agreement,
        "higher",
        warn=0.9,
        refuse=min(LABEL_AGREEMENT_BY_CHANCE / max(classes, 1), MAX_LABEL_AGREEMENT_BOUND),
    )
    divergence = None
    if output is not None:
        recognized = output.probabilities.shape[1]
        # The data set of an unconditional generator that was trained elsewhere has no classes on the card.
        weights = data.class_weights or (1,) * recognized
        if len(weights) == recognized and n >= MIN_IMAGES_PER_CLASS * recognized:
            divergence = _divergence(output.labels, np.array(weights))
    # An early textbook GAN draws one class only, and so does a collapsed generator: there is no bound between them.
    measurements["class balance"] = QualityMeasurement(divergence, "lower", warn=0.1, refuse=None)
    return QualityCheck(n, measurements)


def require_quality(check: QualityCheck) -> None:
    """Checks that no measurement is beyond the bound at which an export is refused.

    Raises:
        QualityError: one is; the message lists all that are.
    """
    if not check.passed:
        raise QualityError(
            f"quality: {'; '.join(check.problems())}. The generator seems to be untrained or to have collapsed: train "
            "longer or with other options, or give --allow-low-quality to write the file nevertheless"
        )


def _nearest(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the root mean square difference of each image from the one that is nearest to it, (n,), in levels."""
    squares = np.square(pixels).sum(1)
    distances = squares[:, None] - 2 * pixels @ pixels.T + squares
    np.fill_diagonal(distances, np.inf)
    return np.sqrt(distances.min(1).clip(0) / pixels.shape[1])


def _same_for_another_class(generator: Generator, pixels: NDArray[np.float32], near: float) -> float | None:
    """Returns the share of latents whose image hardly changes with the label; None without at least two classes."""
    classes = len(generator.card.class_names)
    if classes < 2:
        return None
    latents, labels = generator.draw(SEED, 0, len(pixels))
    assert labels is not None
    other = generator.decode(latents, (labels + 1) % classes).reshape(len(pixels), -1)
    return float((np.sqrt(np.square(other - pixels).mean(1)) <= near).mean())


def _ratio(a: float, b: float) -> float:
    """Returns the smaller of two positive numbers divided by the larger one."""
    return min(a, b) / max(a, b) if max(a, b) else 1.0


def _divergence(predicted: NDArray[np.int64], weights: NDArray[np.int64]) -> float:
    """Returns the KL divergence of the predicted classes from those of the training data, in nats."""
    shares = np.bincount(predicted, minlength=len(weights)) / len(predicted)
    expected = weights / weights.sum()
    present = shares > 0
    return float(np.sum(shares[present] * np.log(shares[present] / expected[present].clip(1e-9))))
