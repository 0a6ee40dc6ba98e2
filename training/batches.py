"""Training batches, each drawn from the seed and the number of images seen and from nothing else.

A resumed run therefore sees the batches that it would have seen without the interruption. EDM2 (Karras et al., 2024)
seeds its steps in the same way.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.augmentation import AUGMENTATIONS
from training.config import Config
from training.data import LabelledImages
from training.distributed import Group

_STREAMS = (
    "order",
    "latents",
    "generator",
    "noise",
    "noise of fakes",
    "mirror",
    "augmentation",
    "mirror for generator",
)
"""Random streams, by purpose. The index of a stream is part of its seed, so append new streams at the end."""


@dataclass(frozen=True)
class Examples:
    """Real images with their labels, and as many latents for fake images of the same labels."""

    images: Tensor
    """Real images: uint8 (n, channels, height, width)."""
    labels: Tensor
    """Class indices of the real images: int64 (n,). A conditional generator uses them for the fakes as well."""
    latents: Tensor
    """Inputs of the generator, standard normal: float32 (n, latent_dim)."""

    def tensors(self) -> tuple[Tensor, ...]:
        """Returns the tensors of all fields, in the order of the fields."""
        return self.images, self.labels, self.latents

    def clone(self) -> "Examples":
        """Returns a copy with tensors of its own."""
        return Examples(*(tensor.clone() for tensor in self.tensors()))


@dataclass(frozen=True)
class Batch:
    """Input of one training step in one process: n = batch_size / processes examples, on the training device.

    The optional fields depend only on the configuration, so all batches of a run have the same tensors and shapes.
    """

    discriminator: Examples
    """Examples for the update of the discriminator."""
    generator: Examples | None = None
    """Examples for the update of the generator (`--generator-data fresh`). None: it uses those of the discriminator."""
    noise: Tensor | None = None
    """Random numbers of the penalty, or None if it needs none.

    wgan-gp: uniform float32 (n, 1, 1, 1), the share of the real image in each interpolated image. finite-difference:
    standard normal float32 (2 n, channels, height, width), first for the real images, then for the fakes.
    """
    augmentation: Tensor | None = None
    """Random numbers of the augmentation in [0, 1), float32 (n, 4, draws), or None without augmentation.

    Indices of the second dimension: in the update of the discriminator, 0 for the real images and 1 for the fakes; in
    the update of the generator, 2 for the fakes and 3 for the real images.
    """

    def tensors(self) -> list[Tensor]:
        """Returns all tensors of the batch, always in the same order."""
        generator = () if self.generator is None else self.generator.tensors()
        random = (tensor for tensor in (self.noise, self.augmentation) if tensor is not None)
        return [*self.discriminator.tensors(), *generator, *random]

    def clone(self) -> "Batch":
        """Returns a copy with tensors of its own."""
        generator = None if self.generator is None else self.generator.clone()
        noise, augmentation = (None if tensor is None else tensor.clone() for tensor in (self.noise, self.augmentation))
        return Batch(self.discriminator.clone(), generator, noise, augmentation)


class Batches:
    """Draws this process's share of the batch at any point of a run."""

    def __init__(self, data: LabelledImages, config: Config, group: Group):
        """Takes `data` on the training device, `config.device`."""
        self.data = data
        self.config = config
        self.group = group
        self.epoch_images = len(data) // config.batch_size * config.batch_size
        """Images of one epoch. An epoch has whole batches only, so the last images of its random order are left out."""
        self._epoch, self._order = -1, torch.empty(0)

    def at(self, images_seen: int) -> Batch:
        """Returns the batch that follows after `images_seen` real images, a multiple of the batch size."""
        config, n = self.config, self.config.batch_size
        examples = self._examples(
            self._indices(images_seen),
            self._normal("latents", images_seen, n, config.latent_dim),
            "mirror",
            images_seen,
        )
        return Batch(
            examples,
            self._generator_examples(images_seen),
            self._noise(images_seen),
            self._augmentation(images_seen),
        )

    def _generator_examples(self, images_seen: int) -> Examples | None:
        config, n = self.config, self.config.batch_size
        if config.generator_data == "same":
            return None
        random = self._random("generator", images_seen)
        indices = torch.randint(len(self.data), (n,), generator=random, device=config.device)
        latents = torch.randn(n, config.latent_dim, generator=random, device=config.device)
        return self._examples(indices, self.group.slice(latents), "mirror for generator", images_seen)

    def _noise(self, images_seen: int) -> Tensor | None:
        config, n = self.config, self.config.batch_size
        if config.penalty == "wgan-gp":
            random = self._random("noise", images_seen)
            return self.group.slice(torch.rand(n, 1, 1, 1, generator=random, device=config.device))
        if config.penalty == "finite-difference":
            shape = self.data.images.shape[1:]
            return torch.cat([self._normal(stream, images_seen, n, *shape) for stream in ("noise", "noise of fakes")])
        return None

    def _augmentation(self, images_seen: int) -> Tensor | None:
        config, augmentation = self.config, AUGMENTATIONS.get(self.config.augment)
        if augmentation is None:
            return None
        random = self._random("augmentation", images_seen)
        shape = (config.batch_size, 4, augmentation.draws)
        return self.group.slice(torch.rand(shape, generator=random, device=config.device))

    def _indices(self, images_seen: int) -> Tensor:
        """Returns the indices of the real images of the whole batch, from the random order of the epoch."""
        epoch, position = divmod(images_seen, self.epoch_images)
        if epoch != self._epoch:
            random = self._random("order", epoch + 1)
            self._epoch = epoch
            self._order = torch.randperm(len(self.data), generator=random, device=self.config.device)
        return self._order[position : position + self.config.batch_size]

    def _examples(self, indices: Tensor, latents: Tensor, stream: str, position: int) -> Examples:
        """Combines the images at this process's share of `indices` with its latents.

        Args:
            stream, position: of the random numbers that decide which images --mirror mirrors.
        """
        images = self.data.images[self.group.slice(indices)]
        labels = self.data.labels[self.group.slice(indices)]
        if self.config.mirror:
            random = self._random(stream, position)
            mirrored = torch.rand(len(indices), 1, 1, 1, generator=random, device=self.config.device) < 0.5
            images = torch.where(self.group.slice(mirrored), images.flip(-1), images)
        return Examples(images, labels, latents)

    def _normal(self, stream: str, position: int, *shape: int) -> Tensor:
        """Returns this process's share of standard normal values of this shape."""
        random = self._random(stream, position)
        return self.group.slice(torch.randn(shape, generator=random, device=self.config.device))

    def _random(self, stream: str, position: int) -> torch.Generator:
        """Returns the random generator of a stream at a position: the images seen, or for "order" the epoch from 1.

        Each (stream, position) is used once, so no key is used twice. PyTorch's CPU generator uses only 32 bits of the
        seed, so any two of n keys give the same numbers with a probability of about n^2 / 2^33.
        """
        key = np.random.SeedSequence((self.config.seed, _STREAMS.index(stream), position))
        return torch.Generator(self.config.device).manual_seed(int(key.generate_state(1, np.uint64)[0]) >> 1)
