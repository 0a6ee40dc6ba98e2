"""Fits grey images to the size and the channels that were requested."""

from torch import Tensor
from torch.nn.functional import interpolate

from training.data.images import LoadOptions


def fit(images: Tensor, request: LoadOptions) -> tuple[Tensor, tuple[str, ...]]:
    """Resamples uint8 (n, 1, height, width) and repeats the channel; None in the request leaves them as they are.

    Returns:
        The images, and a line about each alteration.
    """
    notes: tuple[str, ...] = ()
    size, (height, width) = request.image_size, images.shape[2:]
    if size is not None and (height, width) != (size, size):
        # On uint8 this is Pillow's arithmetic, without a float copy of the whole data set.
        images = interpolate(images, size=(size, size), mode="bicubic", antialias=True)
        notes = (f"all images were resampled from {width} x {height} to {size} x {size} pixels",)
    return images.expand(-1, request.channels or -1, -1, -1).contiguous(), notes
