"""Data sets that are computed: UCI's digits, which come with scikit-learn, and stacked MNIST."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch.nn.functional import interpolate

from training.data.images import IMAGE_SIZE, DataError, Loaded, LoadOptions, Split
from training.data.resampling import fit

STACKED_IMAGES: dict[Split, int] = {"train": 128_000, "test": 26_000}


def stacked_mnist(request: LoadOptions, load_digits: Callable[[LoadOptions], Loaded]) -> Loaded:
    """Three random digits of MNIST as the channels of one image, 1,000 classes: measures how many a generator covers.

    Metz et al. (2017), "Unrolled generative adversarial networks"; sizes as in Lin et al. (2018), "PacGAN".
    """
    if request.channels not in (None, 3):
        raise DataError(f"stacked-mnist has 3 channels, got {request.channels}")
    digits = load_digits(replace(request, channels=None))
    n = STACKED_IMAGES[request.split]
    index = torch.randint(len(digits.images), (n, 3), generator=torch.Generator().manual_seed(0))
    class_names = [f"{number:03}" for number in range(1_000)]
    labels = digits.labels[index] @ torch.tensor([100, 10, 1])
    return Loaded(digits.images[index].squeeze(2), labels, class_names, digits.notes)


def uci_digits(request: LoadOptions) -> Loaded:
    """Optical recognition of handwritten digits (Alpaydin and Kaynak, 1998): 8x8 images in 17 levels of grey."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(digits.images).unsqueeze(1) * (255 / 16)
    images = interpolate(images, size=(IMAGE_SIZE, IMAGE_SIZE), mode="bicubic").round().clamp(0, 255).to(torch.uint8)
    fitted, notes = fit(images, request)
    return Loaded(fitted, torch.from_numpy(digits.target), [str(digit) for digit in range(10)], notes)
