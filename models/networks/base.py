"""What the architectures share: the config, the label's way into a network, and the sizes of feature maps."""

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import ConfigDict
from torch import Tensor, nn

LEAK = 0.2


@dataclass(frozen=True)
class NetworkConfig:
    """What is needed to build a network.

    Raises:
        ValueError: a number that no network could have.
    """

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid")  # for those read from a file

    architecture: str
    """A name in `models.networks.GENERATORS`."""
    image_shape: tuple[int, int, int]
    """Channels, height, width."""
    widths: tuple[int, ...]
    """From the input on. mlp: of the hidden layers. Others: channels, of one resolution each; so the coarsest comes
    first in a generator, and the finest in a discriminator."""
    classes: int = 0
    """0: unconditional."""
    latent_dim: int = 0
    """Of a generator."""
    normalization: Literal["batch", "spectral"] = "batch"
    """Of a dcgan discriminator: of its features over the batch, or of its weights by their largest singular value."""

    def __post_init__(self) -> None:
        if len(self.image_shape) != 3 or min(self.image_shape) < 1:
            raise ValueError(f"image_shape {self.image_shape}: give channels, height and width, each at least 1")
        if not self.widths or min(self.widths) < 1:
            raise ValueError(f"widths {self.widths}: give at least one, each at least 1")
        if self.classes < 0:
            raise ValueError(f"classes {self.classes}: give their number, or 0 for an unconditional network")
        if self.latent_dim < 0:
            raise ValueError(f"latent_dim {self.latent_dim}: give at least 1 to a generator, 0 to a discriminator")


class Network(nn.Module):
    """A network that keeps its config and, if it is class-conditional, an embedding of the label."""

    def __init__(self, config: NetworkConfig, embedding_dim: int, embedding_std: float = 1.0):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.classes, embedding_dim) if config.classes else None
        if self.embedding is not None:
            self.embedding.weight.data *= embedding_std

    def embed(self, label: Tensor | None) -> Tensor | None:
        """int64 (n,) -> (n, embedding_dim); None -> None.

        Raises:
            ValueError: a label for an unconditional network, or none for a class-conditional one.
        """
        if (self.embedding is None) != (label is None):
            raise ValueError("labels go with a class-conditional network, and only with one")
        return None if self.embedding is None else self.embedding(label)


def append(features: Tensor, embedded: Tensor | None) -> Tensor:
    """(n, d), (n, e) -> (n, d + e): conditions a network through its input (Mirza and Osindero, 2014)."""
    return features if embedded is None else torch.cat((features, embedded), 1)


def project(logit: Tensor, features: Tensor, embedded: Tensor | None) -> Tensor:
    """(n, 1), (n, d), (n, d) -> logit (n,): adds how well the features fit the class.

    Miyato and Koyama (2018), "cGANs with projection discriminator", section 3.
    """
    return logit.squeeze(1) if embedded is None else logit.squeeze(1) + (features * embedded).sum(1)


def default_halvings(image_shape: tuple[int, int, int]) -> int:
    """How often a network without explicit widths halves an image: until 8 pixels per side or fewer, at least twice."""
    return max(2, (max(image_shape[1:]) - 1).bit_length() - 3)


def feature_size(config: NetworkConfig, halvings: int) -> tuple[int, int]:
    """Height and width of the image after so many halvings, each rounded up."""
    _, height, width = config.image_shape
    return -(-height >> halvings), -(-width >> halvings)


def check_halvings(config: NetworkConfig, halvings: int) -> None:
    """Raises:
    ValueError: the widths ask for more halvings than the image has, or it is too small for any.
    """
    possible = min(config.image_shape[1:]).bit_length() - 2  # leaves at least 2 pixels a side, even rounded down
    if possible < 1:
        raise ValueError(f"image_shape {config.image_shape}: {config.architecture} needs sides of at least 4 pixels")
    if halvings > possible:
        raise ValueError(
            f"widths {config.widths} halve image_shape {config.image_shape} {halvings} times: "
            f"give {config.architecture} at most {len(config.widths) - halvings + possible} widths at this size"
        )
