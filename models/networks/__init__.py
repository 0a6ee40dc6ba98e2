"""The networks: a generator turns latents into images in [-1, 1], a discriminator turns images into logits.

    generator = build_generator(NetworkConfig("mlp", image_shape=(1, 28, 28), widths=(256, 512), latent_dim=100))
    image = generator(torch.randn(64, 100))

Each architecture is one file with a `Generator` and a `Discriminator`; a new one is a file and two lines here.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from models.networks import dcgan, mlp, residual
from models.networks.base import Network, NetworkConfig

__all__ = [
    "DISCRIMINATORS",
    "GENERATORS",
    "Network",
    "NetworkConfig",
    "build_discriminator",
    "build_generator",
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
    """latent (n, latent_dim), label int64 (n,) if class-conditional -> image (n, channels, height, width) in [-1, 1].

    Raises:
        ValueError: no such architecture, no latent, or widths that do not suit the image.
    """
    if not config.latent_dim:
        raise ValueError("latent_dim 0: a generator needs at least 1")
    return _build(GENERATORS, config)


def build_discriminator(config: NetworkConfig) -> Network:
    """image (n, channels, height, width) in [-1, 1], label int64 (n,) if class-conditional -> logit (n,); real is high.

    Raises:
        ValueError: no such architecture, or widths that do not suit the image.
    """
    return _build(DISCRIMINATORS, config)


def _build(networks: dict[str, Callable[[NetworkConfig], Network]], config: NetworkConfig) -> Network:
    if config.architecture not in networks:
        raise ValueError(f"architecture {config.architecture!r}: there are {', '.join(networks)}")
    return networks[config.architecture](config)


def multiply_adds(network: nn.Module, *inputs: Tensor) -> int:
    """Multiplications with addition that the matrix products and convolutions of a forward pass take per image.

    Args:
        inputs: what `network` is called with, of any batch size.
    """
    network = copy.deepcopy(network).eval()  # in training mode a pass would change the batch norm's statistics
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(*inputs)
    return counter.get_total_flops() // (2 * len(inputs[0]))


def parameter_count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
