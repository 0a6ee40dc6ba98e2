"""Parity: how far an ONNX file's output is from that of the PyTorch module it was made from, and how far it may be."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
import torch

from models import latents as addresses
from models.architectures import Network
from models.artifact import make_feeds, run

BATCH_SIZES = (1, 2, 3, 7, 64, 257)
"""The exporter sees a batch of 2 only; 257 is more than one `artifact.CHUNK`."""

MAX_ABS_ERROR = 1e-5
MAX_LEVELS_OFF = 1
MAX_SHARE_OFF = 1e-4


class ParityError(ValueError):
    """The ONNX graph does not compute what the PyTorch module computes."""


@dataclass(frozen=True)
class Parity:
    batch_sizes: tuple[int, ...]
    pixels: int
    """How many were compared."""
    max_abs_error: float
    """Of the float output in [-1, 1], before it is quantised."""
    pixels_off: int
    """uint8 pixels that differ."""
    levels_off: int
    """By how much they differ at most, of 255."""

    def check(self) -> None:
        """Raises:
        ParityError: a figure is beyond its bound; the message names the first one.
        """
        # Written so that a NaN fails: it compares false with everything.
        if not self.max_abs_error <= MAX_ABS_ERROR:
            raise ParityError(
                f"float output: max abs error {self.max_abs_error:.3g}, at most {MAX_ABS_ERROR:g} allowed"
            )
        if not self.levels_off <= MAX_LEVELS_OFF:
            raise ParityError(f"uint8 output: {self.levels_off} levels off, at most {MAX_LEVELS_OFF} allowed")
        if not self.pixels_off <= self.max_pixels_off:
            raise ParityError(f"uint8 output: {self.pixels_off} pixels off, at most {self.max_pixels_off} allowed")

    @property
    def max_pixels_off(self) -> int:
        return int(self.pixels * MAX_SHARE_OFF)

    def report(self) -> dict[str, Any]:
        """The figures with their bounds, for JSON."""
        return asdict(self) | {"max_abs_error_allowed": MAX_ABS_ERROR, "max_pixels_off": self.max_pixels_off}

    def __str__(self) -> str:
        sizes = ", ".join(map(str, self.batch_sizes))
        return (
            f"parity with PyTorch over {sum(self.batch_sizes)} images, in batches of {sizes}\n"
            f"  float output  max abs error {self.max_abs_error:.1e}, at most {MAX_ABS_ERROR:.0e} allowed\n"
            f"  uint8 output  {self.pixels_off} of {self.pixels:,} pixels off, at most {self.max_pixels_off} allowed, "
            f"by one level"
        )


def quantize(pixels: torch.Tensor) -> torch.Tensor:
    """[-1, 1] -> uint8. By rounding: truncation would turn the last bit of a float into a level of grey."""
    return ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def measure(generator: Network, session: ort.InferenceSession) -> Parity:
    """Compares a module with a session that yields `image` (uint8) and `pixels` (float, before quantisation)."""
    config = generator.config
    max_abs_error, pixels_off, levels_off, pixels = 0.0, 0, 0, 0
    for batch_size in BATCH_SIZES:
        latents, labels = addresses.draw(batch_size, 0, batch_size, config.latent_dim, (1,) * config.classes)
        feeds = make_feeds(latents, labels)
        actual = run(session, feeds)
        with torch.inference_mode():
            expected = generator(*map(torch.from_numpy, feeds.values()))
        # Formed in wider types: uint8 differences would wrap.
        error = np.abs(actual["pixels"].astype(np.float64) - expected.double().numpy())
        off = np.abs(actual["image"].astype(np.int16) - quantize(expected).numpy().astype(np.int16))
        max_abs_error = float(np.maximum(max_abs_error, error.max()))  # unlike max, keeps a NaN
        pixels_off += int((off > 0).sum())
        levels_off = max(levels_off, int(off.max()))
        pixels += off.size
    return Parity(BATCH_SIZES, pixels, max_abs_error, pixels_off, levels_off)
