"""The fast figures of a generator while it trains, on the way to `evaluate`'s."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models import latents as addresses
from models.artifact import CHUNK
from models.errors import InputError
from models.pixels import quantize
from training.data import WITH_TEST_SPLIT, Images
from training.evaluation.figures import FAST, FIGURES, FigureError, Sample, measure
from training.evaluation.ruler import make_ruler, test_images
from training.evaluation.sources import SEED

IMAGES = 5_000

Draw = Callable[[NDArray[np.float32], NDArray[np.int64] | None], Tensor]
"""latents (n, latent_dim), labels (n,) -> images float (n, channels, height, width) in [-1, 1]."""


class Quality:
    """Measures a generator on 5,000 images that it draws; so its figures stand above `evaluate`'s of 10,000."""

    def __init__(self, train: Images, data_dir: Path, latent_dim: int, conditional: bool):
        """Raises:
        InputError: there is no pinned classifier for this data, or it does not separate the classes.
        DataError: the test images cannot be had.
        """
        if train.info.name not in WITH_TEST_SPLIT:
            raise InputError("dataset", f"{train.info.name} has no test split to be held against; mnist has one")
        train = train.to(torch.device("cpu"))
        self.ruler, _ = make_ruler(train, test_images(train.info, data_dir))
        if self.ruler.weakness:
            raise InputError("dataset", f"{train.info.name} cannot be measured: {self.ruler.weakness}")
        counts = train.info.class_counts if conditional else ()
        self.latents, self.labels = addresses.draw(SEED, 0, IMAGES, latent_dim, counts)

    def __call__(self, draw: Draw) -> dict[str, float]:
        """The figures by name; those that an unconditional generator has no labels for are left out."""
        chunks = [slice(i, i + CHUNK) for i in range(0, IMAGES, CHUNK)]
        images = torch.cat(
            [quantize(draw(self.latents[c], None if self.labels is None else self.labels[c])).cpu() for c in chunks]
        )
        sample = Sample(self.ruler, images, None if self.labels is None else torch.from_numpy(self.labels))
        figures = {}
        for name in FAST:
            try:
                figures[name] = measure(FIGURES[name], sample).value
            except FigureError:
                continue
        return figures
