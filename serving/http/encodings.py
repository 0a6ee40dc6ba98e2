"""The forms that a response can have. Each knows how to encode images, and how many bytes of pixels it will hold."""

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
    """One form of response."""

    @property
    def media_type(self) -> str: ...

    def encode(self, images: Images, labels: Labels) -> bytes:
        """Makes the body from images uint8 (n, channels, height, width) and labels int64 (n,) or None."""

    def pixel_bytes(self, n: int, shape: Shape) -> int:
        """Returns how many bytes n images of this shape take in the body before it is compressed."""


@dataclass(frozen=True)
class PngGrid:
    """A PNG of images in rows. None for `columns` makes it as square as possible; each pixel becomes scale x scale."""

    columns: int | None
    scale: int
    media_type: str = PNG

    def encode(self, images: Images, labels: Labels) -> bytes:
        return png(grid(images, self.columns, self.scale))

    def pixel_bytes(self, n: int, shape: Shape) -> int:
        columns = min(n, self.columns or math.ceil(math.sqrt(n)))
        return -(-n // columns) * columns * math.prod(shape) * self.scale**2


@dataclass(frozen=True)
class Animation:
    """An endless animation, forward and back."""

    format: Literal["gif", "webp"]
    scale: int

    @property
    def media_type(self) -> str:
        return f"image/{self.format}"

    def encode(self, images: Images, labels: Labels) -> bytes:
        return animation(images, self.scale, self.format)

    def pixel_bytes(self, n: int, shape: Shape) -> int:
        return (2 * n - 2) * math.prod(shape) * self.scale**2


@dataclass(frozen=True)
class Fade:
    """Two sequences of n images each, faded from the first into the second, in the form of `faded`."""

    faded: Encoding

    @property
    def media_type(self) -> str:
        return self.faded.media_type

    def encode(self, images: Images, labels: Labels) -> bytes:
        n = len(images) // 2
        return self.faded.encode(crossfade(images[:n], images[n:]), None)

    def pixel_bytes(self, n: int, shape: Shape) -> int:
        return self.faded.pixel_bytes(n // 2, shape)


@dataclass(frozen=True)
class Npz:
    """Images and labels as a NumPy .npz file."""

    media_type: str = NPZ

    def encode(self, images: Images, labels: Labels) -> bytes:
        return npz(images, labels)

    def pixel_bytes(self, n: int, shape: Shape) -> int:
        return n * math.prod(shape)


@dataclass(frozen=True)
class Npy:
    """Images as a NumPy .npy file."""

    media_type: str = NPY

    def encode(self, images: Images, labels: Labels) -> bytes:
        return npy(images)

    def pixel_bytes(self, n: int, shape: Shape) -> int:
        return n * math.prod(shape)
