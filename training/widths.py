"""Widths of the networks if the user gives none: those of the preset, extended for large images."""

from models.networks import is_own
from models.networks.base import default_halvings, most_halvings
from training.config import Config
from training.presets import WIDTHS

PRESET_IMAGE_SHAPE = (1, 28, 28)
"""Shape of the images that the widths of the presets are for: channels, height, width."""
MAX_WIDTH = 512
"""Upper limit of the widths that doubling produces, in channels."""


def resolve_widths(config: Config, image_shape: tuple[int, int, int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns the widths of the generator and of the discriminator for images of this shape.

    Widths in `config` are kept; without them, a network of the user has none. Otherwise dcgan and residual networks get
    one more resolution than the preset for each doubling of the image size beyond 32 pixels. It is the coarsest one,
    with twice the channels of its neighbour, up to `MAX_WIDTH`. So the generator starts from at most 8 x 8 pixels at
    any image size, as it does for 28 x 28. A dcgan discriminator has fewer widths if the image is too
    small to be halved that often.

    Args:
        config: names the preset and the architectures.
        image_shape: channels, height, width.
    """
    generator, discriminator = WIDTHS[config.preset]
    added_resolutions = default_halvings(image_shape) - default_halvings(PRESET_IMAGE_SHAPE)
    for _ in range(added_resolutions):
        if config.generator != "mlp":
            generator = (_doubled(generator[0]), *generator)
        if config.discriminator != "mlp":
            discriminator = (*discriminator, _doubled(discriminator[-1]))
    if config.discriminator == "dcgan":
        discriminator = discriminator[: most_halvings(image_shape)]
    if is_own(config.generator):
        generator = ()
    if is_own(config.discriminator):
        discriminator = ()
    return config.generator_widths or generator, config.discriminator_widths or discriminator


def _doubled(width: int) -> int:
    return max(width, min(2 * width, MAX_WIDTH))
