"""Golden images: a few images in the card, which show whether this machine renders the file like the exporting one."""

import base64
import zlib
from dataclasses import dataclass

import numpy as np

from models.common.array_types import Images
from models.common.errors import ModelFileError
from models.onnx_file.card import CardError, Precision

GOLDEN_BOUNDS: dict[Precision, tuple[int, float]] = {"fp32": (1, 1e-4), "fp16": (2, 1e-2), "int8": (8, 0.2)}
"""For each precision, the largest difference of a pixel, in levels of 255, and the largest share of pixels that differ.

Pixels differ because onnxruntime chooses other kernels on another kind of processor. The bounds of int8 are wide
because a difference in the last bit can change how a value within the network is rounded to one of its 256 levels."""


@dataclass(frozen=True)
class GoldenComparison:
    """Differences between the golden images of a card and the same images rendered on this machine."""

    pixels: int
    """Number of values compared: images x channels x height x width."""
    pixels_off: int
    """Number of them that differ."""
    levels_off: int
    """Largest difference, in levels from 0 to 255."""

    def __str__(self) -> str:
        if not self.pixels_off:
            return f"golden images: all {self.pixels:,} pixels are identical"
        return f"golden images: {self.pixels_off:,} of {self.pixels:,} pixels differ, by up to {self.levels_off} levels"


def compare_golden(rendered: Images, pixels: str, precision: Precision) -> GoldenComparison:
    """Compares images rendered on this machine with the golden images of a card.

    Args:
        rendered: the images of the golden seed and indices, uint8 (n, channels, height, width).
        pixels: the golden images of the card, see `pack_golden`.
        precision: precision of the file, which chooses the bounds.

    Raises:
        CardError: the golden images cannot be unpacked.
        ModelFileError: they differ by more than `GOLDEN_BOUNDS` allows.
    """
    # uint8 differences would wrap.
    off = np.abs(rendered.astype(np.int16) - unpack_golden(pixels, rendered.shape).astype(np.int16))
    comparison = GoldenComparison(off.size, int((off > 0).sum()), int(off.max()))
    levels, share = GOLDEN_BOUNDS[precision]
    if comparison.levels_off > levels or comparison.pixels_off > share * comparison.pixels:
        raise ModelFileError(f"{comparison}; at most {share:.2%} of them may differ, by up to {levels}")
    return comparison


def pack_golden(images: Images) -> str:
    """Encodes images for the card, as base64 of zlib of their pixels in C order."""
    return base64.b64encode(zlib.compress(images.tobytes(), 9)).decode()


def unpack_golden(pixels: str, shape: tuple[int, ...]) -> Images:
    """Decodes the images that `pack_golden` encoded. Allocates no more than `shape` needs, whatever the text contains.

    Args:
        pixels: the encoded images.
        shape: their shape, (n, channels, height, width).

    Raises:
        CardError: the text does not contain images of this shape.
    """
    try:
        size = int(np.prod(shape))
        return np.frombuffer(zlib.decompressobj().decompress(base64.b64decode(pixels), size), np.uint8).reshape(shape)
    except (ValueError, zlib.error) as error:
        raise CardError(f"card: its golden images cannot be decoded ({error})") from error
