"""Grids of images, for the samples of a run and for evaluation reports.

`torchvision.utils.make_grid` does the same, but importing torchvision takes seconds at each start of a command.
"""

import io

import numpy as np
from PIL import Image
from torch import Tensor


def grid(images: Tensor, columns: int, padding: int, grey: int = 0) -> Image.Image:
    """Arranges images in rows, from left to right, in an RGB image.

    Args:
        images: uint8 (n, channels, height, width), with 1 channel or 3, on any device.
        columns: Number of images in each row.
        padding: Width in pixels of the lines between and around the images.
        grey: Level of grey of the lines, 0 to 255.
    """
    n, channels, height, width = images.shape
    rows = -(-n // columns)
    pixels = np.full(
        (rows * (height + padding) + padding, columns * (width + padding) + padding, channels), grey, np.uint8
    )
    for index, image in enumerate(images.permute(0, 2, 3, 1).cpu().numpy()):
        row, column = divmod(index, columns)
        top, left = padding + row * (height + padding), padding + column * (width + padding)
        pixels[top : top + height, left : left + width] = image
    return Image.fromarray(pixels.squeeze(2) if channels == 1 else pixels).convert("RGB")


def png(image: Image.Image) -> bytes:
    """Encodes an image."""
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()
