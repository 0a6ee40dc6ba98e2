import pytest
import torch

from models.networks import Discriminator, Generator, NetworkConfig

IMAGE = (1, 28, 28)


def shapes(network: torch.nn.Module) -> list[tuple[int, ...]]:
    return [tuple(weight.shape) for weight in network.parameters()]


def test_the_textbook_networks_have_the_textbook_layers():
    generator = Generator(NetworkConfig(IMAGE, (256, 512), latent_dim=100))
    assert shapes(generator) == [(256, 100), (256,), (512, 256), (512,), (784, 512), (784,)]
    assert shapes(Discriminator(NetworkConfig(IMAGE, (512, 256)))) == [
        (512, 784),
        (512,),
        (256, 512),
        (256,),
        (1, 256),
        (1,),
    ]
    slopes = [layer.negative_slope for layer in generator.modules() if isinstance(layer, torch.nn.LeakyReLU)]
    assert slopes == [0.2, 0.2]


@pytest.mark.parametrize("classes", [0, 10])
@pytest.mark.parametrize("image_shape", [IMAGE, (3, 16, 20)])
def test_networks_take_their_shapes_from_the_config(image_shape, classes):
    latent = 100 * torch.randn(5, 12)
    label = torch.arange(5) if classes else None
    image = Generator(NetworkConfig(image_shape, (8,), classes, latent_dim=12))(latent, label)
    assert image.shape == (5, *image_shape)
    assert image.abs().max() <= 1
    assert Discriminator(NetworkConfig(image_shape, (8,), classes))(image, label).shape == (5,)


def test_a_class_conditional_network_heeds_the_label():
    generator = Generator(NetworkConfig(IMAGE, (8,), 10, latent_dim=4))
    images = generator(torch.zeros(2, 4), torch.tensor([3, 4]))
    assert not torch.equal(images[0], images[1])


@pytest.mark.parametrize(("classes", "label"), [(0, torch.zeros(2, dtype=torch.int64)), (10, None)])
def test_labels_go_with_a_class_conditional_network_only(classes, label):
    generator = Generator(NetworkConfig(IMAGE, (8,), classes, latent_dim=4))
    with pytest.raises(ValueError, match="labels"):
        generator(torch.zeros(2, 4), label)
