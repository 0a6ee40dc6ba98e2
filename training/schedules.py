"""What changes over the course of a run, as functions of the images seen so far; none keeps a state."""

import math
from typing import Literal, get_args

Shape = Literal["constant", "linear", "cosine"]


def decay(shape: Shape, images_seen: int, total: int, warmup: int = 0, end: float = 0.0) -> float:
    """The factor of the learning rate: from 0 to 1 in a line over `warmup` images, then from 1 to `end` at `total`.

    Args:
        shape: constant stays at 1; cosine falls as in Loshchilov and Hutter (2017), "SGDR", equation 5.
        images_seen: at least 0; beyond `total` the factor stays at `end`. At 0 a warm-up gives 0.
        total: images, the warm-up included.
        warmup: images, fewer than `total`.
        end: from 0 to 1.

    Returns:
        From 0 to 1.

    Raises:
        ValueError: a value out of range.
    """
    _require(shape in get_args(Shape), "shape", f"one of {', '.join(get_args(Shape))}", shape)
    _require(images_seen >= 0, "images_seen", "at least 0", images_seen)
    _require(total >= 1, "total", "at least 1", total)
    _require(0 <= warmup < total, "warmup", f"from 0 to below total, {total}", warmup)
    _require(0 <= end <= 1, "end", "from 0 to 1", end)
    if images_seen < warmup:
        return images_seen / warmup
    progress = _progress(images_seen - warmup, total - warmup)
    if shape == "constant":
        return 1.0
    return _mix(1.0, end, progress if shape == "linear" else _cosine(progress))


def ramp(images_seen: int, duration: int, start: float, end: float) -> float:
    """Half a cosine from `start` to `end` over `duration` images, then `end`; a duration of 0 is `end` at once.

    The burn-in of gamma and of Adam's beta2 in R3GAN (Huang et al., 2024, "The GAN is dead; long live the GAN!").

    Raises:
        ValueError: a value out of range.
    """
    _require(images_seen >= 0, "images_seen", "at least 0", images_seen)
    _require(duration >= 0, "duration", "at least 0", duration)
    _require(math.isfinite(start), "start", "finite", start)
    _require(math.isfinite(end), "end", "finite", end)
    return _mix(start, end, _cosine(_progress(images_seen, duration)))


def ema_beta(images_seen: int, batch: int, half_life: float, ramp_up: float = 0.05) -> float:
    """The decay of one step of the average of the weights: average = beta average + (1 - beta) weights.

    beta = 0.5^(batch / h), h = min(half_life, ramp_up images_seen): the average never looks back further than a share
    of the run, lest it remember the initial weights. As in the code of StyleGAN2-ADA (Karras et al., 2020) and of EDM
    (Karras et al., 2022).

    Args:
        images_seen: at least 0.
        batch: images of a step, at least 1.
        half_life: images, at least 0; 0 is no averaging.
        ramp_up: above 0; how much of the images seen the half-life may be.

    Returns:
        From 0 to below 1; 0 where h is 0.

    Raises:
        ValueError: a value out of range.
    """
    _require(images_seen >= 0, "images_seen", "at least 0", images_seen)
    _require(batch >= 1, "batch", "at least 1", batch)
    _require(0 <= half_life < math.inf, "half_life", "at least 0 and finite", half_life)
    _require(0 < ramp_up < math.inf, "ramp_up", "above 0 and finite", ramp_up)
    h = min(half_life, ramp_up * images_seen)
    return 0.5 ** (batch / h) if h else 0.0


def _progress(images_seen: int, duration: int) -> float:
    return images_seen / duration if images_seen < duration else 1.0


def _cosine(progress: float) -> float:
    return (1 - math.cos(math.pi * progress)) / 2


def _mix(start: float, end: float, weight: float) -> float:
    """Exactly `start` at a weight of 0 and exactly `end` at 1."""
    return (1 - weight) * start + weight * end


def _require(holds: bool, name: str, expected: str, value: object) -> None:
    if not holds:
        raise ValueError(f"{name} must be {expected}, got {value}")
