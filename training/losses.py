"""The losses, on logits; real is high. In the losses of Goodfellow, sigmoid(logit) is the probability that x is real.

Goodfellow et al. (2014), "Generative adversarial nets", equation 1:
    min_G max_D V(D, G) = E[log D(x)] + E[log(1 - D(G(z)))]
Each function takes logits of any one shape and returns a scalar, in fp32 whatever the precision of the networks.
Generators' losses take the real logits as well, so that all are called alike; only the relativistic one needs them.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import logsigmoid, relu, softplus


@dataclass(frozen=True)
class Loss:
    """What the two networks minimise."""

    discriminator: Callable[[Tensor, Tensor], Tensor]
    """(real_logits, fake_logits) -> scalar."""
    generator: Callable[[Tensor, Tensor | None], Tensor]
    """(fake_logits, real_logits) -> scalar."""
    relativistic: bool = False
    """Whether the generator's loss needs the real logits; the others accept None in their place."""


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-V(D, G): binary cross-entropy with logits, reals as 1 and fakes as 0."""
    return -(logsigmoid(real_logits.float()).mean() + logsigmoid(-fake_logits.float()).mean())


def minimax(fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
    """E[log(1 - D(G(z)))], the generator's part of V(D, G). Its gradient vanishes where D is sure."""
    return logsigmoid(-fake_logits.float()).mean()


def non_saturating(fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
    """-E[log D(G(z))], the same fixed point with stronger gradients early on (section 3)."""
    return -logsigmoid(fake_logits.float()).mean()


def hinge_discriminator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """E[max(0, 1 - D(x))] + E[max(0, 1 + D(G(z)))]: what is beyond the margin of 1 no longer counts.

    Lim and Ye (2017), "Geometric GAN"; as here, Miyato et al. (2018), "Spectral normalization for GANs", equation 16.
    """
    return relu(1 - real_logits.float()).mean() + relu(1 + fake_logits.float()).mean()


def wasserstein_discriminator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """E[D(G(z))] - E[D(x)]: minus the Wasserstein distance, if D is 1-Lipschitz; a penalty has to see to that.

    Arjovsky et al. (2017), "Wasserstein GAN", equations 2 and 3.
    """
    return fake_logits.float().mean() - real_logits.float().mean()


def linear(fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
    """-E[D(G(z))]: the generator's side of hinge (Miyato et al., equation 17) and of wasserstein (Arjovsky et al.)."""
    return -fake_logits.float().mean()


def relativistic_discriminator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """E[softplus(-(D(x) - D(G(z))))]: each fake is judged against a real, so only differences of logits count.

    Jolicoeur-Martineau (2018), "The relativistic discriminator", RSGAN; Huang et al. (2024), "The GAN is dead; long
    live the GAN!" (R3GAN), equation 2. Shapes must be the same: the i-th real is the i-th fake's pair.
    """
    if real_logits.shape != fake_logits.shape:
        raise ValueError(f"real and fake logits come in pairs, got {[*real_logits.shape]} and {[*fake_logits.shape]}")
    return softplus(fake_logits.float() - real_logits.float()).mean()


def relativistic_generator(fake_logits: Tensor, real_logits: Tensor | None) -> Tensor:
    """E[softplus(-(D(G(z)) - D(x)))]: the discriminator's loss with fakes and reals in each other's place."""
    if real_logits is None:
        raise ValueError("the relativistic generator loss needs the real logits, got None")
    return relativistic_discriminator(fake_logits, real_logits)


LOSSES: dict[str, Loss] = {
    "non-saturating": Loss(discriminator_loss, non_saturating),
    "minimax": Loss(discriminator_loss, minimax),
    "hinge": Loss(hinge_discriminator, linear),
    "wasserstein": Loss(wasserstein_discriminator, linear),
    "relativistic": Loss(relativistic_discriminator, relativistic_generator, relativistic=True),
}
