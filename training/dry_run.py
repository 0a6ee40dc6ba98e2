"""Dry run of training: makes all checks of a run and describes it, without writing anything."""

import json

import torch

from models.networks import multiply_adds, parameter_count
from training.config import Config
from training.distributed import Group
from training.setup import make_evaluator, prepare, resolve_config


def dry_run(config: Config, resume: bool = False) -> str:
    """Makes all checks that `train` makes before it starts. Downloads and writes nothing.

    Returns:
        the configuration as JSON, a summary of the data, and the size and cost of each network, on several lines.

    Raises:
        MnistGanError: the run could not start; the error is the one that `train` would raise.
    """
    config = resolve_config(config)
    run = prepare(config, resume, Group(device=config.device), dry_run=True)
    make_evaluator(run)
    config, info = run.config, run.data.info
    label = (torch.zeros(1, dtype=torch.int64, device=config.device),) if config.conditional else ()
    latent = torch.zeros(1, config.latent_dim, device=config.device)
    image = torch.zeros(1, *info.image_shape, device=config.device)
    lines = [json.dumps(config.to_dict(), indent=2), *run.data.summary, *run.initialization]
    for name, network, network_input in (
        ("generator", run.state.generator, latent),
        ("discriminator", run.state.discriminator, image),
    ):
        lines.append(
            f"{name} ({network.config.architecture}): {parameter_count(network):,} parameters, "
            f"{multiply_adds(network, network_input, *label):,} multiply-adds per image"
        )
    return "\n".join(lines)
