"""Reads an image file at the training size, and records which changes this made."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from training.fit import Fit

CROPPED = "were cropped to the middle"
PADDED = "were surrounded by {background}"
STRETCHED = "were stretched to other proportions"
REDUCED = "were reduced"
ENLARGED = "were enlarged"
FLATTENED = "have transparency, which becomes {background}"
GREYED = "are in colour and were converted to grey"
FIRST_FRAME = "have several frames, of which the first is used"


class ImageFileError(ValueError):
    """A file cannot be read as an image. The message gives the reason without the path."""


@dataclass(frozen=True)
class TrainingImage:
    """An image file as it is trained on."""

    pixels: Tensor
    """uint8 (channels, height, width)."""
    changes: tuple[str, ...]
    """Changes and losses, each described by a constant of this module, such as `CROPPED`."""


def read_size(file: Path) -> tuple[int, int] | None:
    """Returns width and height from the header of an image file, as viewers show it; None if they cannot be read."""
    try:
        with Image.open(file) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5  # by a quarter of a circle
            return (image.height, image.width) if turned else image.size
    except Exception:  # `read_image` reports it
        return None


def read_image(
    file: Path, size: tuple[int, int], channels: int | None, fit: Fit, background: tuple[int, int, int]
) -> TrainingImage:
    """Reads an image file as a training image.

    Applies its EXIF orientation, brings it to the requested size, and replaces transparency by the background.

    Args:
        file: any format that Pillow reads, with 8 bits per channel.
        size: width and height of the result, in pixels.
        channels: 1 converts to grey; 3 and None return RGB.
        fit: what happens if the proportions of the image are not those of `size`.
        background: red, green and blue from 0 to 255.

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
    scales = size[0] / rgba.width, size[1] / rgba.height
    scale = min(scales) if fit == "pad" else max(scales)
    changes = {
        {"crop": CROPPED, "pad": PADDED, "stretch": STRETCHED}[fit]: scales[0] != scales[1],
        REDUCED: scale < 1,
        ENLARGED: scale > 1,
        FLATTENED: rgba.getchannel("A").getextrema() != (255, 255),
        FIRST_FRAME: frames > 1,
    }
    match fit:
        case "crop":
            rgba = ImageOps.fit(rgba, size, Image.Resampling.LANCZOS)
        case "pad":
            rgba = ImageOps.pad(rgba, size, Image.Resampling.LANCZOS, (*background, 255))
        case "stretch":
            rgba = rgba.resize(size, Image.Resampling.LANCZOS)
    opaque = Image.alpha_composite(Image.new("RGBA", rgba.size, background), rgba)
    pixels = _to_tensor(opaque.convert("RGB"))
    if channels == 1:
        changes[GREYED] = not is_grey(pixels)
        pixels = _to_tensor(opaque.convert("L"))
    return TrainingImage(pixels, tuple(change for change, happened in changes.items() if happened))


def is_grey(pixels: Tensor) -> bool:
    """Reports whether all channels are equal, in a tensor of the shape (..., channels, height, width)."""
    return bool((pixels == pixels[..., :1, :, :]).all())


def describe_changes(
    changes: Counter[str], total: int, size: tuple[int, int], background: tuple[int, int, int]
) -> list[str]:
    """Returns one line for each kind of change.

    Args:
        changes: number of images by kind of change.
        total: number of all images.
        size: width and height after resampling, in pixels.
        background: red, green and blue from 0 to 255.
    """
    to_size = f" to {size[0]} x {size[1]} pixels"
    colour = "white" if background == (255, 255, 255) else f"#{bytes(background).hex()}"
    return [
        f"{count:,} of {total:,} images "
        + change.format(background=colour)
        + (to_size if change in (REDUCED, ENLARGED) else "")
        for change, count in sorted(changes.items())
    ]


def _to_tensor(image: Image.Image) -> Tensor:
    """Converts an image of mode L or RGB to uint8 (channels, height, width)."""
    pixels = torch.from_numpy(np.array(image))
    return pixels.unsqueeze(0) if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()
