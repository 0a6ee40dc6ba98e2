"""Penalties on the gradient of the discriminator D with respect to its input images, as pure functions.

A penalty takes two steps: squared gradient norms, either exact (`squared_gradient_norms`) or estimated
(`finite_difference`), then a scalar from them (`zero_centred` or `wasserstein_gp`), which is added to the loss.

D must treat each image independently, hence without batch normalization. Only then does the gradient of the sum of all
logits with respect to one image equal the gradient of that image's own logit. Everything after the networks is
computed in fp32.
"""

import torch
from torch import Tensor

from models.networks.double_backward import input_gradients_only


def squared_gradient_norms(logits: Tensor, images: Tensor, scale: Tensor | float = 1.0) -> Tensor:
    """Returns |grad_x D(x)|^2 of each image, summed over its pixels; it can be differentiated again.

    Call it outside autocast. Logits and penalty share one forward pass: `logits` are those of the loss.

    Gradients below 6e-8 underflow in fp16. Therefore the loss scale multiplies the mean of the logits before
    differentiation, and is removed in fp32 before squaring (PyTorch's notes on automatic mixed precision, "Gradient
    penalty"). With the sum instead of the mean, the initial scale of 2^16 would be the gradient at each logit and
    overflow in fp16.

    Args:
        logits: (n,) or (n, 1), computed from `images` with a graph.
        images: fp32 (n, ...) that requires grad. Reals and fakes may be concatenated.
        scale: loss scale in fp16, as a 0-dimensional tensor from `scaler.scale(torch.ones(()))`, which does not
            synchronize with the device; 1 in fp32 and bf16.

    Returns:
        fp32 (n,), each at least 0.
    """
    with input_gradients_only():
        (gradients,) = torch.autograd.grad(scale * logits.float().mean(), images, create_graph=True)
    return (gradients.float() * (logits.numel() / scale)).square().flatten(1).sum(1)


def finite_difference(logits: Tensor, logits_of_noisy: Tensor, sigma: float) -> Tensor:
    """Estimates |grad_x D(x)|^2 from two forward passes, without second derivatives.

        |D(x) - D(x + sigma * n)|^2 / sigma^2, with standard normal noise n

    Bias: O(sigma^2) where D is smooth, O(sigma) across the kinks of LeakyReLU. The standard deviation of a single
    draw is sqrt(2) times the value. Rounding adds up to (epsilon |D(x)| / sigma)^2, where epsilon is the precision of
    the logits: with bf16 (epsilon 2^-8) and sigma 0.01 the estimate was five times a true value of 0.005.

    Args:
        logits: d(x), any shape.
        logits_of_noisy: d(x + sigma n), same shape.
        sigma: standard deviation of the noise, in the unit of the images (from -1 to 1); above 0.

    Returns:
        fp32 in the shape of the logits, each at least 0.
    """
    return ((logits.float() - logits_of_noisy.float()) / sigma).square()


def zero_centred(squared_norms: Tensor, gamma: Tensor | float) -> Tensor:
    """Penalizes any gradient: R1 if the images are real, R2 if they are fakes.

        gamma / 2 * E[|grad_x D(x)|^2]

    Mescheder et al. (2018), "Which training methods for GANs do actually converge?", equations 9 and 10.

    Args:
        squared_norms: |grad_x D(x)|^2 of each image, any shape.
        gamma: weight, at least 0.

    Returns:
        a scalar, at least 0.
    """
    return gamma / 2 * squared_norms.mean()


def wasserstein_gp(squared_norms: Tensor, gamma: Tensor | float = 10.0) -> Tensor:
    """Penalizes gradients whose norm is not 1, at points between reals and fakes.

        gamma * E[(|grad_x D(x)| - 1)^2], at x = u * real + (1 - u) * fake with u uniform in [0, 1] for each image

    Gulrajani et al. (2017), "Improved training of Wasserstein GANs", equation 3.

    Args:
        squared_norms: |grad_x D(x)|^2 at each such point, any shape.
        gamma: weight, at least 0; 10 in the paper.

    Returns:
        a scalar, at least 0.
    """
    # The slope of sqrt at 0 is infinite, so a discriminator with zero gradient would get NaN as the penalty's gradient.
    norms = squared_norms.clamp_min(torch.finfo(squared_norms.dtype).tiny).sqrt()
    return gamma * (norms - 1).square().mean()
