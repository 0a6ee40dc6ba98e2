"""Metrics of a generator during its training: the fast ones of `evaluate`."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.common.errors import InputError
from models.networks.pixels import quantize
from models.onnx_file.latents import draw_latents
from models.onnx_file.session import MAX_ROWS_PER_RUN
from training.data import WITH_TEST_SPLIT, LabelledImages
from training.evaluation.metric_context import make_metric_context
from training.evaluation.metrics import FAST, METRICS, MetricError, Sample, measure
from training.evaluation.real_images import load_test_images
from training.evaluation.sources import SEED

IMAGES = 5_000
"""Number of generated images that are measured each time."""

Draw = Callable[[NDArray[np.float32], NDArray[np.int64] | None], Tensor]
"""Generates images: latents (n, latent_dim), labels (n,) or None -> float (n, channels, height, width) in [-1, 1]."""


class TrainingEvaluator:
    """Measures a generator on the images 0 to 4,999 of seed 0.

    `evaluate` measures 10,000 images by default, so its classifier FID is lower than the one measured here.
    """

    def __init__(self, train: LabelledImages, data_dir: Path, latent_dim: int, conditional: bool):
        """Loads the test images and draws the latents, which are the same for each measurement.

        Args:
            train: training images of a data set with a test split and a pinned classifier, on any device.
            data_dir: folder of the data sets.
            latent_dim: size of the generator's latents.
            conditional: whether the generator takes labels.

        Raises:
            InputError: the data set has no test split or no pinned classifier, or the classifier does not separate its
                classes.
            DataError: the test images cannot be loaded.
            ClassifierError: the file of the pinned classifier was changed.
        """
        if train.info.name not in WITH_TEST_SPLIT:
            raise InputError(
                "dataset", f"{train.info.name} has no test split to compare generated images with; mnist has one"
            )
        train = train.to(torch.device("cpu"))
        self.context, _ = make_metric_context(train, load_test_images(train.info, data_dir))
        if self.context.classifier_problem:
            raise InputError("dataset", f"{train.info.name} cannot be evaluated: {self.context.classifier_problem}")
        counts = train.info.class_weights if conditional else ()
        self.latents, self.labels = draw_latents(SEED, 0, IMAGES, latent_dim, counts)

    def __call__(self, draw: Draw) -> dict[str, float]:
        """Measures the metrics of `FAST` and returns their values by name.

        Metrics that cannot be measured are left out, such as the label agreement of an unconditional generator.

        Args:
            draw: generates a batch of at most 256 images.
        """
        batches = [slice(i, i + MAX_ROWS_PER_RUN) for i in range(0, IMAGES, MAX_ROWS_PER_RUN)]
        images = torch.cat(
            [quantize(draw(self.latents[b], None if self.labels is None else self.labels[b])).cpu() for b in batches]
        )
        sample = Sample(self.context, images, None if self.labels is None else torch.from_numpy(self.labels))
        metrics = {}
        for name in FAST:
            try:
                metrics[name] = measure(METRICS[name], sample).value
            except MetricError:
                continue
        return metrics
