"""Images as files: a grid as PNG, a data set as .npz, an array as .npy. Serving and training share them."""

import io
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.common.array_types import Images, Labels

Image.preinit()  # otherwise the first request would wait until Pillow has loaded its plugins

MAX_COLUMNS = 64
"""Largest number of columns that a user may ask for. The default of `grid` has no limit."""
MAX_SCALE = 16
"""Largest scale that a user may ask for."""

_RUN_LENGTHS = 3
"""zlib's strategy Z_RLE. PNG files of digits are smaller than with the default and take less than half the time."""


def grid(images: Images, columns: int | None = None, scale: int = 1, padding: int = 0, grey: int = 0) -> Image.Image:
    """Arranges images in rows, from left to right.

    Args:
        images: uint8 (n, channels, height, width), with 1 channel (grey) or 3 (RGB), n at least 1.
        columns: number of images in each row; values above n are treated as n. None makes the grid as square
            as possible.
        scale: each pixel of the grid becomes scale x scale pixels.
        padding: width in pixels, before scaling, of the lines between and around the images.
        grey: level from 0 to 255 of the lines and of cells without an image.

    Returns:
        An image of mode "L" (grey) or "RGB".
    """
    n, channels, height, width = images.shape
    columns = min(n, columns or math.ceil(math.sqrt(n)))
    rows = -(-n // columns)
    cell_height, cell_width = height + padding, width + padding  # the lines at the bottom and on the right come last
    cells = np.empty((rows * columns, channels, cell_height, cell_width), np.uint8)
    cells.fill(grey)
    cells[:n, :, padding:, padding:] = images
    pixels = cells.reshape(rows, columns, channels, cell_height, cell_width).transpose(0, 3, 1, 4, 2)
    pixels = pixels.reshape(rows * cell_height, columns * cell_width, channels)
    if padding:
        pixels = np.pad(pixels, ((0, padding), (0, padding), (0, 0)), constant_values=grey)
    image = Image.fromarray(pixels.squeeze(2) if channels == 1 else pixels)
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)


def png(image: Image.Image) -> bytes:
    """Encodes an image as PNG. The bytes depend only on the image and on the versions of Pillow and zlib."""
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_type=_RUN_LENGTHS)
    return stream.getvalue()


def npz(images: Images, labels: Labels) -> bytes:
    """Encodes images and labels as an .npz file.

    Args:
        images: uint8 (n, channels, height, width). The array `images` of the file has the layout of `npz_layout`.
        labels: int64 (n,), the array `labels` of the file. None leaves it out.
    """
    stream = io.BytesIO()
    if labels is None:
        np.savez(stream, images=npz_layout(images))
    else:
        np.savez(stream, images=npz_layout(images), labels=labels)
    return stream.getvalue()


def npz_layout(images: Images) -> NDArray[np.uint8]:
    """Returns a view of images uint8 (n, channels, height, width) as .npz files store them.

    Grey images have the shape (n, height, width), colour images (n, height, width, 3).
    """
    return images[:, 0] if images.shape[1] == 1 else images.transpose(0, 2, 3, 1)


def npy(images: Images) -> bytes:
    """Encodes images uint8 (n, channels, height, width) as an .npy file, in this layout."""
    stream = io.BytesIO()
    np.save(stream, images)
    return stream.getvalue()
