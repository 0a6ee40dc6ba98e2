"""One training step: a batch of images in, one update of both networks."""

from typing import Literal

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from models.networks import Discriminator, Generator
from training.config import Config
from training.losses import GENERATOR_LOSSES, discriminator_loss

AUTOCAST_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class PrecisionError(ValueError):
    """A device or precision that this machine does not have."""


def resolve_device(device: Literal["auto", "cpu", "cuda"]) -> Literal["cpu", "cuda"]:
    if device == "cuda" and not torch.cuda.is_available():
        raise PrecisionError("--device cuda, but PyTorch sees no GPU; use --device auto or cpu")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def resolve_precision(
    precision: Literal["auto", "fp32", "bf16", "fp16"], device: str
) -> Literal["fp32", "bf16", "fp16"]:
    """auto: what is fast in hardware; bf16 before fp16, since its range needs no loss scaling."""
    if precision != "auto":
        return precision
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    # Without matrix tiles (AMX), bf16 on a CPU is emulated and several times slower than fp32.
    return "bf16" if torch.cpu._is_amx_tile_supported() else "fp32"


class Step:
    """Updates the discriminator on real and on detached fake images, then the generator on the same fakes.

    Mixed precision: the networks run under autocast; weights, losses and optimizer state are fp32. fp16 scales the
    loss, so that small gradients do not vanish; gradients are unscaled before anything looks at them.
    """

    def __init__(self, generator: Generator, discriminator: Discriminator, config: Config):
        self.generator = generator
        self.discriminator = discriminator
        self.generator_loss = GENERATOR_LOSSES[config.loss]
        self.device = config.device
        self.dtype = AUTOCAST_DTYPES.get(config.precision)
        self.generator_optimizer, self.discriminator_optimizer = (
            Adam(network.parameters(), lr=config.lr, betas=config.betas, fused=True)
            for network in (generator, discriminator)
        )
        self.scaler = torch.amp.GradScaler(config.device, enabled=config.precision == "fp16")

    def __call__(self, images: Tensor, labels: Tensor, latents: Tensor) -> Tensor:
        """Takes one step.

        Args:
            images: uint8 (n, channels, height, width).
            labels: int64 (n,); the fakes get the same ones.
            latents: float32 (n, latent_dim).

        Returns:
            The losses of the discriminator and of the generator, fp32 (2,), on the device: reading them waits for it.
        """
        real = images.float() / 127.5 - 1
        label = labels if self.generator.config.classes else None

        with self._autocast():
            fake = self.generator(latents, label)
            # One pass over both: the same logits in half the kernels.
            both = torch.cat((real, fake.detach()))
            real_logits, fake_logits = self.discriminator(both, None if label is None else label.repeat(2)).chunk(2)
        loss_discriminator = discriminator_loss(real_logits, fake_logits)
        self._update(self.discriminator_optimizer, loss_discriminator)

        self.discriminator.requires_grad_(False)  # spares its weight gradients, which nobody would use
        with self._autocast():
            fake_logits = self.discriminator(fake, label)
        loss_generator = self.generator_loss(fake_logits)
        self._update(self.generator_optimizer, loss_generator)
        self.discriminator.requires_grad_(True)

        self.scaler.update()
        return torch.stack((loss_discriminator.detach(), loss_generator.detach()))

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device, self.dtype, enabled=self.dtype is not None)

    def _update(self, optimizer: Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(optimizer)
        self.scaler.step(optimizer)
