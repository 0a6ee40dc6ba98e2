"""The presets: four recipes, each given by its differences from the defaults in config.py."""

from typing import Any

from training.config import Preset

# An ellipsis stands for the default in config.py.
# fmt: off
_DIFFERENCES: dict[str, tuple[Any, Any, Any]] = {
    # option                        dcgan           fast           r3gan
    "generator":                   ("dcgan",        "dcgan",       "residual"),
    "discriminator":               ("dcgan",        "dcgan",       "residual"),
    "discriminator_normalization": (...,            "spectral",    ...),
    "latent_dim":                  (...,            64,            64),
    "conditional":                 (...,            True,          True),
    "epochs":                      (25,             8,             100),
    "batch_size":                  (128,            ...,           128),
    "loss":                        (...,            "hinge",       "relativistic"),
    "generator_data":              (...,            ...,           "fresh"),
    "lr":                          (...,            5e-4,          ...),
    "lr_schedule":                 (...,            ...,           "cosine"),
    "lr_end":                      (...,            ...,           0.1),
    "betas":                       ((0.5, 0.999),   (0.0, 0.99),   (0.0, 0.99)),
    "ema_half_life":               (...,            20_000,        100_000),
    "penalty":                     (...,            ...,           "r1+r2"),
    "gamma":                       (...,            ...,           1.0),
    "burn_in":                     (...,            ...,           600_000),
    "gamma_start":                 (...,            ...,           10.0),
    "beta2_start":                 (...,            ...,           0.9),
}

WIDTHS: dict[Preset, tuple[tuple[int, ...], tuple[int, ...]]] = {
    # preset  generator        discriminator
    "mlp":   ((256, 512),       (512, 256)),
    "dcgan": ((128, 64),        (64, 128)),
    "fast":  ((64, 32),         (32, 64, 128)),
    "r3gan": ((128, 64, 32),    (32, 64, 128)),
}
"""Widths of the generator and of the discriminator for images of 28 x 28 pixels."""
# fmt: on


def _column(index: int) -> dict[str, Any]:
    return {option: values[index] for option, values in _DIFFERENCES.items() if values[index] is not ...}


PRESETS: dict[Preset, dict[str, Any]] = {
    # Goodfellow et al. (2014), "Generative adversarial nets", as tutorials implement it.
    "mlp": {},
    # Radford et al. (2015), "Unsupervised representation learning with deep convolutional GANs".
    "dcgan": _column(0),
    # For about ten minutes on a CPU: dcgan with half of the widths, class labels and an EMA. The spectral normalization
    # and the hinge loss of Miyato et al. (2018) keep the variety that dcgan loses, and a third convolution in the
    # discriminator makes strokes cleaner (benchmarks/results/pretrained-recipes-epyc.md).
    "fast": _column(1),
    # Huang et al. (2024), "The GAN is dead; long live the GAN!": relativistic pairing with R1 and R2 at every step,
    # without normalization.
    "r3gan": _column(2),
}
"""Differences of each preset from the defaults in config.py."""
