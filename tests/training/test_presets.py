from dataclasses import fields, replace

import pytest
import torch

from models.networks import NetworkConfig, build_discriminator, build_generator
from training.config import Config
from training.presets import PRESETS, WIDTHS
from training.widths import resolve_widths


def preset_config(preset: str) -> Config:
    return Config(preset=preset, **PRESETS[preset])


def test_the_mlp_preset_is_the_textbook_gan():
    config = preset_config("mlp")
    assert (config.latent_dim, resolve_widths(config, (1, 28, 28))) == (100, ((256, 512), (512, 256)))
    assert (config.lr, config.batch_size, config.epochs, config.loss) == (2e-4, 64, 50, "non-saturating")
    assert config.conditional is False


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_differ_from_the_defaults_in_options_that_exist(preset):
    assert set(PRESETS[preset]) <= {field.name for field in fields(Config)}


@pytest.mark.parametrize("preset", PRESETS)
def test_widths_of_a_preset_are_kept_up_to_32_pixels_and_extended_beyond(preset):
    config, widths = preset_config(preset), WIDTHS[preset]
    for size in (16, 28, 32) if preset == "fast" else (8, 16, 28, 32):
        assert resolve_widths(config, (1, size, size)) == widths
    generator, discriminator = resolve_widths(config, (3, 128, 128))
    if preset == "mlp":
        assert (generator, discriminator) == widths
    else:
        coarsest = widths[0][0], widths[1][-1]
        assert generator == (4 * coarsest[0], 2 * coarsest[0], *widths[0])
        assert discriminator == (*widths[1], 2 * coarsest[1], 4 * coarsest[1])


@pytest.mark.parametrize("preset", ["dcgan", "r3gan", "fast"])
@pytest.mark.parametrize("size", [28, 33, 64, 100, 128, 256])
def test_convolutional_generators_start_from_at_most_8_pixels_at_any_size(preset, size):
    config = replace(preset_config(preset), device="cpu")
    generator, discriminator = resolve_widths(config, (1, size, size))
    assert max(generator) <= 512
    label = torch.zeros(1, dtype=torch.int64) if config.conditional else None
    shape, classes = (1, size, size), 2 * config.conditional
    with torch.device("meta"):
        build_discriminator(NetworkConfig(config.discriminator, shape, discriminator, classes))
    network = build_generator(NetworkConfig(config.generator, shape, generator, classes, config.latent_dim))
    sizes = []
    network.input.register_forward_hook(lambda module, inputs, output: sizes.append(output.shape[-1]))
    assert network.eval()(torch.zeros(1, config.latent_dim), label).shape == (1, *shape)
    assert 4 <= sizes[0] <= 8


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(("width", "height"), [(8, 8), (96, 32), (32, 96), (256, 8), (9, 250), (100, 37), (256, 256)])
def test_the_networks_of_each_preset_fit_images_of_any_proportions(preset, width, height):
    """Uses as many stages as the preset, with fewer channels."""
    config, shape, classes = preset_config(preset), (3, height, width), 2 * preset_config(preset).conditional
    generator_widths, discriminator_widths = ((4,) * len(widths) for widths in resolve_widths(config, shape))
    label = torch.zeros(2, dtype=torch.int64) if classes else None
    generator = build_generator(NetworkConfig(config.generator, shape, generator_widths, classes, config.latent_dim))
    discriminator = build_discriminator(NetworkConfig(config.discriminator, shape, discriminator_widths, classes))
    images = generator(torch.zeros(2, config.latent_dim), label)
    assert images.shape == (2, *shape)
    assert discriminator(images, label).shape == (2,)


def test_the_discriminator_of_fast_has_one_convolution_fewer_if_a_side_is_below_16_pixels():
    config = preset_config("fast")
    assert resolve_widths(config, (1, 8, 8)) == resolve_widths(config, (1, 15, 32)) == ((64, 32), (32, 64))


def test_widths_that_the_user_gives_are_kept_at_any_size():
    config = replace(preset_config("fast"), generator_widths=(64, 32))
    assert resolve_widths(config, (1, 128, 128)) == ((64, 32), (32, 64, 128, 256, 512))
