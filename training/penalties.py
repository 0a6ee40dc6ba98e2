"""Gradient penalties on the discriminator: squared gradient norms, exact or estimated, and what is made of them.

The discriminator must see each image on its own (no batch normalisation): then the gradient of the sum of the logits
holds the gradient of each. Everything after the networks is fp32, whatever their precision.
"""

import torch
from torch import Tensor


def squared_gradient_norms(logits: Tensor, images: Tensor, scale: Tensor | float = 1.0) -> Tensor:
    """|grad_x D(x)|^2, summed over the pixels of each image; differentiable once more. Call it outside autocast.

    fp16: gradients below 6e-8 are lost, so what is differentiated is the scaled *mean* of the logits, and both factors
    are taken back in fp32 before squaring (PyTorch AMP notes, "gradient penalty"). The mean, because the scale was
    tuned to a loss that is one: GradScaler starts at 2^16, which as the slope of a single fp16 logit is infinite.

    Args:
        logits: (n,) or (n, 1), computed from `images`, so that the loss and the penalty share one forward pass.
        images: (n, ...), fp32, requires grad. May hold reals and fakes: the norms of both then come in one pass.
        scale: of the loss; 1 for fp32 and bf16. `scaler.scale(torch.ones(()))` has it without a wait for the device.

    Returns:
        fp32 (n,).
    """
    (gradients,) = torch.autograd.grad(scale * logits.float().mean(), images, create_graph=True)
    return (gradients.float() * (logits.numel() / scale)).square().flatten(1).sum(1)


def finite_difference(logits: Tensor, logits_of_noisy: Tensor, sigma: float) -> Tensor:
    """|D(x) - D(x + sigma n)|^2 / sigma^2, n standard normal: estimates |grad_x D(x)|^2 without double backward.

    The expectation over n is biased by O(sigma^2) where D is smooth, by O(sigma) across the kinks of a LeakyReLU. One
    draw scatters by sqrt(2) of the value itself. Rounding adds up to (epsilon |D(x)| / sigma)^2, epsilon being the
    precision of the logits: with bf16's 2^-8 and a sigma of 0.01, five times a norm of 0.005 was seen.

    Args:
        logits: of x, any shape.
        logits_of_noisy: of x + sigma n, the same shape.
        sigma: standard deviation of the noise, in the units of the images ([-1, 1]); above 0.

    Returns:
        fp32, the shape of the logits.
    """
    return ((logits.float() - logits_of_noisy.float()) / sigma).square()


def zero_centred(squared_norms: Tensor, gamma: Tensor | float) -> Tensor:
    """gamma/2 E[|grad_x D(x)|^2]: R1 at real images, R2 at fakes.

    Mescheder et al. (2018), "Which training methods for GANs do actually converge?", equations 9 and 10.
    """
    return gamma / 2 * squared_norms.mean()


def wasserstein_gp(squared_norms: Tensor, weight: Tensor | float = 10.0) -> Tensor:
    """weight E[(|grad_x D(x)| - 1)^2], x at random between a real and a fake: u x + (1 - u) G(z), u uniform per image.

    Gulrajani et al. (2017), "Improved training of Wasserstein GANs", equation 3.
    """
    # The slope of sqrt is infinite at 0, and would make NaN of the gradient of a discriminator that is flat.
    norms = squared_norms.clamp_min(torch.finfo(squared_norms.dtype).tiny).sqrt()
    return weight * (norms - 1).square().mean()
