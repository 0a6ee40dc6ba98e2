"""Differentiable augmentation of all images that the discriminator sees, against overfitting on few training images.

Real and generated images are changed in the same random ways before they enter the discriminator, in its own update and
in that of the generator. So the discriminator cannot memorize single training images, and the generator still learns
the distribution of the original images.

The functions are pure: images and uniform random numbers in, images out. They run in float32, outside autocast, and
never synchronize with the device. Pixels that a change moves in from outside of the image are 0, a medium grey, so that
the discriminator can see the change and the generator has no reason to imitate it. Colours change only in images with
three channels.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

FEW_IMAGES = 5_000
"""`--augment auto` augments a folder with fewer images than this."""
TARGET_OVERFITTING = 0.6
"""Value of the overfitting statistic that `ada` aims at (Karras et al., 2020, section 3.1)."""
ADAPTATION_IMAGES = 100_000
"""Number of images over which `ada` would raise the probability from 0 to 1 if it rose at every step. The paper takes
500,000 for runs of 25 million images."""
MAX_PROBABILITY = 0.8
"""Upper limit of the probability of `ada`. Above it, changes can appear in generated images (section 2.2)."""


@dataclass(frozen=True)
class Augmentation:
    """A way to augment images."""

    function: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    """(images, uniform, probability) -> images. Images: float32 (n, channels, height, width) in [-1, 1]; the result may
    exceed that range. Uniform: random numbers in [0, 1), float32 (n, draws). Probability: float32 scalar, or None if
    the augmentation is not adaptive."""
    draws: int
    """Number of random numbers for each image."""
    adaptive: bool = False
    """Whether each change happens with a probability that depends on the overfitting of the discriminator."""


def diff_augment(images: Tensor, uniform: Tensor, probability: Tensor | None = None) -> Tensor:
    """Changes colours, moves each image by up to an eighth of its size, and covers a rectangle of half its size.

    Zhao et al. (2020), "Differentiable augmentation for data-efficient GAN training", section 3.2, with the policy
    "color, translation, cutout". Colours: brightness, saturation and contrast.

    Args:
        images: float32 (n, channels, height, width).
        uniform: random numbers in [0, 1), (n, 7).
        probability: not used; every image is changed.
    """
    brightness, saturation, contrast, *geometry = uniform.unbind(1)
    if images.shape[1] == 3:
        images = images + _per_image(brightness - 0.5)
        images = _scale_around(images.mean(1, keepdim=True), images, 2 * saturation)
        images = _scale_around(images.mean((1, 2, 3), keepdim=True), images, contrast + 0.5)
    shift_x, shift_y, hole_x, hole_y = geometry
    height, width = images.shape[2:]
    matrix = _identity(images)
    matrix[:, 0, 2] = _integer(shift_x, -round(width / 8), round(width / 8))
    matrix[:, 1, 2] = _integer(shift_y, -round(height / 8), round(height / 8))
    hole = _in_hole(hole_y, height).unsqueeze(2) & _in_hole(hole_x, width).unsqueeze(1)
    return warp(images, matrix) * ~hole.unsqueeze(1)


def ada_augment(images: Tensor, uniform: Tensor, probability: Tensor | None) -> Tensor:
    """Makes each of several changes with the given probability: geometry first, then colours.

    Karras et al. (2020), "Training generative adversarial networks with limited data", appendix B, with the
    distributions of its pipeline "bgc". Differences: there is one rotation by any angle instead of three, translations
    are not rounded to pixels, and images are sampled bilinearly.

    Args:
        images: float32 (n, channels, height, width).
        uniform: random numbers in [0, 1), (n, 19).
        probability: of each change, float32 scalar in [0, 1]; must not be None.
    """
    assert probability is not None
    columns = iter(uniform.unbind(1))

    def chosen() -> Tensor:
        """Draws which images a change applies to: bool (n,)."""
        return next(columns) < probability

    def optional(value: Tensor, neutral: float) -> Tensor:
        """Replaces the value by the neutral one in the images that a change does not apply to."""
        return torch.where(chosen(), value, neutral)

    def normal() -> Tensor:
        """Draws standard normal values, (n,)."""
        return math.sqrt(2) * torch.erfinv((2 * next(columns) - 1).clamp(-1 + 1e-6, 1 - 1e-6))

    height, width = images.shape[2:]
    # Each geometric change maps coordinates of the result to those of the image, in pixels from the centre.
    mirror = torch.where(next(columns) < probability / 2, -1.0, 1.0)
    size, stretch = optional(2 ** (0.2 * normal()), 1), optional(2 ** (0.2 * normal()), 1)
    angle = optional(2 * math.pi * next(columns), 0)
    moved = chosen() / 8
    cos, sin = angle.cos(), angle.sin()
    zoom_x, zoom_y = mirror * size * stretch, size / stretch
    rows = (
        zoom_x * cos,
        -zoom_x * sin,
        moved * normal() * width,
        zoom_y * sin,
        zoom_y * cos,
        moved * normal() * height,
    )
    images = warp(images, torch.stack(rows, 1).view(-1, 2, 3))
    if images.shape[1] != 3:
        return images

    images = images + _per_image(optional(0.2 * normal(), 0))
    images = images * _per_image(optional(2 ** (0.5 * normal()), 1))
    grey = images.mean(1, keepdim=True)
    colour = _rotate_hue(images - grey, optional(2 * math.pi * next(columns), 0))
    colour = colour * _per_image(optional(2 ** normal(), 1))
    return grey * _per_image(torch.where(next(columns) < probability / 2, -1.0, 1.0)) + colour


AUGMENTATIONS: dict[str, Augmentation] = {
    "diff": Augmentation(diff_augment, draws=7),
    "ada": Augmentation(ada_augment, draws=19, adaptive=True),
}
"""Augmentations by the name that `train --augment` takes."""


def warp(images: Tensor, matrix: Tensor) -> Tensor:
    """Samples images bilinearly at transformed coordinates; pixels outside of an image are 0.

    It is written with `gather`, whose gradient is deterministic on a GPU on request, unlike that of `grid_sample`.

    Args:
        images: (n, channels, height, width).
        matrix: (n, 2, 3), maps (x, y, 1) of a pixel of the result to the (x, y) that is sampled, both in pixels from
            the centre of the image.

    Returns:
        images of the same shape.
    """
    channels, height, width = images.shape[1:]
    centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
    x = torch.arange(width, device=images.device) - centre_x
    y = torch.arange(height, device=images.device).unsqueeze(1) - centre_y
    by_x, by_y, shift = matrix[:, :, :, None, None].unbind(2)  # (n, 2, 1, 1)
    source_x, source_y = (by_x * x + by_y * y + shift).flatten(2).unbind(1)  # (n, height * width)
    source_x, source_y = source_x + centre_x, source_y + centre_y
    left, top = source_x.floor(), source_y.floor()
    pixels, result = images.flatten(2), torch.zeros((), device=images.device)
    for column, row in itertools.product((left, left + 1), (top, top + 1)):
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        weight = (1 - (source_x - column).abs()) * (1 - (source_y - row).abs()) * inside
        index = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).long()
        result = result + pixels.gather(2, index.unsqueeze(1).expand(-1, channels, -1)) * weight.unsqueeze(1)
    return result.view_as(images)


@torch.no_grad()
def overfitting(real_logits: Tensor, fake_logits: Tensor, only_differences: bool) -> Tensor:
    """Measures how far the discriminator has learned the training images by heart: near 0 not at all, 1 completely.

        r = E[sign(D(x))]

    Karras et al. (2020), equation 1. If only differences of logits count, r = E[sign(D(x) - D(G(z)))].

    Args:
        real_logits, fake_logits: (n,), of the augmented images.
        only_differences: `Loss.only_differences`.

    Returns:
        float32 scalar in [-1, 1].
    """
    positive = real_logits > (fake_logits if only_differences else 0)  # False for NaN, so that the result is finite
    return 2 * positive.float().mean() - 1


@torch.no_grad()
def adapt(probability: Tensor, measured: Tensor, images: int) -> None:
    """Moves the probability of `ada` up if the discriminator overfits more than the target, otherwise down, in place.

    Args:
        probability: float32 scalar.
        measured: the overfitting statistic of this step.
        images: number of real images in this step.
    """
    probability.add_((measured - TARGET_OVERFITTING).sign() * (images / ADAPTATION_IMAGES)).clamp_(0, MAX_PROBABILITY)


def _per_image(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def _scale_around(centre: Tensor, images: Tensor, factor: Tensor) -> Tensor:
    return centre + (images - centre) * _per_image(factor)


def _identity(images: Tensor) -> Tensor:
    return torch.eye(2, 3, device=images.device).repeat(len(images), 1, 1)


def _integer(uniform: Tensor, lowest: int, highest: int) -> Tensor:
    """Maps [0, 1) to the integers from `lowest` to `highest`, with equal probabilities."""
    return (uniform * (highest - lowest + 1)).floor() + lowest


def _in_hole(uniform: Tensor, size: int) -> Tensor:
    """Returns which pixels of a side are in an interval of half its length, whose centre is a random pixel.

    Returns:
        bool (n, size).
    """
    start = _integer(uniform, -(size // 4), size - 1 - size // 4).unsqueeze(1)
    position = torch.arange(size, device=uniform.device)
    return (position >= start) & (position < start + round(size / 2))


def _rotate_hue(colour: Tensor, angle: Tensor) -> Tensor:
    """Rotates colours around the axis of greys, by Rodrigues' formula.

    Args:
        colour: RGB images minus their mean over the channels, (n, 3, height, width).
        angle: in radians, (n,).
    """
    red, green, blue = colour.unbind(1)
    across = torch.stack((green - blue, blue - red, red - green), 1) / -math.sqrt(3)
    return colour * _per_image(angle.cos()) + across * _per_image(angle.sin())
