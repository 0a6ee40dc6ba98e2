"""The losses, on logits: D(x) = sigmoid(logit) is the probability that x is real.

Goodfellow et al. (2014), "Generative adversarial nets", equation 1:
    min_G max_D V(D, G) = E[log D(x)] + E[log(1 - D(G(z)))]
Each function takes logits of any one shape and returns a scalar, in fp32 whatever the precision of the networks.
"""

from collections.abc import Callable

from torch import Tensor
from torch.nn.functional import logsigmoid


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-V(D, G): binary cross-entropy with logits, reals as 1 and fakes as 0."""
    return -(logsigmoid(real_logits.float()).mean() + logsigmoid(-fake_logits.float()).mean())


def minimax(fake_logits: Tensor) -> Tensor:
    """E[log(1 - D(G(z)))], the generator's part of V(D, G). Its gradient vanishes where D is sure."""
    return logsigmoid(-fake_logits.float()).mean()


def non_saturating(fake_logits: Tensor) -> Tensor:
    """-E[log D(G(z))], the same fixed point with stronger gradients early on (section 3)."""
    return -logsigmoid(fake_logits.float()).mean()


GENERATOR_LOSSES: dict[str, Callable[[Tensor], Tensor]] = {"minimax": minimax, "non-saturating": non_saturating}
