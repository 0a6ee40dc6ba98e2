"""Parts that all architectures share: the config, conditioning on the class, and the sizes of feature maps."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import ConfigDict
from torch import Tensor, nn

LEAK = 0.2
"""Slope of every LeakyReLU for negative inputs."""


@dataclass(frozen=True)
class NetworkConfig:
    """Everything that is needed to build a generator or a discriminator.

    Raises:
        ValueError: a number is out of the range that is valid for any architecture.
    """

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid")  # applies to configs that are read from a checkpoint

    architecture: str
    """Key of `models.networks.GENERATORS`, for example "dcgan", or the class of a network that a user brings, as
    "module:Class" (`models.networks.own`)."""
    image_shape: tuple[int, int, int]
    """(channels, height, width) in pixels."""
    widths: tuple[int, ...]
    """Sizes of the layers from input to output. In an mlp they are the sizes of the hidden layers. In the other
    architectures each is the number of channels at one resolution, so a generator begins with the coarsest resolution
    and a discriminator with the finest. Empty only in a network that a user brings, which then chooses its sizes."""
    classes: int = 0
    """Number of classes; 0 builds an unconditional network."""
    latent_dim: int = 0
    """Size of a generator's latent; 0 in a discriminator."""
    normalization: Literal["batch", "spectral"] = "batch"
    """Normalization of a dcgan discriminator. "batch" normalizes features over the batch, "spectral" divides each
    weight by its largest singular value. Other networks ignore it."""
    source_sha256: str | None = None
    """SHA-256 of the source file of a network that a user brings. None: the network is part of this package."""

    def __post_init__(self) -> None:
        if len(self.image_shape) != 3 or min(self.image_shape) < 1:
            raise ValueError(f"image_shape is {self.image_shape}: give channels, height and width, each at least 1")
        if (not self.widths and ":" not in self.architecture) or min(self.widths, default=1) < 1:
            raise ValueError(f"widths are {self.widths}: give at least one, each at least 1")
        if self.classes < 0:
            raise ValueError(f"classes is {self.classes}: give their number, or 0 for an unconditional network")
        if self.latent_dim < 0:
            raise ValueError(f"latent_dim is {self.latent_dim}: give at least 1 to a generator, 0 to a discriminator")

    @property
    def pixels(self) -> int:
        """Number of values of an image: channels x height x width."""
        return math.prod(self.image_shape)


class Network(nn.Module):
    """Base class of all networks. Stores the config and, if it has classes, an embedding of the label.

    Args:
        config: kept as `self.config`, so that a network can be rebuilt from the config and the weights.
        embedding_dim: size of the embedding of a label; 0 for none.
        embedding_std: standard deviation of the initial embedding, which is drawn from a normal distribution.
    """

    def __init__(self, config: NetworkConfig, embedding_dim: int, embedding_std: float = 1.0):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.classes, embedding_dim) if config.classes and embedding_dim else None
        if self.embedding is not None:
            self.embedding.weight.data *= embedding_std

    def embed(self, label: Tensor | None) -> Tensor | None:
        """Maps label int64 (n,) to its embedding (n, embedding_dim), and None to None.

        Raises:
            ValueError: an unconditional network got labels, or a class-conditional one got none.
        """
        if self.embedding is None and label is not None:
            raise ValueError("this network has no classes: call it without labels")
        if self.embedding is not None and label is None:
            raise ValueError("this network is class-conditional: call it with labels")
        return None if self.embedding is None else self.embedding(label)


def append(features: Tensor, embedded: Tensor | None) -> Tensor:
    """Conditions a network on the class by appending the label's embedding to the input features.

    Mirza and Osindero (2014), "Conditional generative adversarial nets".

    Args:
        features: (n, d).
        embedded: (n, e), or None in an unconditional network.

    Returns:
        (n, d + e), or `features` itself in an unconditional network.
    """
    return features if embedded is None else torch.cat((features, embedded), 1)


def project(logit: Tensor, features: Tensor, embedded: Tensor | None) -> Tensor:
    """Conditions a discriminator on the class by adding the inner product of features and embedding to the logit.

    Miyato and Koyama (2018), "cGANs with projection discriminator", section 3.

    Args:
        logit: (n, 1), the unconditional logit.
        features: (n, d).
        embedded: (n, d), or None in an unconditional network.

    Returns:
        (n,).
    """
    return logit.squeeze(1) if embedded is None else logit.squeeze(1) + (features * embedded).sum(1)


def most_halvings(image_shape: tuple[int, int, int]) -> int:
    """Number of times that an image can be halved, rounding down, so that each side keeps at least 2 pixels.

    It is below 1 if a side has fewer than 4 pixels.
    """
    return min(image_shape[1:]).bit_length() - 2


def default_halvings(image_shape: tuple[int, int, int]) -> int:
    """Number of times that a network of default widths halves an image: until its longer side has at most 8 pixels.

    At least 2, however small the image is. The shorter side keeps at least 2 pixels.
    """
    longer = max(image_shape[1:])
    return max(2, min((longer - 1).bit_length() - 3, most_halvings(image_shape)))


def feature_size(config: NetworkConfig, halvings: int) -> tuple[int, int]:
    """Height and width in pixels of the image after this number of halvings, rounded up each time."""
    _, height, width = config.image_shape
    return -(-height >> halvings), -(-width >> halvings)


def check_halvings(config: NetworkConfig, halvings: int) -> None:
    """Checks that an image can be halved this number of times and keep at least 2 pixels on each side.

    Raises:
        ValueError: a side is below 4 pixels, even for 0 halvings, or there are too many halvings, in which case the
            message names the largest number of widths that is possible.
    """
    possible = most_halvings(config.image_shape)
    if possible < 1:
        raise ValueError(f"image_shape is {config.image_shape}, but {config.architecture} needs sides of at least 4")
    if halvings > possible:
        raise ValueError(
            f"widths {config.widths} halve image_shape {config.image_shape} {halvings} times: "
            f"give {config.architecture} at most {len(config.widths) - halvings + possible} widths at this size"
        )
