from collections import Counter

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from models.networks import NetworkConfig, build_discriminator
from models.networks.double_backward import Conv2d, Halve, input_gradients_only

CONVOLUTIONS = [
    {"kernel_size": 1},
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 3, "padding": 1, "bias": False},
    {"kernel_size": 4, "stride": 2, "padding": 1},
    {"kernel_size": 3, "stride": 2},
]


class Operations(TorchDispatchMode):
    """Context manager that counts the operations by name."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        self.count[function._overloadpacket.__name__] += 1
        return function(*arguments, **keywords or {})


def random(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(0)).requires_grad_()


@pytest.mark.parametrize("size", [(6, 6), (5, 8)])
@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
def test_a_convolution_and_its_first_and_second_derivatives_are_right(options, size):
    layer = Conv2d(2, 3, **options).double()
    images = random(2, 2, *size)
    expected = nn.functional.conv2d(images, layer.weight, layer.bias, layer.stride, layer.padding)
    torch.testing.assert_close(layer(images), expected)

    def convolve(images: Tensor, *parameters: Tensor) -> Tensor:
        return layer._conv_forward(images, *parameters, *([None] if layer.bias is None else []))

    inputs = (images, *layer.parameters())
    assert gradcheck(convolve, inputs)
    assert gradgradcheck(convolve, inputs)


@pytest.mark.parametrize("size", [(6, 6), (5, 8), (3, 3), (1, 2)])
def test_halving_is_average_pooling_and_its_first_and_second_derivatives_are_right(size):
    images = random(2, 3, *size)
    torch.testing.assert_close(Halve()(images), nn.AvgPool2d(2, ceil_mode=True)(images))
    assert gradcheck(Halve(), images)
    assert gradgradcheck(Halve(), images)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_a_convolution_runs_in_its_dtype_and_gradients_have_the_dtype_of_the_weights(dtype):
    layer, images = Conv2d(2, 3, 3, padding=1), random(2, 2, 6, 6, dtype=torch.float32)
    with torch.autocast("cpu", dtype):
        output = layer(images)
        expected = nn.functional.conv2d(images, layer.weight, layer.bias, padding=1)
    assert output.dtype == dtype
    torch.testing.assert_close(output, expected)
    output.float().sum().backward()
    assert images.grad is not None
    assert {images.grad.dtype, layer.weight.grad.dtype, layer.bias.grad.dtype} == {torch.float32}


def test_a_gradient_penalty_computes_each_gradient_once_and_copies_no_feature_maps():
    discriminator = build_discriminator(NetworkConfig("residual", (1, 28, 28), (4, 8, 8)))
    discriminator.to(memory_format=torch.channels_last)
    convolutions = sum(isinstance(layer, Conv2d) for layer in discriminator.modules())
    images = random(2, 1, 28, 28, dtype=torch.float32)
    logits = discriminator(images)
    with input_gradients_only(), Operations() as first:
        (gradients,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    assert first.count["convolution"] == convolutions
    assert first.count["convolution_backward"] == 0
    with Operations() as second:
        (logits.mean() + gradients.square().sum()).backward()
    assert second.count["convolution"] == 0
    assert second.count["convolution_backward"] == 2 * convolutions
    assert not second.count.keys() & {"copy_", "zeros", "transpose"}
