"""Tiny configurations for tests of combined training options."""

import itertools
from pathlib import Path
from typing import Any

from tests.conftest import small_config
from training.config import Config

PRECISIONS = ("fp32", "bf16", "fp16")
PENALTIES = ("none", "r1", "r2", "r1+r2", "wgan-gp", "finite-difference")
LOSSES = ("non-saturating", "minimax", "hinge", "wasserstein", "relativistic")
DISCRIMINATORS: dict[str, dict[str, Any]] = {
    "mlp": {"discriminator": "mlp"},
    "residual": {"discriminator": "residual"},
    "spectral": {"discriminator": "dcgan", "discriminator_normalization": "spectral"},
    "batch": {"discriminator": "dcgan"},
}
"""Options of each tested discriminator. "spectral" and "batch" are dcgan with that normalization."""

ALL = [
    (precision, penalty, loss, discriminator)
    for precision, penalty, loss, discriminator in itertools.product(PRECISIONS, PENALTIES, LOSSES, DISCRIMINATORS)
    if penalty == "none" or discriminator != "batch"  # Config rejects a penalty with batch normalization
]
"""All valid combinations of precision, penalty, loss and discriminator."""

PAIRWISE: list[tuple[tuple[str, str, str, str], dict[str, Any]]] = [
    (("bf16", "wgan-gp", "hinge", "residual"), {"minutes": 0.001}),
    (("fp16", "none", "minimax", "batch"), {"minutes": 0.001}),
    (("fp32", "finite-difference", "relativistic", "spectral"), {"epochs": 0.1}),
    (("bf16", "r1+r2", "non-saturating", "mlp"), {"epochs": 0.1}),
    (("fp16", "r2", "relativistic", "mlp"), {"images": 192}),
    (("fp32", "finite-difference", "wasserstein", "mlp"), {"minutes": 0.001}),
    (("fp32", "r1+r2", "minimax", "residual"), {"images": 192}),
    (("bf16", "r1", "wasserstein", "spectral"), {"images": 192}),
]
"""Eight combinations, each with an option for the duration. Nearly every pair of values occurs at most once."""


def tiny_config(out: Path, combination: tuple[str, str, str, str], **stop: float) -> Config:
    """Returns a run of networks with a few weights on 8 x 8 images.

    Args:
        stop: one of epochs, images and minutes.
    """
    precision, penalty, loss, discriminator = combination
    return small_config(
        out,
        precision=precision,
        penalty=penalty,
        loss=loss,
        **DISCRIMINATORS[discriminator],
        generator="dcgan",
        generator_widths=(4,),
        discriminator_widths=(4,),
        latent_dim=4,
        image_size=8,
        conditional=True,
        ema_half_life=100,
        sample_images=1,
        **stop,
    )
