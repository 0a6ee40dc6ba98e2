"""The convolutional networks of DCGAN, for images of any size.

Radford et al. (2015), "Unsupervised representation learning with deep convolutional generative adversarial networks",
section 3. Each width doubles the resolution in the generator and halves it in the discriminator: with two widths, the
generator makes 28x28 pixels from 7x7. If a side cannot be halved evenly, the generator makes a larger image and crops
it.
"""

from collections import OrderedDict
from itertools import pairwise

from torch import Tensor, nn

from models.networks.base import LEAK, Network, NetworkConfig, append, check_halvings, feature_size, project

INITIAL_STD = 0.02
"""Standard deviation of the initial weights, as in the paper."""


class Generator(Network):
    """Linear layer to `config.widths[0]` channels, then 4x4 transposed convolutions of stride 2, batch norm and ReLU.

    Maps latent (n, latent_dim) and, if class-conditional, label int64 (n,) to image (n, channels, height, width) in
    [-1, 1].
    The last layer has neither batch norm nor ReLU, but tanh.

    Raises:
        ValueError: there are more widths than times that the image can be halved.
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
    """4x4 convolutions of stride 2 with LeakyReLU, then a linear layer; the class is added by projection.

    Maps image (n, channels, height, width) in [-1, 1] and, if class-conditional, label int64 (n,) to logit (n,). A
    higher logit means "more likely real".
    With `normalization="batch"`, batch norm follows every convolution except the first. With "spectral", every weight
    is spectrally normalized.

    Raises:
        ValueError: there are more widths than times that the image can be halved.
    """

    def __init__(self, config: NetworkConfig):
        check_halvings(config, len(config.widths))
        channels, height, width = config.image_shape
        # The convolutions round sizes down, unlike `feature_size`.
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
            _apply_spectral_norm(self)

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


def _halve(before: int, after: int, batch_norm: bool) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            convolution=nn.Conv2d(before, after, 4, stride=2, padding=1, bias=not batch_norm),
            normalization=nn.BatchNorm2d(after) if batch_norm else nn.Identity(),
            activation=nn.LeakyReLU(LEAK),
        )
    )


def _apply_spectral_norm(network: nn.Module) -> None:
    """Divides every weight by its largest singular value.

    PyTorch estimates it by one power iteration in each forward pass in training mode.

    This bounds the Lipschitz constant of the logit (Miyato et al., 2018, "Spectral normalization for generative
    adversarial networks"). Unlike with batch norm, the logit of an image does not depend on the rest of the batch.
    Weights start orthogonal instead of normal.
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
