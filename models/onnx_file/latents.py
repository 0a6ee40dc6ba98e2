"""Seeded latents, version 1: a seed and an index select the latent and the label of an image.

They depend on nothing else except the latent size and, for the label, the class counts.

The random numbers come from NumPy's counter-based generator Philox (Salmon et al., 2011, "Parallel random numbers: as
easy as 1, 2, 3"). The seed is its key, and the index selects a position: each image has a fixed block of counter values
with four 64-bit words each. The first words give its latent, the next one its label, the rest is unused. So any range
of images can be drawn without the images before it, and the latent is the same whichever label the user asks for.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.common.errors import InputError

LATENTS_VERSION = 1
"""Version of this method. A model file with another version is rejected, because this program would draw other latents
for it."""
INDEX_LIMIT = 2**53
"""Seeds and indices are integers from 0 to 2^53 - 1: JSON numbers below 2^53 are exact in every language."""

_WORDS_PER_BLOCK = 4
"""Number of 64-bit words for each counter value of Philox."""


def draw_latents(
    seed: int, first: int, n: int, latent_dim: int, class_counts: Sequence[int] = ()
) -> tuple[NDArray[np.float32], NDArray[np.int64] | None]:
    """Draws the latents and labels of images `first` to `first + n - 1`.

    Args:
        seed: key of the random numbers, from 0 to 2^53 - 1.
        first: index of the first image, from 0 to 2^53 - n.
        n: number of images, at least 1.
        latent_dim: latent size, at least 1.
        class_counts: number of training images of each class; labels are drawn in these proportions. Empty: no labels.

    Returns:
        latents: float32 (n, latent_dim), standard normal.
        labels: int64 (n,), or None if `class_counts` is empty.

    Raises:
        InputError: the seed, `first` or `n` is out of range.
    """
    check_range(seed, first, n)
    pairs = -(-latent_dim // 2)
    blocks = -(-(2 * pairs + 1) // _WORDS_PER_BLOCK)
    bits = np.random.Philox(key=seed, counter=first * blocks)
    words = bits.random_raw(n * blocks * _WORDS_PER_BLOCK).reshape(n, -1)

    latents = _standard_normal(words[:, : 2 * pairs])[:, :latent_dim].astype(np.float32)
    labels = _categorical(words[:, 2 * pairs], class_counts) if len(class_counts) else None
    return latents, labels


def check_range(seed: int, first: int, n: int) -> None:
    """Checks that a seed has images `first` to `first + n - 1`.

    Raises:
        InputError: the seed, `first` or `n` is out of range.
    """
    if not 0 <= seed < INDEX_LIMIT:
        raise InputError("seed", f"must be from 0 to 2^53 - 1, got {seed}")
    if n < 1:
        raise InputError("n", f"must be at least 1, got {n}")
    if first < 0 or first + n > INDEX_LIMIT:
        raise InputError("first", f"must be from 0 to 2^53 - n, got {first}, with n {n}")


def interpolate(start: NDArray[np.float32], end: NDArray[np.float32], n: int) -> NDArray[np.float32]:
    """Interpolates between two latents along a great circle (slerp; White, 2016, "Sampling generative networks", 2.1).

    On a straight line, the middle latents would have a smaller norm than latents from the normal distribution.

    Args:
        start: first latent (D,).
        end: last latent (D,).
        n: number of latents, at least 2, including `start` and `end`.

    Returns:
        float32 (n, D).
    """
    steps = np.linspace(0, 1, n)[:, None]
    a, b = start.astype(np.float64), end.astype(np.float64)
    cosine = a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12)
    angle = np.arccos(np.clip(cosine, -1, 1))
    if np.sin(angle) < 1e-6:  # for the same and for opposite directions the great circle is not unique
        latents = (1 - steps) * a + steps * b
    else:
        latents = (np.sin((1 - steps) * angle) * a + np.sin(steps * angle) * b) / np.sin(angle)
    return latents.astype(np.float32)


def _standard_normal(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Turns words (n, 2k) into normal values (n, 2k) by the Box-Muller transform.

    The last bits of the float64 result may differ between machines, which rounding to float32
    hides in almost all cases.
    """
    uniforms = (words >> np.uint64(11)) * 2.0**-53  # [0, 1)
    half = uniforms.shape[1] // 2
    u1, u2 = uniforms[:, :half], uniforms[:, half:]
    radius = np.sqrt(-2.0 * np.log1p(-u1))
    angle = 2.0 * np.pi * u2
    return np.concatenate((radius * np.cos(angle), radius * np.sin(angle)), axis=1)


def _categorical(words: NDArray[np.uint64], counts: Sequence[int]) -> NDArray[np.int64]:
    """Turns words (n,) into class indices (n,), with probabilities proportional to the counts."""
    cumulative = np.cumsum(counts)
    drawn = ((words >> np.uint64(11)) * 2.0**-53 * cumulative[-1]).astype(np.int64)
    return np.searchsorted(cumulative, drawn, side="right").astype(np.int64)
