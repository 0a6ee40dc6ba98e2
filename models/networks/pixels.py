"""The two forms of pixels: bytes of an image, and floating-point numbers of a network."""

import torch
from torch import Tensor


def normalize(images: Tensor) -> Tensor:
    """Maps uint8 in [0, 255] to float32 in [-1, 1]. `quantize` is the inverse."""
    return images.float() / 127.5 - 1


def quantize(pixels: Tensor) -> Tensor:
    """Maps floating-point numbers in [-1, 1] to uint8 in [0, 255].

    Rounds to the nearest: truncation would turn the last bit of a floating-point number into a level of grey.
    """
    return ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
