"""Resamples grey images, and repeats their channel."""

from torch import Tensor
from torch.nn.functional import interpolate

from training.data.labelled_images import LoadOptions


def resample(images: Tensor, options: LoadOptions) -> tuple[Tensor, tuple[str, ...]]:
    """Converts grey images to the size and the number of channels that the options request.

    The aspect ratio is not kept.

    Args:
        images: uint8 (n, 1, height, width).
        options: `image_size` and `channels`; None keeps what the images have.

    Returns:
        images: uint8 (n, channels, size, size).
        notes: a tuple with one note for the user if the size changed, otherwise empty.
    """
    notes: tuple[str, ...] = ()
    size, (height, width) = options.image_size, images.shape[2:]
    if size is not None and (height, width) != (size, size):
        # On uint8 this is Pillow's arithmetic, without a float copy of the whole data set.
        images = interpolate(images, size=(size, size), mode="bicubic", antialias=True)
        notes = (f"all images were resampled from {width} x {height} to {size} x {size} pixels",)
    return images.expand(-1, options.channels or -1, -1, -1).contiguous(), notes
