"""StackedMNIST's published metrics, to read a generator's own beside.

The protocol: a thousand classes of three digits, 26,000 samples, the classes counted by a digit classifier, and the KL
divergence of their histogram from the uniform one, in nats. A perfect sampler scores 999 / (2 * 26,000), about 0.02,
and MNIST's own digits, which are not equally frequent, a little more.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    name: str
    modes: int
    kl: float
    source: str


PUBLISHED = (
    Published("DCGAN", 99, 3.40, "Radford et al., 2015; measured by Srivastava et al., 2017"),
    Published("VEEGAN", 150, 2.95, "Srivastava et al., 2017"),
    Published("WGAN-GP", 959, 0.73, "Gulrajani et al., 2017; as listed by Huang et al., 2024"),
    Published("PacGAN", 992, 0.28, "Lin et al., 2018"),
    Published("StyleGAN2", 940, 0.42, "Karras et al., 2020; as listed by Huang et al., 2024"),
    Published("PresGAN", 1000, 0.12, "Dieng et al., 2019"),
    Published("DDGAN", 1000, 0.071, "Xiao et al., 2022"),
    Published("R3GAN", 1000, 0.029, "Huang et al., 2024"),
)
