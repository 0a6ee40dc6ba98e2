"""Losses of the discriminator and of the generator, as pure functions of logits.

The discriminator D returns one logit for an image: high for a real image x, low for a fake G(z). E is the mean over a
batch. Each function takes logits in any precision, computes in fp32 and returns an fp32 scalar to be minimized.
`LOSSES` names the pairs. docs/architecture.md lists what a new loss needs.

All losses of generators have the arguments (fake_logits, real_logits), although only the relativistic one reads the
real logits. So the training step calls all of them with the same arguments.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import logsigmoid, relu, softplus


@dataclass(frozen=True)
class Loss:
    """Pair of losses with which a GAN is trained."""

    discriminator: Callable[[Tensor, Tensor], Tensor]
    """Loss of the discriminator: (real_logits, fake_logits) -> scalar."""
    generator: Callable[[Tensor, Tensor | None], Tensor]
    """Loss of the generator: (fake_logits, real_logits) -> scalar. `real_logits` may be None if not `relativistic`."""
    relativistic: bool = False
    """Whether the loss of the generator needs the real logits."""
    only_differences: bool = False
    """Whether the same number added to all logits changes no loss, so that the sign of a logit means nothing."""


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Binary cross-entropy of the discriminator, with the class 1 for reals and 0 for fakes.

        -E[log sigmoid(D(x))] - E[log(1 - sigmoid(D(G(z))))]

    Goodfellow et al. (2014), "Generative adversarial nets", equation 1, where D is the probability sigmoid(logit).

    Args:
        real_logits: any shape.
        fake_logits: any shape.

    Returns:
        an fp32 scalar, at least 0; 2 log 2 for a discriminator whose logits are all 0.
    """
    return -(logsigmoid(real_logits.float()).mean() + logsigmoid(-fake_logits.float()).mean())


def minimax(fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
    """Loss of the generator in the minimax game.

    Its gradient vanishes where the discriminator recognizes the fakes with high confidence.

        E[log(1 - sigmoid(D(G(z))))]

    Goodfellow et al. (2014), "Generative adversarial nets", equation 1.

    Args:
        fake_logits: any shape.
        real_logits: not used.

    Returns:
        an fp32 scalar, at most 0.
    """
    return logsigmoid(-fake_logits.float()).mean()


def non_saturating(fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
    """Loss of the generator with the fixed point of `minimax`, but with strong gradients where fakes are recognized.

        -E[log sigmoid(D(G(z)))]

    Goodfellow et al. (2014), "Generative adversarial nets", section 3.

    Args:
        fake_logits: any shape.
        real_logits: not used.

    Returns:
        an fp32 scalar, at least 0.
    """
    return -logsigmoid(fake_logits.float()).mean()


def hinge_discriminator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Hinge loss of the discriminator: logits that are correct by more than the margin of 1 have no gradient.

        E[max(0, 1 - D(x))] + E[max(0, 1 + D(G(z)))]

    Lim and Ye (2017), "Geometric GAN"; in this form Miyato et al. (2018), "Spectral normalization for generative
    adversarial networks", equation 16. The generator minimizes `linear`.

    Args:
        real_logits: any shape.
        fake_logits: any shape.

    Returns:
        an fp32 scalar, at least 0.
    """
    return relu(1 - real_logits.float()).mean() + relu(1 + fake_logits.float()).mean()


def wasserstein_discriminator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Negative estimate of the Wasserstein distance between reals and fakes.

        E[D(G(z))] - E[D(x)]

    It estimates the distance only if D is 1-Lipschitz, so use it with the penalty wgan-gp. Arjovsky et al. (2017),
    "Wasserstein GAN", equations 2 and 3. The generator minimizes `linear`.

    Args:
        real_logits: any shape.
        fake_logits: any shape.

    Returns:
        an fp32 scalar without bounds.
    """
    return fake_logits.float().mean() - real_logits.float().mean()


def linear(fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
    """Loss of the generator that belongs to the hinge and to the Wasserstein loss of the discriminator.

        -E[D(G(z))]

    Miyato et al. (2018), "Spectral normalization for generative adversarial networks", equation 17; Arjovsky et al.
    (2017), "Wasserstein GAN", equation 3.

    Args:
        fake_logits: any shape.
        real_logits: not used.

    Returns:
        an fp32 scalar without bounds.
    """
    return -fake_logits.float().mean()


def relativistic_discriminator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Loss of a discriminator that compares each real with one fake, so that only differences of logits count.

        E[softplus(-(D(x) - D(G(z))))], with softplus(t) = log(1 + e^t)

    Jolicoeur-Martineau (2018), "The relativistic discriminator" (RSGAN); Huang et al. (2024), "The GAN is dead; long
    live the GAN!" (R3GAN), equation 2.

    Args:
        real_logits: any shape.
        fake_logits: same shape; the fake at an index is compared with the real at the same index.

    Returns:
        an fp32 scalar, at least 0; log 2 if the logits of each pair are equal.

    Raises:
        ValueError: the shapes differ.
    """
    if real_logits.shape != fake_logits.shape:  # (n,) and (n, 1) would broadcast to n x n pairs
        raise ValueError(
            f"real and fake logits must have the same shape, got {[*real_logits.shape]} and {[*fake_logits.shape]}"
        )
    return softplus(fake_logits.float() - real_logits.float()).mean()


def relativistic_generator(fake_logits: Tensor, real_logits: Tensor | None) -> Tensor:
    """Loss of the generator that belongs to `relativistic_discriminator`: the same with reals and fakes exchanged.

        E[softplus(-(D(G(z)) - D(x)))], with softplus(t) = log(1 + e^t)

    Args:
        fake_logits: any shape.
        real_logits: same shape; must not be None.

    Returns:
        an fp32 scalar, at least 0; log 2 if the logits of each pair are equal.

    Raises:
        ValueError: the real logits are missing, or the shapes differ.
    """
    if real_logits is None:
        raise ValueError("the relativistic loss of the generator needs real_logits, got None")
    return relativistic_discriminator(fake_logits, real_logits)


LOSSES: dict[str, Loss] = {
    "non-saturating": Loss(discriminator_loss, non_saturating),
    "minimax": Loss(discriminator_loss, minimax),
    "hinge": Loss(hinge_discriminator, linear),
    "wasserstein": Loss(wasserstein_discriminator, linear, only_differences=True),
    "relativistic": Loss(relativistic_discriminator, relativistic_generator, relativistic=True, only_differences=True),
}
"""Losses by the name that `train --loss` takes."""
