"""Converts between the two forms of pixels: uint8 in images, floating point in networks."""

import torch
from torch import Tensor


def normalize(images: Tensor) -> Tensor:
    """Maps uint8 in [0, 255] to float32 in [-1, 1], of the same shape. `quantize` is the inverse."""
    return images.float() / 127.5 - 1


def quantize(pixels: Tensor) -> Tensor:
    """Maps floating-point numbers in [-1, 1] to uint8 in [0, 255], of the same shape. Numbers outside are clamped.

    Rounds to the nearest level. Truncation would turn a difference in the last bit of a number into a whole level.
    """
    return ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
