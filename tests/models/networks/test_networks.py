import warnings
from dataclasses import replace

import numpy as np
import onnx_ir
import pytest
import torch
from torch import Tensor, nn

from models.networks import (
    DISCRIMINATORS,
    GENERATORS,
    Network,
    NetworkConfig,
    build_discriminator,
    build_generator,
    parameter_count,
)
from models.networks.residual import Block
from models.onnx_file.session import open_session

IMAGE = (1, 28, 28)
SHAPES = [IMAGE, (3, 32, 32), (3, 20, 36), (1, 27, 27)]
LATENT_DIM = 12
WIDTHS = {"mlp": (16, 32), "dcgan": (16, 8), "residual": (16, 8, 8)}
"""Widths of a generator for each architecture; the discriminator gets them in reverse order."""

architectures = pytest.mark.parametrize("architecture", WIDTHS)


def make_generator(architecture: str, image_shape: tuple[int, int, int] = IMAGE, classes: int = 0) -> Network:
    torch.manual_seed(0)
    return build_generator(NetworkConfig(architecture, image_shape, WIDTHS[architecture], classes, LATENT_DIM))


def make_discriminator(architecture: str, image_shape: tuple[int, int, int] = IMAGE, classes: int = 0) -> Network:
    torch.manual_seed(0)
    return build_discriminator(NetworkConfig(architecture, image_shape, WIDTHS[architecture][::-1], classes))


def as_if_trained(network: Network, *inputs: Tensor) -> Network:
    """Changes every weight, so that none is zero, and gives batch norms statistics of some inputs."""
    for parameter in network.parameters():
        parameter.data += 0.5 * torch.randn_like(parameter) / parameter[0].numel() ** 0.5
    network.train()(*inputs)
    return network.eval()


def test_every_architecture_has_a_generator_and_a_discriminator():
    assert list(GENERATORS) == list(DISCRIMINATORS) == list(WIDTHS)


@architectures
@pytest.mark.parametrize("image_shape", SHAPES)
@pytest.mark.parametrize("classes", [0, 10])
def test_networks_take_their_shapes_from_the_config(architecture, image_shape, classes):
    label = torch.arange(5) if classes else None
    image = make_generator(architecture, image_shape, classes)(100 * torch.randn(5, LATENT_DIM), label)
    assert image.shape == (5, *image_shape)
    assert image.abs().max() <= 1
    assert make_discriminator(architecture, image_shape, classes)(image, label).shape == (5,)


@architectures
def test_a_network_can_be_rebuilt_from_its_config_and_its_weights(architecture):
    network = make_generator(architecture, classes=10)
    latent, label = torch.randn(3, LATENT_DIM), torch.arange(3)
    as_if_trained(network, latent, label)
    rebuilt = build_generator(network.config)
    rebuilt.load_state_dict(network.state_dict())
    assert torch.equal(rebuilt.eval()(latent, label), network(latent, label))


@architectures
def test_the_output_of_a_class_conditional_network_depends_on_the_label(architecture):
    labels = torch.tensor([3, 4])
    images = make_generator(architecture, classes=10).eval()(torch.zeros(2, LATENT_DIM), labels)
    assert not torch.equal(images[0], images[1])
    logits = make_discriminator(architecture, classes=10).eval()(torch.ones(2, *IMAGE), labels)
    assert logits[0] != logits[1]


@architectures
@pytest.mark.parametrize(
    ("classes", "label", "message"),
    [(0, torch.zeros(2, dtype=torch.int64), "without labels"), (10, None, "call it with labels")],
)
def test_labels_are_required_with_classes_and_rejected_without(architecture, classes, label, message):
    with pytest.raises(ValueError, match=message):
        make_generator(architecture, classes=classes)(torch.zeros(2, LATENT_DIM), label)
    with pytest.raises(ValueError, match=message):
        make_discriminator(architecture, classes=classes)(torch.zeros(2, *IMAGE), label)


