"""Addressable latents, version 1: (seed, index) -> latent and label, the same on every machine and in every batch.

NumPy's counter-based generator Philox (Salmon et al., 2011, "Parallel random numbers: as easy as 1, 2, 3") is keyed
by the seed and positioned by the index. Image `index` owns `blocks` consecutive counter values of four 64-bit words:
first the words of its latent, then the word of its label, then padding. So any range of images can be drawn without
the ones before it, and asking for other labels leaves the latents as they were.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.common.errors import InputError

LATENTS_VERSION = 1
INDEX_LIMIT = 2**53
"""Seeds and indices lie in [0, INDEX_LIMIT): JSON numbers up to there are exact in every language."""

_WORDS_PER_BLOCK = 4


def draw_latents(
    seed: int, first: int, n: int, latent_dim: int, class_counts: Sequence[int] = ()
) -> tuple[NDArray[np.float32], NDArray[np.int64] | None]:
    """Draws the latents and labels of images `first` to `first + n - 1`.

    Args:
        seed, first: address of the first image, integers in [0, 2^53).
        n: how many images, at least 1; `first + n` is at most 2^53.
        latent_dim: size of a latent.
        class_counts: how often each class occurs in the training data; labels are drawn in these proportions.

    Returns:
        latents: float32 (n, latent_dim), standard normal.
        labels: int64 (n,), or None where there are no classes.

    Raises:
        InputError: an address out of range.
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
    """Raises:
    InputError: images `first` to `first + n - 1` of the seed have no address.
    """
    if not 0 <= seed < INDEX_LIMIT:
        raise InputError("seed", f"must be from 0 to 2^53 - 1, got {seed}")
    if n < 1:
        raise InputError("n", f"must be at least 1, got {n}")
    if first < 0 or first + n > INDEX_LIMIT:
        raise InputError("first", f"must be from 0 to 2^53 - n, got {first}, with n {n}")


def interpolate(start: NDArray[np.float32], end: NDArray[np.float32], n: int) -> NDArray[np.float32]:
    """Latents from one to another along a great circle, on which they stay as long as normal ones are.

    White (2016), "Sampling generative networks", section 2.1.

    Args:
        start, end: (D,).
        n: how many, at least 2, the two included.

    Returns:
        float32 (n, D).
    """
    steps = np.linspace(0, 1, n)[:, None]
    one, other = start.astype(np.float64), end.astype(np.float64)
    cosine = one @ other / max(float(np.linalg.norm(one) * np.linalg.norm(other)), 1e-12)
    angle = np.arccos(np.clip(cosine, -1, 1))
    if np.sin(angle) < 1e-6:  # the same direction, or opposite ones, between which no circle is the greatest
        between = (1 - steps) * one + steps * other
    else:
        between = (np.sin((1 - steps) * angle) * one + np.sin(steps * angle) * other) / np.sin(angle)
    return between.astype(np.float32)


def _standard_normal(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Box-Muller in float64, whose last bits may differ between machines; the cast to float32 hides that."""
    uniforms = (words >> np.uint64(11)) * 2.0**-53  # [0, 1)
    half = uniforms.shape[1] // 2
    u1, u2 = uniforms[:, :half], uniforms[:, half:]
    radius = np.sqrt(-2.0 * np.log1p(-u1))
    angle = 2.0 * np.pi * u2
    return np.concatenate((radius * np.cos(angle), radius * np.sin(angle)), axis=1)


def _categorical(words: NDArray[np.uint64], counts: Sequence[int]) -> NDArray[np.int64]:
    cumulative = np.cumsum(counts)
    drawn = ((words >> np.uint64(11)) * 2.0**-53 * cumulative[-1]).astype(np.int64)
    return np.searchsorted(cumulative, drawn, side="right").astype(np.int64)
