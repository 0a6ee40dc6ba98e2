"""The networks: a generator turns latents into images in [-1, 1], a discriminator turns images into logits.

    generator = build_generator(NetworkConfig("mlp", image_shape=(1, 28, 28), widths=(256, 512), latent_dim=100))
    image = generator(torch.randn(64, 100))

Each architecture is one file with a `Generator` and a `Discriminator`. To add one, write such a file, add a line to
`GENERATORS` and to `DISCRIMINATORS`, its name to `Architecture` in training/config.py, and its default widths to
training/presets.py. `models.networks.own` has the networks that a user brings.
"""

from collections.abc import Callable

from torch import nn

from models.networks import dcgan, mlp, residual
from models.networks.base import Network, NetworkConfig
from models.networks.flops import FlopCounter, multiply_adds
from models.networks.own import OwnDiscriminator, OwnGenerator, is_own

__all__ = [
    "DISCRIMINATORS",
    "GENERATORS",
    "FlopCounter",
    "Network",
    "NetworkConfig",
    "build_discriminator",
    "build_generator",
    "is_own",
    "multiply_adds",
    "parameter_count",
]

GENERATORS: dict[str, Callable[[NetworkConfig], Network]] = {
    "mlp": mlp.Generator,
    "dcgan": dcgan.Generator,
    "residual": residual.Generator,
}
DISCRIMINATORS: dict[str, Callable[[NetworkConfig], Network]] = {
    "mlp": mlp.Discriminator,
    "dcgan": dcgan.Discriminator,
    "residual": residual.Discriminator,
}


def build_generator(config: NetworkConfig) -> Network:
    """Builds an untrained generator.

    Returns:
        A module that maps latent float (n, latent_dim) and, if `config.classes` is not 0, label int64 (n,) to image
        (n, channels, height, width) in [-1, 1].

    Raises:
        ValueError: the architecture is unknown, `latent_dim` is 0, or the widths do not fit the image shape.
        NetworkError: the network is that of a user, and was not imported, or raises an error.
    """
    if not config.latent_dim:
        raise ValueError("latent_dim is 0, but a generator needs at least 1")
    return OwnGenerator(config) if is_own(config.architecture) else _build(GENERATORS, config)


def build_discriminator(config: NetworkConfig) -> Network:
    """Builds an untrained discriminator.

    Returns:
        A module that maps image (n, channels, height, width) in [-1, 1] and, if `config.classes` is not 0, label int64
        (n,) to logit (n,). A higher logit means "more likely real".

    Raises:
        ValueError: the architecture is unknown, or the widths do not fit the image shape.
        NetworkError: the network is that of a user, and was not imported, or raises an error.
    """
    return OwnDiscriminator(config) if is_own(config.architecture) else _build(DISCRIMINATORS, config)


def parameter_count(network: nn.Module) -> int:
    """Number of trainable weights, with all biases and embeddings. Buffers, such as batch statistics, do not count."""
    return sum(parameter.numel() for parameter in network.parameters())


def _build(networks: dict[str, Callable[[NetworkConfig], Network]], config: NetworkConfig) -> Network:
    if config.architecture not in networks:
        raise ValueError(f"unknown architecture {config.architecture!r}: choose one of {', '.join(networks)}")
    return networks[config.architecture](config)
