"""Reads the middle square of an image file, resampled to the training size, and records which changes this made."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

CROPPED = "were cropped to the middle square"
REDUCED = "were reduced"
ENLARGED = "were enlarged"
FLATTENED = "have transparency, which becomes white"
GREYED = "are in colour and were converted to grey"
FIRST_FRAME = "have several frames, of which the first is used"


class ImageFileError(ValueError):
    """A file cannot be read as an image. The message gives the reason without the path."""


@dataclass(frozen=True)
class TrainingImage:
    """An image file as it is trained on."""

    pixels: Tensor
    """uint8 (channels, size, size)."""
    changes: tuple[str, ...]
    """Changes and losses, each described by a constant of this module, such as `CROPPED`."""


def read_size(file: Path) -> tuple[int, int] | None:
    """Returns width and height from the header of an image file; None if they cannot be read."""
    try:
        with Image.open(file) as image:
            return image.size
    except Exception:  # `read_image` reports it
        return None


def read_image(file: Path, size: int, channels: int | None) -> TrainingImage:
    """Reads an image file as a square training image.

    Applies its EXIF orientation, crops the middle square, resamples it, and replaces transparency by white.

    Args:
        file: any format that Pillow reads, with 8 bits per channel.
        size: height and width of the result, in pixels.
        channels: 1 converts to grey; 3 and None return RGB.

    Raises:
        ImageFileError: the file cannot be read.
    """
    try:
        with Image.open(file) as image:
            if image.mode.startswith(("I", "F")):  # Pillow would silently clip them to white
                raise ImageFileError(f"its mode is {image.mode}; save it with 8 bits per channel")
            frames = getattr(image, "n_frames", 1)
            rgba = ImageOps.exif_transpose(image).convert("RGBA")
    except ImageFileError:
        raise
    except UnidentifiedImageError as error:
        raise ImageFileError("its format is unknown") from error
    except Exception as error:  # decoders raise many types on damaged bytes: SyntaxError, struct.error, ...
        raise ImageFileError(getattr(error, "strerror", None) or str(error) or type(error).__name__) from error
    changes = {
        CROPPED: rgba.width != rgba.height,
        REDUCED: min(rgba.size) > size,
        ENLARGED: min(rgba.size) < size,
        FLATTENED: rgba.getchannel("A").getextrema() != (255, 255),
        FIRST_FRAME: frames > 1,
    }
    rgba = ImageOps.fit(rgba, (size, size), Image.Resampling.LANCZOS)
    opaque = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    pixels = _to_tensor(opaque.convert("RGB"))
    if channels == 1:
        changes[GREYED] = not is_grey(pixels)
        pixels = _to_tensor(opaque.convert("L"))
    return TrainingImage(pixels, tuple(change for change, happened in changes.items() if happened))


def is_grey(pixels: Tensor) -> bool:
    """Reports whether all channels are equal, in a tensor of the shape (..., channels, height, width)."""
    return bool((pixels == pixels[..., :1, :, :]).all())


def describe_changes(changes: Counter[str], total: int, size: int) -> list[str]:
    """Returns one line for each kind of change.

    Args:
        changes: number of images by kind of change.
        total: number of all images.
        size: height and width after resampling, in pixels.
    """
    to_size = f" to {size} x {size} pixels"
    return [
        f"{count:,} of {total:,} images {change}{to_size if change in (REDUCED, ENLARGED) else ''}"
        for change, count in sorted(changes.items())
    ]


def _to_tensor(image: Image.Image) -> Tensor:
    """Converts an image of mode L or RGB to uint8 (channels, height, width)."""
    pixels = torch.from_numpy(np.array(image))
    return pixels.unsqueeze(0) if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()
