"""Sample images that a run draws from its generator: the grid of each epoch, and the images of `--evaluate-every`."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.onnx_file.card import Dataset
from models.onnx_file.latents import draw_latents
from training.config import Config

SAMPLE_SEED = 0
"""The grids show images 0, 1, 2, ... of this seed, so `sample` draws the same ones from the exported file."""


def grid_latents(config: Config, dataset: Dataset) -> tuple[NDArray[np.float32], NDArray[np.int64] | None]:
    """Returns the inputs of the generator for the sample grids, the same in every epoch.

    Returns:
        latents: float32 (sample_images, latent_dim).
        labels: int64 (sample_images,), or None if the generator is unconditional.
    """
    class_weights = dataset.class_weights if config.conditional else ()
    return draw_latents(SAMPLE_SEED, 0, config.sample_images, config.latent_dim, class_weights)


@torch.inference_mode()
def generate(generator: nn.Module, latents: NDArray[np.float32], labels: NDArray[np.int64] | None) -> Tensor:
    """Generates images in evaluation mode, and then restores the previous mode of the generator.

    Args:
        generator: a network that takes labels if and only if `labels` is not None.
        latents: (n, latent_dim).
        labels: (n,).

    Returns:
        float32 (n, channels, height, width) in [-1, 1], on the device of the generator.
    """
    device = next(generator.parameters()).device
    inputs = [torch.from_numpy(array).to(device) for array in (latents, labels) if array is not None]
    training = generator.training
    try:
        return generator.eval()(*inputs)
    finally:
        generator.train(training)
