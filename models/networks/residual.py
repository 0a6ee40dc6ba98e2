"""Residual networks without normalization: the design of R3GAN, made cheap enough for a CPU.

Huang et al. (2024), "The GAN is dead; long live the GAN! A modern baseline GAN", section 3, initialized as in Zhang et
al. (2019), "Fixup initialization", section 3. As in R3GAN, there is no activation between blocks. Differences:

- The middle convolution of a block is narrow. In R3GAN it is wide and grouped, but double backward through grouped
  convolutions is slow.
- Upsampling repeats the nearest pixel, and downsampling averages.
- The generator's coarsest features come from a linear layer, and the discriminator's go into one. R3GAN has one learned
  map for each channel instead.
"""

import math
from collections import OrderedDict
from itertools import pairwise
from typing import TypeVar

from torch import Tensor, nn

from models.networks.base import LEAK, Network, NetworkConfig, append, check_halvings, feature_size, project
from models.networks.double_backward import Conv2d, Halve

_Layer = TypeVar("_Layer", nn.Linear, nn.Conv2d)

ACTIVATION_GAIN = math.sqrt(2 / (1 + LEAK**2))
"""Gain that keeps the signal's scale through a LeakyReLU (He et al., 2015, "Delving deep into rectifiers", section
2.2)."""


class Generator(Network):
    """Linear layer to `config.widths[0]` channels, then one residual block at each resolution, a convolution, tanh.

    Maps latent (n, latent_dim) and, if class-conditional, label int64 (n,) to image (n, channels, height, width) in
    [-1, 1].
    With k widths, the resolution doubles k - 1 times.

    Raises:
        ValueError: there are more widths than resolutions that the image can be halved to.
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
            # The 1x1 convolution goes before the upsampling: same result, about a quarter of the cost.
            self.stages.append(
                nn.Sequential(OrderedDict(linear=_linear(before, after), resize=resize, block=Block(after, blocks)))
            )
        self.output = _scale(nn.Conv2d(last, config.image_shape[0], 3, padding=1))

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        return self.output(self.stages(self.input(append(latent, self.embed(label))))).tanh()


class Discriminator(Network):
    """Convolution, one residual block at each resolution, then two linear layers; the class is added by projection.

    Maps image (n, channels, height, width) in [-1, 1] and, if class-conditional, label int64 (n,) to logit (n,). A
    higher logit means "more likely real".
    With k widths, the resolution is halved k - 1 times.

    Raises:
        ValueError: there are more widths than resolutions that the image can be halved to.
    """

    def __init__(self, config: NetworkConfig):
        blocks, first, last = len(config.widths), config.widths[0], config.widths[-1]
        super().__init__(config, embedding_dim=last, embedding_std=1 / math.sqrt(last))
        check_halvings(config, blocks - 1)
        height, width = feature_size(config, blocks - 1)
        self.input = nn.Sequential(
            OrderedDict(
                convolution=_scale(Conv2d(config.image_shape[0], first, 3, padding=1)),
                block=Block(first, blocks, Conv2d),
            )
        )
        self.stages = nn.Sequential()
        for before, after in pairwise(config.widths):
            linear, block = _linear(before, after, Conv2d), Block(after, blocks, Conv2d)
            self.stages.append(nn.Sequential(OrderedDict(resize=Halve(), linear=linear, block=block)))
        self.features = _scale(nn.Linear(last * height * width, last))
        self.activation = nn.LeakyReLU(LEAK)
        self.output = _scale(nn.Linear(last, 1), ACTIVATION_GAIN)

    def forward(self, image: Tensor, label: Tensor | None = None) -> Tensor:
        features = self.activation(self.features(self.stages(self.input(image)).flatten(1)))
        return project(self.output(features), features, self.embed(label))


class Block(nn.Module):
    """Residual bottleneck block, (n, width, h, w) -> (n, width, h, w). Before training it is the identity.

    A 1x1 convolution to half the width, a 3x3, and a 1x1 back take 13/4 width^2 multiply-adds for each pixel; two 3x3
    convolutions would take 18 width^2.

    Args:
        width: number of channels.
        blocks: number of residual blocks in the network; scales the initial weights (Fixup).
        convolution: class of the convolutions, `double_backward.Conv2d` in a discriminator.
    """

    def __init__(self, width: int, blocks: int, convolution: type[nn.Conv2d] = nn.Conv2d):
        super().__init__()
        narrow = max(width // 2, 1)
        # Fixup's L^(-1/(2m-2)) with L blocks of m = 3 layers: the first update moves the output equally at any depth.
        gain = ACTIVATION_GAIN * blocks**-0.25
        self.reduce = _scale(convolution(width, narrow, 1), gain)
        self.mix = _scale(convolution(narrow, narrow, 3, padding=1), gain)
        self.expand = _scale(convolution(narrow, width, 1), gain=0)
        self.activation = nn.LeakyReLU(LEAK)

    def forward(self, features: Tensor) -> Tensor:
        mixed = self.mix(self.activation(self.reduce(features)))
        return features + self.expand(self.activation(mixed))


def _linear(before: int, after: int, convolution: type[nn.Conv2d] = nn.Conv2d) -> nn.Module:
    """1x1 convolution that changes the number of channels, or the identity if it stays the same."""
    return nn.Identity() if before == after else _scale(convolution(before, after, 1))


def _scale(layer: _Layer, gain: float = 1.0) -> _Layer:
    """Initializes a layer so that the standard deviation of its output is `gain` times that of its input."""
    nn.init.normal_(layer.weight, 0, gain / math.sqrt(layer.weight[0].numel()))
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer
