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
        images: uint8 (n, channels, height, width), in the new size.
        notes: a tuple with one note for the user if the size changed, otherwise empty.
    """
    notes: tuple[str, ...] = ()
    height, width = images.shape[2:]
    new_width, new_height = options.image_size or (width, height)
    if (new_width, new_height) != (width, height):
        # On uint8 this is Pillow's arithmetic, without a float copy of the whole data set.
        images = interpolate(images, size=(new_height, new_width), mode="bicubic", antialias=True)
        notes = (f"all images were resampled from {width} x {height} to {new_width} x {new_height} pixels",)
    return images.expand(-1, options.channels or -1, -1, -1).contiguous(), notes
