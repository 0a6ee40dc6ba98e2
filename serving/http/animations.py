"""Animated images, as /interpolate returns them."""

import io
from typing import Literal

import numpy as np

from models.common.array_types import Images
from models.common.image_files import grid

FRAME_MILLISECONDS = 50
"""Time for which each frame is shown."""


def animation(images: Images, scale: int, format: Literal["gif", "webp"]) -> bytes:
    """Encodes an endless animation that shows the images forward, then back.

    It is lossless, except that a GIF reduces colour images to 256 colours in each frame.

    Args:
        images: uint8 (n, channels, height, width), with 1 channel or 3, n at least 2.
        scale: each pixel becomes scale x scale pixels.
        format: the file format.
    """
    frames = [grid(image[None], scale=scale) for image in np.concatenate((images, images[-2:0:-1]))]
    stream = io.BytesIO()
    frames[0].save(
        stream, format, save_all=True, append_images=frames[1:], duration=FRAME_MILLISECONDS, loop=0, lossless=True
    )
    return stream.getvalue()


def crossfade(start: Images, end: Images) -> Images:
    """Fades one sequence of images into another: the first image is that of `start`, the last that of `end`.

    Args:
        start: uint8 (n, channels, height, width).
        end: uint8 of the same shape.

    Returns:
        uint8 of the same shape. Image i has the share i / (n - 1) of image i of `end`.
    """
    shares = np.linspace(0, 1, len(start)).reshape(-1, 1, 1, 1)
    return ((1 - shares) * start + shares * end).round().astype(np.uint8)
