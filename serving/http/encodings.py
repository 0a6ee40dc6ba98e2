"""Encodings of images for responses: PNG grid, animation, .npz and .npy.

A new encoding is a class that implements `Encoding`. If its encoding time per byte is known, add it to
`SECONDS_PER_BYTE` in rendering.py; otherwise it runs in a thread.
"""

import math
from dataclasses import dataclass
from typing import Literal, Protocol

from models.common.array_types import Images
from models.common.image_files import grid, npy, npz, png
from serving.http.animations import animation, crossfade
from serving.http.engine import Labels

PNG, NPZ, NPY = "image/png", "application/x-npz", "application/x-npy"
"""Media types."""

Shape = tuple[int, int, int]
"""Channels, height and width of one image."""


class Encoding(Protocol):
    """Encodes images and labels as a response body, and reports its media type and its size before compression."""

    @property
    def media_type(self) -> str:
        """Media type of the body, for the header Content-Type."""

    def encode(self, images: Images, labels: Labels) -> bytes:
        """Encodes images uint8 (n, channels, height, width) and labels int64 (n,) or None."""

    def pixel_bytes(self, n: int, shape: Shape) -> int:
        """Returns the number of pixel bytes in the body, before compression, for n images of a shape."""


@dataclass(frozen=True)
class PngGrid:
    """One PNG of all images in a grid, row by row."""

    columns: int | None
    """Number of images in a row; None makes the grid nearly square."""
    scale: int
    """Width and height of the square that each pixel becomes."""
    media_type: str = PNG

    def encode(self, images: Images, labels: Labels) -> bytes:
        return png(grid(images, self.columns, self.scale))

    def pixel_bytes(self, n: int, shape: Shape) -> int:
        columns = min(n, self.columns or math.ceil(math.sqrt(n)))
        return -(-n // columns) * columns * math.prod(shape) * self.scale**2


@dataclass(frozen=True)
class Animation:
    """Looping animation that plays forward and backward."""

    format: Literal["gif", "webp"]
    scale: int
    """Width and height of the square that each pixel becomes."""

    @property
    def media_type(self) -> str:
        return f"image/{self.format}"

    def encode(self, images: Images, labels: Labels) -> bytes:
        return animation(images, self.scale, self.format)

    def pixel_bytes(self, n: int, shape: Shape) -> int:
        return (2 * n - 2) * math.prod(shape) * self.scale**2


@dataclass(frozen=True)
class CrossFade:
    """Cross-fades the first half of the images into the second half, frame by frame, and encodes the frames."""

    frames: Encoding
    """Encoding of the frames."""

    @property
    def media_type(self) -> str:
        return self.frames.media_type

    def encode(self, images: Images, labels: Labels) -> bytes:
        n = len(images) // 2
        return self.frames.encode(crossfade(images[:n], images[n:]), None)

    def pixel_bytes(self, n: int, shape: Shape) -> int:
        return self.frames.pixel_bytes(n // 2, shape)


@dataclass(frozen=True)
class Npz:
    """NumPy .npz file of the images and labels."""

    media_type: str = NPZ

    def encode(self, images: Images, labels: Labels) -> bytes:
        return npz(images, labels)

    def pixel_bytes(self, n: int, shape: Shape) -> int:
        return n * math.prod(shape)


@dataclass(frozen=True)
class Npy:
    """NumPy .npy file of the images."""

    media_type: str = NPY

    def encode(self, images: Images, labels: Labels) -> bytes:
        return npy(images)

    def pixel_bytes(self, n: int, shape: Shape) -> int:
        return n * math.prod(shape)
