"""Schedules: pure functions of the number of images seen so far.

Time is counted in images rather than steps, so that a schedule keeps its meaning when the batch size changes.
"""

import math
from typing import Literal, get_args

LrSchedule = Literal["constant", "linear", "cosine"]


def decay(schedule: LrSchedule, images_seen: int, total: int, warmup: int = 0, end: float = 0.0) -> float:
    """Returns the factor of the learning rate: a linear warm-up from 0 to 1, then a decay from 1 to `end`.

    With the progress p = (images_seen - warmup) / (total - warmup), clipped to 1, the factor after the warm-up is

        constant: 1
        linear:   1 - p + p * end
        cosine:   end + (1 - end) * (1 + cos(pi * p)) / 2

    The cosine is equation 5 of Loshchilov and Hutter (2017), "SGDR: Stochastic gradient descent with warm restarts",
    without restarts.

    Args:
        schedule: shape of the decay after the warm-up.
        images_seen: at least 0.
        total: images of the whole run, warm-up included; at least 1.
        warmup: images of the warm-up, from 0 to below `total`.
        end: factor at `total` and afterwards, from 0 to 1.

    Returns:
        a factor from 0 to 1; exactly 0 at the start of a warm-up.

    Raises:
        ValueError: an argument is out of range.
    """
    _require(schedule in get_args(LrSchedule), "schedule", f"one of {', '.join(get_args(LrSchedule))}", schedule)
    _require(images_seen >= 0, "images_seen", "at least 0", images_seen)
    _require(total >= 1, "total", "at least 1", total)
    _require(0 <= warmup < total, "warmup", f"at least 0 and below the total of {total}", warmup)
    _require(0 <= end <= 1, "end", "from 0 to 1", end)
    if images_seen < warmup:
        return images_seen / warmup
    progress = _progress(images_seen - warmup, total - warmup)
    if schedule == "constant":
        return 1.0
    return _interpolate(1.0, end, progress if schedule == "linear" else _half_cosine(progress))


def ramp(images_seen: int, duration: int, start: float, end: float) -> float:
    """Returns a value that changes from `start` to `end` along half a cosine: R3GAN's burn-in of gamma and beta2.

        start + (end - start) * (1 - cos(pi * p)) / 2, with p = images_seen / duration, clipped to 1

    Huang et al. (2024), "The GAN is dead; long live the GAN!".

    Args:
        images_seen: at least 0.
        duration: images until `end` is reached; at least 0. With 0 the value is `end` from the start.
        start: any finite number.
        end: any finite number.

    Returns:
        a value from `start` to `end`, and exactly `end` from `duration` on.

    Raises:
        ValueError: an argument is out of range.
    """
    _require(images_seen >= 0, "images_seen", "at least 0", images_seen)
    _require(duration >= 0, "duration", "at least 0", duration)
    _require(math.isfinite(start), "start", "finite", start)
    _require(math.isfinite(end), "end", "finite", end)
    return _interpolate(start, end, _half_cosine(_progress(images_seen, duration)))


def ema_beta(images_seen: int, batch: int, half_life: float, ramp_up: float = 0.05) -> float:
    """Returns the decay factor for one update of the EMA of the weights: ema = beta * ema + (1 - beta) * weights.

        beta = 0.5^(batch / h), with h = min(half_life, ramp_up * images_seen)

    Early in a run the half-life h is only a share of the images seen, so that the EMA forgets the random initial
    weights. This is the ramp-up of the code of StyleGAN2-ADA (Karras et al., 2020) and EDM (Karras et al., 2022).

    Args:
        images_seen: at least 0.
        batch: images per update, at least 1.
        half_life: images after which weights count half, at least 0. With 0 the EMA equals the weights.
        ramp_up: largest half-life as a share of the images seen; above 0.

    Returns:
        a factor from 0 to below 1; 0 if h is 0.

    Raises:
        ValueError: an argument is out of range.
    """
    _require(images_seen >= 0, "images_seen", "at least 0", images_seen)
    _require(batch >= 1, "batch", "at least 1", batch)
    _require(0 <= half_life < math.inf, "half_life", "at least 0 and finite", half_life)
    _require(0 < ramp_up < math.inf, "ramp_up", "above 0 and finite", ramp_up)
    h = min(half_life, ramp_up * images_seen)
    return 0.5 ** (batch / h) if h else 0.0


def _progress(images_seen: int, duration: int) -> float:
    """Returns the share of the duration that has passed, from 0 to 1; 1 for a duration of 0."""
    return images_seen / duration if images_seen < duration else 1.0


def _half_cosine(progress: float) -> float:
    """Returns (1 - cos(pi * progress)) / 2, which rises smoothly from 0 to 1 for a progress from 0 to 1."""
    return (1 - math.cos(math.pi * progress)) / 2


def _interpolate(start: float, end: float, weight: float) -> float:
    """Returns a linear interpolation that is exactly `start` for a weight of 0 and exactly `end` for 1."""
    return (1 - weight) * start + weight * end


def _require(holds: bool, name: str, expected: str, value: object) -> None:
    if not holds:
        raise ValueError(f"{name} must be {expected}, got {value}")
