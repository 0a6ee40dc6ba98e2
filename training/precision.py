"""Device and numeric precision of training: resolves "auto" to what this machine supports."""

from typing import Literal

import torch

from models.common.errors import MnistGanError

AUTOCAST_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""Autocast dtype of each mixed precision. fp32 has no entry, because it runs without autocast."""


class PrecisionError(MnistGanError):
    """This machine does not have the requested device."""


def resolve_device(device: Literal["auto", "cpu", "cuda"]) -> Literal["cpu", "cuda"]:
    """Returns the device to train on; "auto" selects the GPU if PyTorch finds one.

    Raises:
        PrecisionError: "cuda" was requested, but PyTorch finds no GPU.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise PrecisionError("--device cuda, but PyTorch finds no GPU; use --device auto or --device cpu")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def resolve_precision(
    precision: Literal["auto", "fp32", "bf16", "fp16"], device: str
) -> Literal["fp32", "bf16", "fp16"]:
    """Returns the precision to train in; "auto" selects the fastest safe one that `device` supports in hardware.

    A GPU gets bf16, or fp16 if it does not support bf16: the range of bf16 needs no loss scaling. A CPU gets bf16 if
    it has AMX tiles, and fp32 otherwise.
    """
    if precision != "auto":
        return precision
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    # A CPU without AMX tiles emulates bf16, which is several times slower than fp32.
    return "bf16" if torch.cpu._is_amx_tile_supported() else "fp32"
