"""Latents and labels of many images, which can be taken row by row: drawn from a seed, or given as arrays."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.common.array_types import Labels, Latents
from models.common.errors import InputError
from models.onnx_file.card import Card
from models.onnx_file.latents import draw_latents


def check_truncation(truncation: float) -> None:
    """Checks a factor of the latents.

    Raises:
        InputError: it is not above 0 and at most 1.
    """
    if not 0 < truncation <= 1:
        raise InputError("truncation", f"must be above 0 and at most 1, got {truncation}")


@dataclass(frozen=True)
class SeededLatents:
    """Images `first` to `first + n - 1` of a seed. Their latents and labels are drawn when `rows` is called."""

    card: Card
    seed: int
    """From 0 to 2^53 - 1."""
    first: int
    """Index of the first image, from 0 to 2^53 - n."""
    n: int
    """Number of images, at least 1."""
    classes: NDArray[np.int64] | None
    """Class indices, which image i takes in turn: classes[i % len(classes)]. None draws them as often as in the
    training data."""
    truncation: float
    """Factor of the latents, above 0 and at most 1."""

    def __len__(self) -> int:
        return self.n

    def rows(self, start: int, stop: int) -> tuple[Latents, Labels]:
        """Draws the latents and labels of images `first + start` to `first + stop - 1`.

        Returns:
            latents: float32 (stop - start, D).
            labels: int64 (stop - start,), or None if the generator takes no labels.
        """
        first, n = self.first + start, stop - start
        latents, labels = draw_latents(self.seed, first, n, self.card.latent_dim, self.card.class_weights)
        if self.classes is not None:
            labels = cycle_labels(self.classes, first, n)
        return latents * np.float32(self.truncation), labels


@dataclass(frozen=True)
class LatentBatch:
    """Latents and labels that the user gives, as `Generator.check` returns them."""

    latents: Latents
    labels: Labels

    def __len__(self) -> int:
        return len(self.latents)

    def rows(self, start: int, stop: int) -> tuple[Latents, Labels]:
        """Returns rows `start` to `stop - 1` of the latents and of the labels."""
        return self.latents[start:stop], None if self.labels is None else self.labels[start:stop]


def cycle_labels(classes: NDArray[np.int64], first: int, n: int) -> NDArray[np.int64]:
    """Repeats class indices over images `first` to `first + n - 1`: image i gets classes[i % len(classes)].

    The label depends on the index of the image alone, so an image is the same in whichever range it is drawn.
    """
    return classes[np.arange(first, first + n) % len(classes)]
