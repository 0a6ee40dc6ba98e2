"""One image file as training data: its middle square, resampled; and what that changed."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

CROPPED = "cropped to the middle square"
REDUCED = "reduced"
ENLARGED = "enlarged"
FLATTENED = "with transparency, which becomes white"
GREYED = "in colour, converted to grey"
FIRST_FRAME = "with several frames, of which the first is used"


class PictureError(ValueError):
    """A file that cannot be read as an image. The message says why, without the path."""


@dataclass(frozen=True)
class Picture:
    pixels: Tensor
    """uint8 (channels, size, size)."""
    changes: tuple[str, ...]
    """What was lost or altered, each one of the constants of this module."""


def read_size(file: Path) -> tuple[int, int] | None:
    """Width and height as the file's header states them; None if it cannot be read."""
    try:
        with Image.open(file) as image:
            return image.size
    except Exception:  # `read_picture` reports it
        return None


def read_picture(file: Path, size: int, channels: int | None) -> Picture:
    """Reads the middle square of an image, upright, on white where it is transparent; in RGB unless `channels` is 1.

    Raises:
        PictureError: it cannot be read.
    """
    try:
        with Image.open(file) as image:
            if image.mode.startswith(("I", "F")):  # Pillow would silently clip them to white
                raise PictureError(f"its mode is {image.mode}; save it with 8 bits per channel")
            frames = getattr(image, "n_frames", 1)
            rgba = ImageOps.exif_transpose(image).convert("RGBA")
    except PictureError:
        raise
    except UnidentifiedImageError as error:
        raise PictureError("its format is unknown") from error
    except Exception as error:  # decoders raise many types on damaged bytes: SyntaxError, struct.error, ...
        raise PictureError(getattr(error, "strerror", None) or str(error) or type(error).__name__) from error
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
    return Picture(pixels, tuple(change for change, happened in changes.items() if happened))


def _to_tensor(image: Image.Image) -> Tensor:
    """Returns the pixels of an L or RGB image, uint8 (channels, height, width)."""
    pixels = torch.from_numpy(np.array(image))
    return pixels.unsqueeze(0) if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()


def is_grey(pixels: Tensor) -> bool:
    """Whether the channels, dimension -3, are all the same."""
    return bool((pixels == pixels[..., :1, :, :]).all())


def describe_changes(changes: Counter[str], total: int, size: int) -> list[str]:
    """One line for each kind of change."""
    to = {REDUCED: f" to {size} x {size} pixels", ENLARGED: f" to {size} x {size} pixels"}
    return [f"{count:,} of {total:,} images {change}{to.get(change, '')}" for change, count in sorted(changes.items())]
