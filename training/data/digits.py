"""Data sets that are computed instead of downloaded: UCI's digits, which scikit-learn contains, and stacked MNIST."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch.nn.functional import interpolate, pad

from training.data.labelled_images import IMAGE_SIZE, DataError, Loaded, LoadOptions, Split

STACKED_IMAGES: dict[Split, int] = {"train": 128_000, "test": 26_000}
"""Number of images of each split of stacked MNIST, as in Lin et al. (2018), "PacGAN"."""


def stacked_mnist(options: LoadOptions, load_mnist: Callable[[LoadOptions], Loaded]) -> Loaded:
    """Stacks three random digits of MNIST as the channels of one image.

    The class is the number that the three digits form, so there are 1,000 classes; how many of them a generator
    produces measures its variety. Metz et al. (2017), "Unrolled generative adversarial networks". The choice of digits
    does not depend on a seed: each split has the same images every time.

    Args:
        options: `channels` must be None or 3.
        load_mnist: loader of MNIST, which gets the other options.

    Raises:
        DataError: another number of channels is requested, or MNIST cannot be loaded.
    """
    if options.channels not in (None, 3):
        raise DataError(f"stacked-mnist has 3 channels, got --channels {options.channels}; leave the option out")
    digits = load_mnist(replace(options, channels=None))
    n = STACKED_IMAGES[options.split]
    index = torch.randint(len(digits.images), (n, 3), generator=torch.Generator().manual_seed(0))
    class_names = [f"{number:03}" for number in range(1_000)]
    labels = digits.labels[index] @ torch.tensor([100, 10, 1])
    return Loaded(digits.images[index].squeeze(2), labels, class_names, digits.notes)


def uci_digits(options: LoadOptions) -> Loaded:
    """Loads 1,797 handwritten digits of 8 x 8 pixels with 17 levels of grey, enlarged to `image_size` or 28 pixels.

    The originals fill their frames. An enlarged digit gets a margin on each side: a seventh of the frame, as in MNIST,
    or as much as leaves 8 pixels for the digit. So images of 8 x 8 pixels are the originals.

    Alpaydin and Kaynak (1998), "Optical recognition of handwritten digits". scikit-learn contains them.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(digits.images).unsqueeze(1) * (255 / 16)
    width, height = options.image_size or (IMAGE_SIZE, IMAGE_SIZE)
    x, y = (min(round(side / 7), (side - images.shape[-1]) // 2) for side in (width, height))
    images = interpolate(images, size=(height - 2 * y, width - 2 * x), mode="bicubic")
    images = images.round().clamp(0, 255).to(torch.uint8)
    images = pad(images, (x, x, y, y)).expand(-1, options.channels or 1, -1, -1).contiguous()
    return Loaded(images, torch.from_numpy(digits.target), [str(digit) for digit in range(10)])
