"""Residual networks without normalization: the design of R3GAN at the cost of a CPU.

Huang et al. (2024), "The GAN is dead; long live the GAN! A modern baseline GAN", section 3, initialized as in Zhang et
al. (2019), "Fixup initialization", section 3. What differs: the middle convolution of a block is narrow where R3GAN's
is wide and grouped, because double backward through grouped convolutions is slow; resampling is nearest and average;
and a linear layer, not one basis a channel, makes and reads the coarsest features. As there, no activation is between
blocks.
"""

import math
from collections import OrderedDict
from itertools import pairwise
from typing import TypeVar

from torch import Tensor, nn

from models.networks.base import LEAK, Network, NetworkConfig, append, check_halvings, feature_size, project

_Layer = TypeVar("_Layer", nn.Linear, nn.Conv2d)

ACTIVATION_GAIN = math.sqrt(2 / (1 + LEAK**2))
"""What a LeakyReLU takes from the scale of its input (He et al., 2015, "Delving deep into rectifiers", section 2.2)."""


class Generator(Network):
    """latent (n, latent_dim), label (n,) if class-conditional -> image (n, channels, height, width) in [-1, 1].

    Raises:
        ValueError: more widths than the image has resolutions.
    """

    def __init__(self, config: NetworkConfig):
        super().__init__(config, embedding_dim=config.classes)
        blocks, first, last = len(config.widths), config.widths[0], config.widths[-1]
        check_halvings(config, blocks - 1)
        height, width = feature_size(config, blocks - 1)
        self.input = nn.Sequential(
            OrderedDict(
                linear=_scale(nn.Linear(config.latent_dim + config.classes, first * height * width)),
                unflatten=nn.Unflatten(1, (first, height, width)),
                block=Block(first, blocks),
            )
        )
        self.stages = nn.Sequential()
        for stage, (before, after) in enumerate(pairwise(config.widths), 1):
            resize = nn.Upsample(feature_size(config, blocks - 1 - stage))
            # Channels change at the coarse resolution, where it is cheaper and comes to the same.
            self.stages.append(
                nn.Sequential(OrderedDict(linear=_linear(before, after), resize=resize, block=Block(after, blocks)))
            )
        self.output = _scale(nn.Conv2d(last, config.image_shape[0], 3, padding=1))

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        return self.output(self.stages(self.input(append(latent, self.embed(label))))).tanh()


class Discriminator(Network):
    """image (n, channels, height, width) in [-1, 1], label (n,) if class-conditional -> logit (n,); real is high.

    Raises:
        ValueError: more widths than the image has resolutions.
    """

    def __init__(self, config: NetworkConfig):
        blocks, first, last = len(config.widths), config.widths[0], config.widths[-1]
        super().__init__(config, embedding_dim=last, embedding_std=1 / math.sqrt(last))
        check_halvings(config, blocks - 1)
        height, width = feature_size(config, blocks - 1)
        self.input = nn.Sequential(
            OrderedDict(
                convolution=_scale(nn.Conv2d(config.image_shape[0], first, 3, padding=1)), block=Block(first, blocks)
            )
        )
        self.stages = nn.Sequential()
        for before, after in pairwise(config.widths):
            resize = nn.AvgPool2d(2, ceil_mode=True)
            self.stages.append(
                nn.Sequential(OrderedDict(resize=resize, linear=_linear(before, after), block=Block(after, blocks)))
            )
        self.features = _scale(nn.Linear(last * height * width, last))
        self.activation = nn.LeakyReLU(LEAK)
        self.output = _scale(nn.Linear(last, 1), ACTIVATION_GAIN)

    def forward(self, image: Tensor, label: Tensor | None = None) -> Tensor:
        features = self.activation(self.features(self.stages(self.input(image)).flatten(1)))
        return project(self.output(features), features, self.embed(label))


class Block(nn.Module):
    """(n, width, h, w) -> the same shape: one of a network's `blocks` residual blocks, at first the identity.

    1x1 to half the width, 3x3, 1x1 back: 13/4 of width^2 multiply-adds a pixel, where two 3x3 take 18 of width^2.
    """

    def __init__(self, width: int, blocks: int):
        super().__init__()
        narrow = max(width // 2, 1)
        # Fixup's L^(-1/(2m-2)), so that the first update moves the output alike at any depth L; m = 3 layers a block.
        gain = ACTIVATION_GAIN * blocks**-0.25
        self.reduce = _scale(nn.Conv2d(width, narrow, 1), gain)
        self.mix = _scale(nn.Conv2d(narrow, narrow, 3, padding=1), gain)
        self.expand = _scale(nn.Conv2d(narrow, width, 1), gain=0)
        self.activation = nn.LeakyReLU(LEAK)

    def forward(self, features: Tensor) -> Tensor:
        mixed = self.mix(self.activation(self.reduce(features)))
        return features + self.expand(self.activation(mixed))


def _linear(before: int, after: int) -> nn.Module:
    return nn.Identity() if before == after else _scale(nn.Conv2d(before, after, 1))


def _scale(layer: _Layer, gain: float = 1.0) -> _Layer:
    """Initializes a layer so that its output's standard deviation is its input's times `gain`."""
    nn.init.normal_(layer.weight, 0, gain / math.sqrt(layer.weight[0].numel()))
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer
