"""Images as people look at them and programs read them: a sheet as PNG, a data set as npz."""

import io
import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.common.array_types import Images

Image.preinit()  # or the first request would wait for Pillow's plugins

PNG, NPZ, NPY = "image/png", "application/x-npz", "application/x-npy"
"""Media types."""
FRAME_MILLISECONDS = 50
RUN_LENGTHS = 3
"""zlib's Z_RLE: of digits it makes smaller files than zlib's default does, in less than half the time."""
MAX_COLUMNS = 64
MAX_SCALE = 16
"""Of a sheet that a user asks for; by default it is as square as can be, however many images that are."""


def sheet(images: Images, columns: int | None = None, scale: int = 1) -> Image.Image:
    """Lays images out in rows, left to right, without gaps.

    Args:
        images: uint8 (n, channels, height, width), 1 channel or 3.
        columns: images a row; None makes the sheet as square as can be.
        scale: edge of the square that each pixel becomes.
    """
    n, channels, height, width = images.shape
    columns = min(n, columns or math.ceil(math.sqrt(n)))
    rows = -(-n // columns)
    cells = np.zeros((rows * columns, channels, height, width), np.uint8)
    cells[:n] = images
    pixels = cells.reshape(rows, columns, channels, height, width).transpose(0, 3, 1, 4, 2)
    pixels = pixels.reshape(rows * height, columns * width, channels)
    image = Image.fromarray(pixels.squeeze(2) if channels == 1 else pixels)
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)


def png(image: Image.Image) -> bytes:
    """The same bytes for the same image, wherever Pillow is of the same version."""
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_type=RUN_LENGTHS)
    return stream.getvalue()


def png_sheet(images: Images, columns: int | None, scale: int) -> bytes:
    """`sheet` as `png`."""
    return png(sheet(images, columns, scale))


def fade(one: Images, other: Images) -> Images:
    """From the first image of one sequence to the last of another, uint8 (n, ...) like both."""
    steps = np.linspace(0, 1, len(one)).reshape(-1, 1, 1, 1)
    return ((1 - steps) * one + steps * other).round().astype(np.uint8)


def animation(images: Images, scale: int, format: Literal["gif", "webp"]) -> bytes:
    """An endless animation of the images, forward and back.

    It is lossless, except that a GIF reduces colour images to 256 colours in each frame.
    """
    frames = [sheet(image[None], scale=scale) for image in np.concatenate((images, images[-2:0:-1]))]
    stream = io.BytesIO()
    frames[0].save(
        stream, format, save_all=True, append_images=frames[1:], duration=FRAME_MILLISECONDS, loop=0, lossless=True
    )
    return stream.getvalue()


def npz(images: Images, labels: NDArray[np.int64] | None) -> bytes:
    """`images` uint8 (n, height, width), or (n, height, width, 3) for colour, and `labels` int64 (n,) if there are."""
    grey_or_colour = images[:, 0] if images.shape[1] == 1 else images.transpose(0, 2, 3, 1)
    stream = io.BytesIO()
    if labels is None:
        np.savez(stream, images=grey_or_colour)
    else:
        np.savez(stream, images=grey_or_colour, labels=labels)
    return stream.getvalue()


def npy(images: Images) -> bytes:
    """uint8 (n, channels, height, width)."""
    stream = io.BytesIO()
    np.save(stream, images)
    return stream.getvalue()
