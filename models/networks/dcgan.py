"""The convolutional networks of DCGAN, for images of any size.

Radford et al. (2015), "Unsupervised representation learning with deep convolutional generative adversarial networks",
section 3. Each width stands for a doubling in the generator and a halving in the discriminator: with two of them,
images of 28x28 start from 7x7. Where a side does not halve evenly the generator starts larger and its image is cropped.
"""

from collections import OrderedDict
from itertools import pairwise

from torch import Tensor, nn

from models.networks.base import LEAK, Network, NetworkConfig, append, check_halvings, feature_size, project

INITIAL_STD = 0.02


class Generator(Network):
    """latent (n, latent_dim), label (n,) if class-conditional -> image (n, channels, height, width) in [-1, 1].

    Raises:
        ValueError: more widths than the image can be halved.
    """

    def __init__(self, config: NetworkConfig):
        super().__init__(config, embedding_dim=config.classes)
        check_halvings(config, len(config.widths))
        height, width = feature_size(config, len(config.widths))
        first, last = config.widths[0], config.widths[-1]
        self.input = nn.Sequential(
            OrderedDict(
                linear=nn.Linear(config.latent_dim + config.classes, first * height * width, bias=False),
                unflatten=nn.Unflatten(1, (first, height, width)),
                normalization=nn.BatchNorm2d(first),
                activation=nn.ReLU(),
            )
        )
        self.stages = nn.Sequential(*(_double(before, after) for before, after in pairwise(config.widths)))
        self.output = nn.ConvTranspose2d(last, config.image_shape[0], 4, stride=2, padding=1)
        self.apply(_initialize)

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        _, height, width = self.config.image_shape
        image = self.output(self.stages(self.input(append(latent, self.embed(label)))))
        return image[:, :, :height, :width].tanh()


class Discriminator(Network):
    """image (n, channels, height, width) in [-1, 1], label (n,) if class-conditional -> logit (n,); real is high.

    Raises:
        ValueError: more widths than the image can be halved.
    """

    def __init__(self, config: NetworkConfig):
        check_halvings(config, len(config.widths))
        channels, height, width = config.image_shape
        # Rounded down, as the convolutions do.
        features = config.widths[-1] * (height >> len(config.widths)) * (width >> len(config.widths))
        super().__init__(config, embedding_dim=features, embedding_std=INITIAL_STD)
        spectral = config.normalization == "spectral"
        self.input = nn.Sequential(
            OrderedDict(
                convolution=nn.Conv2d(channels, config.widths[0], 4, stride=2, padding=1),
                activation=nn.LeakyReLU(LEAK),
            )
        )
        self.stages = nn.Sequential(*(_halve(before, after, not spectral) for before, after in pairwise(config.widths)))
        self.output = nn.Linear(features, 1)
        self.apply(_initialize)
        if spectral:
            _normalize_spectrally(self)

    def forward(self, image: Tensor, label: Tensor | None = None) -> Tensor:
        features = self.stages(self.input(image)).flatten(1)
        return project(self.output(features), features, self.embed(label))


def _double(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            convolution=nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False),
            normalization=nn.BatchNorm2d(after),
            activation=nn.ReLU(),
        )
    )


def _halve(before: int, after: int, over_batch: bool) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            convolution=nn.Conv2d(before, after, 4, stride=2, padding=1, bias=not over_batch),
            normalization=nn.BatchNorm2d(after) if over_batch else nn.Identity(),
            activation=nn.LeakyReLU(LEAK),
        )
    )


def _normalize_spectrally(network: nn.Module) -> None:
    """Divides every weight by its largest singular value, followed by one power iteration a pass.

    So the logit can move no faster than the image (Miyato et al., 2018, "Spectral normalization for generative
    adversarial networks"), and an image is judged without its neighbours.
    """
    for layer in list(network.modules()):
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.Embedding):
            nn.init.orthogonal_(layer.weight)
            nn.utils.parametrizations.spectral_norm(layer)


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0, INITIAL_STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1, INITIAL_STD)
