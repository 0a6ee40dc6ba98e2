"""One picture of a row of images, enlarged by a whole factor and, if a size is given, centred on a black background."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

from PIL import Image

from models.common.array_types import Images
from models.common.image_files import grid, png
from serving.http.encodings import Shape
from serving.http.engine import Labels
from serving.http.errors import RequestError

Format = Literal["png", "webp", "jpeg"]

MIN_SIDE, MAX_SIDE = 16, 2_048
"""Minimum and maximum width and height of a picture whose size is given, in pixels."""
SIZE_PATTERN = r"^[0-9]{2,4}x[0-9]{2,4}$"
"""Form of a size: width and height in pixels, such as 256x128."""
LOSSLESS = 100
"""Quality at which WebP files are lossless."""


@dataclass(frozen=True)
class Picture:
    """Encodes a row of images as one picture."""

    format: Format
    scale: int
    """Width and height of the square that each pixel becomes."""
    size: tuple[int, int] | None = None
    """Width and height of the picture; None makes it as large as the row."""
    quality: int = LOSSLESS
    """Quality of a JPEG or WebP file from 0 to 100."""

    @property
    def media_type(self) -> str:
        return f"image/{self.format}"

    def encode(self, images: Images, labels: Labels) -> bytes:
        row = grid(images, len(images), self.scale)
        if self.size:
            picture = Image.new(row.mode, self.size)
            picture.paste(row, ((self.size[0] - row.width) // 2, (self.size[1] - row.height) // 2))
            row = picture
        if self.format == "png":
            return png(row)
        stream = io.BytesIO()
        if self.format == "webp":
            row.save(stream, "WEBP", lossless=self.quality == LOSSLESS, quality=self.quality)
        else:
            row.save(stream, "JPEG", quality=max(1, self.quality))  # Pillow takes 0 for its default
        return stream.getvalue()

    def pixel_bytes(self, n: int, shape: Shape) -> int:
        return shape[0] * prod(self.size) if self.size else n * prod(shape) * self.scale**2


def read_size(text: str, field: str = "size") -> tuple[int, int]:
    """Reads a text that matches SIZE_PATTERN.

    Raises:
        RequestError: 400 if a side is too short or too long.
    """
    width, height = map(int, text.split("x"))
    if not (MIN_SIDE <= width <= MAX_SIDE and MIN_SIDE <= height <= MAX_SIDE):
        raise RequestError(400, f"Sides should have {MIN_SIDE} to {MAX_SIDE:,} pixels, got {text}", field)
    return width, height


def picture_of_size(format: Format, n: int, shape: Sequence[int], size: tuple[int, int], **options: int) -> Picture:
    """Returns the encoding of n images in a row as a picture of a size, with the largest scale that fits.

    Args:
        format: format of the file.
        n: number of images.
        shape: channels, height and width of one image.
        size: width and height of the picture.
        options: other arguments of `Picture`.

    Raises:
        RequestError: 400 if the row does not fit. The message has the smallest size that does.
    """
    _, height, width = shape
    scale = min(size[0] // (n * width), size[1] // height)
    if not scale:
        smallest = f"{max(MIN_SIDE, n * width)}x{max(MIN_SIDE, height)}"
        message = f"{n} images in a row do not fit into {size[0]}x{size[1]} pixels; the smallest size is {smallest}"
        if n * width > MAX_SIDE or height > MAX_SIDE:
            message = (
                f"{n} images in a row have {n * width:,} x {height:,} pixels; a picture has at most {MAX_SIDE:,} on "
                "each side. Write a shorter text"
            )
        raise RequestError(400, message, "size")
    return Picture(format, scale, size, **options)
