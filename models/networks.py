"""The networks: a generator turns latents into images in [-1, 1], a discriminator turns images into logits.

Both are the fully connected networks of the textbook GAN (Goodfellow et al., 2014, "Generative adversarial nets") with
LeakyReLU. Given classes, they are the conditional GAN of Mirza and Osindero (2014): an embedding of the label is
appended to the input of each.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

LEAK = 0.2


@dataclass(frozen=True)
class NetworkConfig:
    """What is needed to build a network."""

    image_shape: tuple[int, int, int]
    """Channels, height, width."""
    widths: tuple[int, ...]
    """Of the hidden layers, from the input on."""
    classes: int = 0
    """0: unconditional."""
    latent_dim: int = 0
    """Of a generator."""


class Generator(nn.Module):
    """latent (n, latent_dim), label (n,) if class-conditional -> image (n, channels, height, width) in [-1, 1]."""

    def __init__(self, config: NetworkConfig):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.classes, config.classes) if config.classes else None
        self.layers = nn.Sequential(
            _hidden(config.latent_dim + config.classes, config.widths),
            nn.Linear(config.widths[-1], math.prod(config.image_shape)),
            nn.Tanh(),
        )

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        return self.layers(_append(latent, self.embedding, label)).unflatten(1, self.config.image_shape)


class Discriminator(nn.Module):
    """image (n, channels, height, width) in [-1, 1], label (n,) if class-conditional -> logit (n,); real is high."""

    def __init__(self, config: NetworkConfig):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.classes, config.classes) if config.classes else None
        self.layers = nn.Sequential(
            _hidden(math.prod(config.image_shape) + config.classes, config.widths),
            nn.Linear(config.widths[-1], 1),
        )

    def forward(self, image: Tensor, label: Tensor | None = None) -> Tensor:
        return self.layers(_append(image.flatten(1), self.embedding, label)).squeeze(1)


def _hidden(inputs: int, widths: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise((inputs, *widths)):
        layers += [nn.Linear(before, after), nn.LeakyReLU(LEAK)]
    return nn.Sequential(*layers)


def _append(features: Tensor, embedding: nn.Embedding | None, label: Tensor | None) -> Tensor:
    if (embedding is None) != (label is None):
        raise ValueError("labels go with a class-conditional network, and only with one")
    return features if embedding is None else torch.cat((features, embedding(label)), 1)