@pytest.mark.parametrize("build", [build_generator, build_discriminator])
@pytest.mark.parametrize(
    ("difference", "message"),
    [
        ({"architecture": "transformer"}, "architecture 'transformer': choose one of mlp, dcgan, residual"),
        ({"architecture": "dcgan", "widths": (8,) * 4}, r"28\) 4 times: give dcgan at most 3 widths"),
        ({"architecture": "residual", "widths": (8,) * 5}, r"28\) 4 times: give residual at most 4 widths"),
        ({"architecture": "dcgan", "image_shape": (1, 3, 28)}, r"\(1, 3, 28\), but dcgan needs sides of at least 4$"),
        (
            {"architecture": "residual", "image_shape": (1, 28, 2)},
            r"\(1, 28, 2\), but residual needs sides of at least 4$",
        ),
        ({"image_shape": (1, 0, 28)}, r"\(1, 0, 28\): give channels, height and width"),
        ({"image_shape": (28, 28)}, r"\(28, 28\): give channels, height and width"),
        ({"widths": ()}, r"\(\): give at least one"),
        ({"widths": (8, 0)}, r"\(8, 0\): give at least one, each at least 1"),
        ({"classes": -1}, "classes is -1: give their number"),
        ({"latent_dim": -1}, "latent_dim is -1: give at least 1"),
    ],
)
def test_an_invalid_config_is_rejected_with_a_message_that_says_what_is_valid(build, difference, message):
    with pytest.raises(ValueError, match=message):
        build(replace(NetworkConfig("mlp", IMAGE, (8, 8), latent_dim=4), **difference))


def test_a_generator_needs_a_latent_dim():
    with pytest.raises(ValueError, match="latent_dim is 0, but a generator needs at least 1"):
        build_generator(NetworkConfig("mlp", IMAGE, (8,)))


@pytest.mark.parametrize(
    ("architecture", "image_shape", "most"),
    [("dcgan", IMAGE, 3), ("residual", IMAGE, 4), ("dcgan", (1, 4, 4), 1), ("residual", (1, 7, 4), 2)],
)
def test_the_largest_number_of_widths_that_the_message_names_works(architecture, image_shape, most):
    config = NetworkConfig(architecture, image_shape, (8,) * most, latent_dim=4)
    image = build_generator(config)(torch.randn(2, 4))
    assert image.shape == (2, *image_shape)
    assert build_discriminator(config)(image).shape == (2,)


@architectures
@pytest.mark.parametrize("classes", [0, 10])
def test_gradient_penalties_give_every_weight_a_finite_gradient(architecture, classes):
    label = torch.arange(4) if classes else None
    generator = make_generator(architecture, (1, 27, 27), classes)
    discriminator = make_discriminator(architecture, (1, 27, 27), classes)
    for network, inputs in ((generator, torch.randn(4, LATENT_DIM)), (discriminator, torch.randn(4, 1, 27, 27))):
        inputs.requires_grad_()
        outputs = network(inputs, label)
        (gradient,) = torch.autograd.grad(outputs.square().sum(), inputs, create_graph=True)
        gradient.square().sum().backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


def test_the_mlp_networks_have_the_layers_of_the_textbook_gan():
    generator = build_generator(NetworkConfig("mlp", IMAGE, (256, 512), latent_dim=100))
    discriminator = build_discriminator(NetworkConfig("mlp", IMAGE, (512, 256)))
    sizes = [[tuple(weight.shape) for weight in network.parameters()] for network in (generator, discriminator)]
    assert sizes[0] == [(256, 100), (256,), (512, 256), (512,), (784, 512), (784,)]
    assert sizes[1] == [(512, 784), (512,), (256, 512), (256,), (1, 256), (1,)]
    slopes = [layer.negative_slope for layer in generator.modules() if isinstance(layer, nn.LeakyReLU)]
    assert slopes == [0.2, 0.2]


def test_dcgan_for_28_pixels_starts_from_7_and_has_batch_norm_in_inner_layers_only():
    generator, discriminator = make_generator("dcgan"), make_discriminator("dcgan")
    assert generator.input(torch.randn(2, LATENT_DIM)).shape == (2, 16, 7, 7)
    assert [norm.num_features for norm in generator.modules() if isinstance(norm, nn.BatchNorm2d)] == [16, 8]
    assert [norm.num_features for norm in discriminator.modules() if isinstance(norm, nn.BatchNorm2d)] == [16]


