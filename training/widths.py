"""Widths of the networks where the user gives none: the preset's, with further stages for larger images."""

from models.networks.base import default_halvings
from training.config import WIDTHS, Config

PRESET_IMAGE_SHAPE = (1, 28, 28)
MAX_WIDTH = 512


def resolve_widths(config: Config, image_shape: tuple[int, int, int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Widths of the generator and of the discriminator for images of this shape.

    Each stage that is added is the coarsest one, and twice as wide as the one next to it, up to `MAX_WIDTH`. So the
    generator starts from 8 x 8 pixels or fewer at any size, as it does at 28 x 28.
    """
    generator, discriminator = WIDTHS[config.preset]
    stages = default_halvings(image_shape) - default_halvings(PRESET_IMAGE_SHAPE)
    if config.generator != "mlp":
        for _ in range(stages):
            generator = (_doubled(generator[0]), *generator)
    if config.discriminator != "mlp":
        for _ in range(stages):
            discriminator = (*discriminator, _doubled(discriminator[-1]))
    return config.generator_widths or generator, config.discriminator_widths or discriminator


def _doubled(width: int) -> int:
    return max(width, min(2 * width, MAX_WIDTH))
