"""The batches of a run, each drawn from the seed and the images seen and from nothing else.

So a run that goes on after a break meets the batches that it would have met (the way of EDM2, Karras et al., 2024).
"""

import numpy as np
import torch
from torch import Tensor

from training.config import Config
from training.data import LabelledImages
from training.distributed import Group
from training.step import Batch

_USES = ("order", "latents", "generator", "noise", "noise of fakes")
"""Everything that random numbers are drawn for. The position in this list is part of the key of a stream, so a new use
is appended."""


class Batches:
    """A process's share of the batch at any point of a run."""

    def __init__(self, data: LabelledImages, config: Config, group: Group):
        self.data = data
        self.config = config
        self.group = group
        self.epoch_images = len(data) // config.batch_size * config.batch_size
        """Of whole batches; the images left over wait for another epoch's order."""
        self._epoch, self._order = -1, torch.empty(0)

    def at(self, images_seen: int) -> Batch:
        """The batch that follows after so many images."""
        config, n = self.config, self.config.batch_size
        batch = self._select(self._indices(images_seen))
        batch["latents"] = self._normal("latents", images_seen, n, config.latent_dim)
        if config.generator_data == "fresh":
            random = self._random("generator", images_seen)
            index = torch.randint(len(self.data), (n,), generator=random, device=config.device)
            batch |= {f"generator_{name}": tensor for name, tensor in self._select(index).items()}
            latents = torch.randn(n, config.latent_dim, generator=random, device=config.device)
            batch["generator_latents"] = self.group.slice(latents)
        if config.penalty == "wgan-gp":
            random = self._random("noise", images_seen)
            batch["noise"] = self.group.slice(torch.rand(n, 1, 1, 1, generator=random, device=config.device))
        if config.penalty == "finite-difference":
            shape = self.data.images.shape[1:]
            batch["noise"] = torch.cat(
                [self._normal(use, images_seen, n, *shape) for use in ("noise", "noise of fakes")]
            )
        return batch

    def _indices(self, images_seen: int) -> Tensor:
        epoch, position = divmod(images_seen, self.epoch_images)
        if epoch != self._epoch:
            random = self._random("order", epoch + 1)
            self._epoch, self._order = (
                epoch,
                torch.randperm(len(self.data), generator=random, device=self.config.device),
            )
        return self._order[position : position + self.config.batch_size]

    def _select(self, index: Tensor) -> Batch:
        index = self.group.slice(index)
        return {"images": self.data.images[index], "labels": self.data.labels[index]}

    def _normal(self, use: str, position: int, *shape: int) -> Tensor:
        random = self._random(use, position)
        return self.group.slice(torch.randn(shape, generator=random, device=self.config.device))

    def _random(self, use: str, position: int) -> torch.Generator:
        """Returns the stream of one use at one position: the images seen, or the number of the epoch for the order.

        Each use calls this once for a position and computes no other positions, so no two draws of a run share a key.
        PyTorch's generator on a CPU reads only 32 bits of the seed: there two of n draws coincide by chance with a
        probability of about n^2 / 2^33.
        """
        key = np.random.SeedSequence((self.config.seed, _USES.index(use), position))
        return torch.Generator(self.config.device).manual_seed(int(key.generate_state(1, np.uint64)[0]) >> 1)
