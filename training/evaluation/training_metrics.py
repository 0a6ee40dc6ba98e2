"""The fast metrics of a generator while it trains, on the way to `evaluate`'s."""

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
from training.evaluation.context import make_metric_context, test_images
from training.evaluation.metrics import FAST, METRICS, MetricError, Sample, measure
from training.evaluation.sources import SEED

IMAGES = 5_000

Draw = Callable[[NDArray[np.float32], NDArray[np.int64] | None], Tensor]
"""latents (n, latent_dim), labels (n,) -> images float (n, channels, height, width) in [-1, 1]."""


class Quality:
    """Measures a generator on 5,000 images that it draws; so its metrics stand above `evaluate`'s of 10,000."""

    def __init__(self, train: LabelledImages, data_dir: Path, latent_dim: int, conditional: bool):
        """Raises:
        InputError: there is no pinned classifier for this data, or it does not separate the classes.
        DataError: the test images cannot be had.
        """
        if train.info.name not in WITH_TEST_SPLIT:
            raise InputError("dataset", f"{train.info.name} has no test split to be held against; mnist has one")
        train = train.to(torch.device("cpu"))
        self.context, _ = make_metric_context(train, test_images(train.info, data_dir))
        if self.context.weakness:
            raise InputError("dataset", f"{train.info.name} cannot be measured: {self.context.weakness}")
        counts = train.info.class_weights if conditional else ()
        self.latents, self.labels = draw_latents(SEED, 0, IMAGES, latent_dim, counts)

    def __call__(self, draw: Draw) -> dict[str, float]:
        """The metrics by name; those that an unconditional generator has no labels for are left out."""
        chunks = [slice(i, i + MAX_ROWS_PER_RUN) for i in range(0, IMAGES, MAX_ROWS_PER_RUN)]
        images = torch.cat(
            [quantize(draw(self.latents[c], None if self.labels is None else self.labels[c])).cpu() for c in chunks]
        )
        sample = Sample(self.context, images, None if self.labels is None else torch.from_numpy(self.labels))
        metrics = {}
        for name in FAST:
            try:
                metrics[name] = measure(METRICS[name], sample).value
            except MetricError:
                continue
        return metrics
