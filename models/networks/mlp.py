"""The fully connected networks of the textbook GAN (Goodfellow et al., 2014, "Generative adversarial nets").

With classes they are the conditional GAN of Mirza and Osindero (2014, "Conditional generative adversarial nets"): both
networks append an embedding of the label to their input.
"""

import math
from itertools import pairwise

from torch import Tensor, nn

from models.networks.base import LEAK, Network, NetworkConfig, append


class Generator(Network):
    """Multilayer perceptron: hidden layers of `config.widths` with LeakyReLU, then a linear layer with tanh.

    An embedding of the label is appended to the latent.

    Maps latent (n, latent_dim) and, if class-conditional, label int64 (n,) to image (n, channels, height, width) in
    [-1, 1].
    """

    def __init__(self, config: NetworkConfig):
        super().__init__(config, embedding_dim=config.classes)
        self.hidden = _hidden(config.latent_dim + config.classes, config.widths)
        self.output = nn.Linear(config.widths[-1], math.prod(config.image_shape))

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        features = self.hidden(append(latent, self.embed(label)))
        return self.output(features).tanh().unflatten(1, self.config.image_shape)


class Discriminator(Network):
    """Multilayer perceptron on the flattened image: hidden layers of `config.widths` with LeakyReLU, then one logit.

    An embedding of the label is appended to the pixels.

    Maps image (n, channels, height, width) in [-1, 1] and, if class-conditional, label int64 (n,) to logit (n,). A
    higher logit means "more likely real".
    """

    def __init__(self, config: NetworkConfig):
        super().__init__(config, embedding_dim=config.classes)
        self.hidden = _hidden(math.prod(config.image_shape) + config.classes, config.widths)
        self.output = nn.Linear(config.widths[-1], 1)

    def forward(self, image: Tensor, label: Tensor | None = None) -> Tensor:
        return self.output(self.hidden(append(image.flatten(1), self.embed(label)))).squeeze(1)


def _hidden(inputs: int, widths: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise((inputs, *widths)):
        layers += [nn.Linear(before, after), nn.LeakyReLU(LEAK)]
    return nn.Sequential(*layers)
