"""Layers for discriminators with a gradient penalty, which differentiate the gradient of the images once more.

PyTorch's own layers give the same values, but their second derivatives are slow: `nn.Conv2d` reorders the memory of
large tensors and computes the gradient of the weights as a convolution with a kernel as large as the image, and
`nn.AvgPool2d` adds tensors of zeros in another memory format. The layers here express first derivatives by operations
whose own derivatives are fast. Karras et al. (2020), "Training generative adversarial networks with limited data", do
the same for the convolutions of StyleGAN2 on a GPU. On a CPU the preset r3gan trains 1.4 times as fast.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_weights_need_gradients = True


@contextmanager
def input_gradients_only() -> Iterator[None]:
    """Context manager around a call of `torch.autograd.grad` for images: `Conv2d` computes no gradients of its weights.

    A custom function does not learn from autograd which gradients a call needs. Without this context manager, those of
    the weights would be computed and dropped.
    """
    global _weights_need_gradients
    _weights_need_gradients = False
    try:
        yield
    finally:
        _weights_need_gradients = True


class Conv2d(nn.Conv2d):
    """`nn.Conv2d` without dilation, groups and padding modes, with a fast second derivative."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        device = input.device.type
        if torch.is_autocast_enabled(device):  # autocast does not reach into a custom function's saved tensors
            dtype = torch.get_autocast_dtype(device)
            input, weight, bias = input.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
        with torch.autocast(device, enabled=False):
            return _Convolution.apply(input, weight, bias, self.stride, self.padding)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int], padding: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(input, weight)
        ctx.stride, ctx.padding = stride, padding
        return functional.conv2d(input, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        input, weight = ctx.saved_tensors
        needs_input, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        differentiable = torch.is_grad_enabled() and needs_input
        mask = (
            needs_input and not differentiable,
            needs_weight and _weights_need_gradients,
            needs_bias and _weights_need_gradients,
        )
        grad_input = grad_weight = grad_bias = None
        if any(mask):
            options = (weight.shape[:1], ctx.stride, ctx.padding, (1, 1), False, (0, 0), 1)  # not transposed, one group
            gradients = torch.ops.aten.convolution_backward(grad_output, input, weight, *options, mask)
            grad_input, grad_weight, grad_bias = gradients
        if differentiable:
            # A transposed convolution is the gradient of a convolution. Its own gradients are ordinary convolutions.
            smallest = [
                (grad_output.shape[2 + i] - 1) * ctx.stride[i] - 2 * ctx.padding[i] + weight.shape[2 + i]
                for i in (0, 1)
            ]
            output_padding = [size - least for size, least in zip(input.shape[2:], smallest, strict=True)]
            grad_input = functional.conv_transpose2d(grad_output, weight, None, ctx.stride, ctx.padding, output_padding)
        return grad_input, grad_weight, grad_bias, None, None


class Halve(nn.Module):
    """Halves the resolution by averaging squares of 2 x 2 pixels, (n, c, h, w) -> (n, c, ceil(h / 2), ceil(w / 2)).

    If a side is odd, the last average on it is that of the remaining pixels.
    """

    def forward(self, features: Tensor) -> Tensor:
        if features.shape[-2] % 2 or features.shape[-1] % 2:
            return functional.avg_pool2d(features, 2, ceil_mode=True)
        return _Average.apply(features)


class _Average(torch.autograd.Function):
    """Average of 2 x 2 pixels; its gradient is `_Spread`."""

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        return functional.avg_pool2d(features, 2)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Tensor:
        return _Spread.apply(grad_output)


class _Spread(torch.autograd.Function):
    """Repeats a quarter of each pixel in 2 x 2 pixels; its gradient is `_Average`."""

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        return functional.interpolate(features, scale_factor=2, mode="nearest") / 4

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Tensor:
        return _Average.apply(grad_output)
