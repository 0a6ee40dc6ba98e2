"""Published results on stacked MNIST, for comparison in evaluation reports.

The protocol: images of three digits form 1,000 classes. A digit classifier reads 26,000 generated images. The results
are the number of classes that occur, and the KL divergence of the class histogram from the uniform distribution, in
nats. A perfect sampler has a divergence of 999 / (2 * 26,000), about 0.02. Real MNIST digits have slightly more,
because they are not equally frequent.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """Result of one model on stacked MNIST."""

    name: str
    """Name of the model."""
    modes: int
    """Number of classes that occur, of 1,000. Higher is better."""
    kl: float
    """KL divergence of the class histogram from the uniform distribution, in nats. Lower is better."""
    source: str
    """Paper, and who measured it if the authors did not."""


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