def test_dcgan_draws_its_initial_weights_as_the_paper_does():
    config = NetworkConfig("dcgan", IMAGE, (64, 64), 10, latent_dim=64)
    for network in (build_generator(config), build_discriminator(config)):
        for name, weight in network.named_parameters():
            if "normalization.weight" in name:
                assert abs(weight.mean() - 1) < 0.01, name
            elif weight.dim() > 1 and (name != "embedding.weight" or isinstance(network, DISCRIMINATORS["dcgan"])):
                assert weight.std().item() == pytest.approx(0.02, rel=0.15), name


def test_a_residual_block_starts_as_the_identity_and_still_gets_gradients():
    block, features = Block(8, blocks=3), torch.randn(2, 8, 5, 5)
    assert torch.equal(block(features), features)
    block(features).square().sum().backward()
    assert block.expand.weight.grad.abs().max() > 0


@pytest.mark.parametrize("widths", [(64, 32, 16), (32, 32), (128, 64, 64, 32)])
def test_residual_networks_start_with_signals_of_about_unit_variance(widths):
    generator = build_generator(NetworkConfig("residual", IMAGE, widths, 10, latent_dim=64))
    discriminator = build_discriminator(NetworkConfig("residual", IMAGE, widths[::-1], 10))
    label = torch.arange(200) % 10
    smooth = nn.functional.interpolate(torch.randn(200, 1, 4, 4), IMAGE[1:])  # pooling would average noise away
    with torch.no_grad():
        assert 0.5 < generator(torch.randn(200, 64), label).double().atanh().std() < 2
        assert 0.5 < discriminator(smooth, label).std() < 2


def test_residual_networks_process_each_image_independently_even_in_training_mode():
    generator, discriminator = make_generator("residual"), make_discriminator("residual")
    latents = torch.randn(5, LATENT_DIM)
    images = as_if_trained(generator, latents).train()(latents)
    torch.testing.assert_close(generator(latents[2:3]), images[2:3])
    torch.testing.assert_close(discriminator(images[2:3]), discriminator(images)[2:3])


def test_the_parameter_count_of_the_textbook_generator_equals_a_count_by_hand():
    generator = build_generator(NetworkConfig("mlp", IMAGE, (256, 512), latent_dim=100))
    assert parameter_count(generator) == 101 * 256 + 257 * 512 + 513 * 784


@architectures
@pytest.mark.parametrize(("image_shape", "classes"), [(IMAGE, 0), ((3, 27, 27), 10)])
def test_a_generator_exports_to_onnx_and_makes_the_same_image_in_any_batch(architecture, image_shape, classes):
    inputs = {"latent": torch.randn(7, LATENT_DIM)}
    if classes:
        inputs["label"] = torch.arange(7)
    generator = as_if_trained(make_generator(architecture, image_shape, classes), *inputs.values())
    with warnings.catch_warnings(action="ignore"):
        program = torch.onnx.export(
            generator,
            kwargs={name: values[:2] for name, values in inputs.items()},
            dynamic_shapes={name: {0: "batch"} for name in inputs},
            input_names=list(inputs),
            output_names=["image"],
            opset_version=20,
            verbose=False,
        )
    assert program.model.opset_imports == {"": 20}
    session = open_session(onnx_ir.to_proto(program.model).SerializeToString())

    batch = session.run(None, {name: values.numpy() for name, values in inputs.items()})[0]
    assert batch.std() > 0.05
    for n in (1, 2, 3, 7):
        images = session.run(None, {name: values[:n].numpy() for name, values in inputs.items()})[0]
        with torch.inference_mode():
            expected = generator(*(values[:n] for values in inputs.values())).numpy()
        assert np.abs(images - expected).max() < 1e-5
        assert np.array_equal(images, batch[:n])
    for row in range(7):
        alone = session.run(None, {name: values[row : row + 1].numpy() for name, values in inputs.items()})[0]
        assert np.array_equal(alone, batch[row : row + 1])
