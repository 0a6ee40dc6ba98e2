"""One training step: a batch in, one update of both networks."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from models.common.errors import MnistGanError
from models.networks.pixels import normalize
from training.config import Config
from training.distributed import Group
from training.losses import LOSSES
from training.penalties import finite_difference, squared_gradient_norms, wasserstein_gp, zero_centred
from training.schedules import decay, ema_beta, ramp
from training.state import State

AUTOCAST_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
FINITE_DIFFERENCE_SIGMA = 0.1

Batch = dict[str, Tensor]
"""images uint8 (n, channels, height, width), labels int64 (n,), latents float32 (n, latent_dim); where the generator
learns from data of its own, the same with "generator_" before the name; noise for penalties that need it."""


class PrecisionError(MnistGanError):
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
    """Updates the discriminator on real and on detached fake images, then the generator; and keeps its average.

    Nothing here waits for the device: metrics are summed on it, and what changes over the run is written into tensors
    that live on it, so that the whole step can be captured in a CUDA graph.

    Mixed precision: the networks run under autocast; weights, losses, penalties, averages and optimizer state are fp32.
    fp16 scales the loss, so that small gradients do not vanish; gradients are unscaled before anything looks at them.
    """

    def __init__(self, state: State, config: Config, group: Group = Group()):  # noqa: B008  # it is frozen
        self.state = state
        self.config = config
        self.group = group
        self.loss = LOSSES[config.loss]
        self.dtype = AUTOCAST_DTYPES.get(config.precision)
        self.one = torch.ones((), device=config.device)
        self.gamma = torch.tensor(config.gamma, device=config.device)
        self.ema_weight = torch.zeros((), device=config.device)
        """The share of the average that each step replaces."""
        # Batch statistics of reals and fakes together would tell the discriminator which is which.
        self.joint = not any(isinstance(layer, nn.BatchNorm2d) for layer in state.discriminator.modules())

    def schedule(self, total_images: int) -> None:
        """Sets what changes over the run to its value for the images seen, those of the coming step included."""
        config, seen = self.config, self.state.images_seen + self.config.batch_size
        lr = config.lr * decay(config.lr_schedule, seen, total_images, config.lr_warmup, config.lr_end)
        beta2 = ramp(seen, config.burn_in, _or(config.beta2_start, config.betas[1]), config.betas[1])
        for optimizer in (self.state.generator_optimizer, self.state.discriminator_optimizer):
            for weights in optimizer.param_groups:
                if isinstance(weights["lr"], Tensor):
                    weights["lr"].fill_(lr)
                else:
                    weights["lr"] = lr
                weights["betas"] = (config.betas[0], beta2)
        self.gamma.fill_(ramp(seen, config.burn_in, _or(config.gamma_start, config.gamma), config.gamma))
        self.ema_weight.fill_(1 - ema_beta(seen, config.batch_size, config.ema_half_life))

    def __call__(self, batch: Batch) -> None:
        state = self.state
        real, label = normalize(batch["images"]), self._label(batch["labels"])
        fresh = self.config.generator_data == "fresh"

        with torch.set_grad_enabled(not fresh):
            fake = self._generate(batch["latents"], label)
        real_logits, fake_logits, penalty = self._discriminate(real, fake.detach(), label, batch)
        loss_discriminator = self.loss.discriminator(real_logits, fake_logits)
        gradient_discriminator = self._update(
            state.discriminator, state.discriminator_optimizer, loss_discriminator + penalty
        )

        state.discriminator.requires_grad_(False)  # spares its weight gradients, which nobody would use
        if fresh:
            real, label = normalize(batch["generator_images"]), self._label(batch["generator_labels"])
            fake = self._generate(batch["generator_latents"], label)
        with self._autocast():
            fake_logits_for_generator = state.discriminator(fake, label)
            real_logits_for_generator = state.discriminator(real, label) if self.loss.relativistic else None
        loss_generator = self.loss.generator(fake_logits_for_generator, real_logits_for_generator)
        gradient_generator = self._update(state.generator, state.generator_optimizer, loss_generator)
        state.discriminator.requires_grad_(True)

        state.scaler.update()
        self._update_ema()
        self._record(
            loss_discriminator,
            loss_generator,
            penalty,
            real_logits.float().mean(),
            fake_logits.float().mean(),
            gradient_discriminator,
            gradient_generator,
        )

    @torch.no_grad()
    def _record(self, *metrics: Tensor) -> None:
        """Adds the metrics of a step to the sums, unless fp16 has skipped an update: then they are not finite.

        Without fp16 no update is skipped, and what is not finite has to enter the sums, because it is in the weights.
        """
        state, values = self.state, torch.stack(metrics)
        if not state.scaler.is_enabled():
            state.sums += values
            state.steps += 1
            return
        skipped = ~values[-2:].isfinite()  # the two gradients
        # On the device: neither a wait for it nor a branch, so that a CUDA graph can hold it.
        state.sums += values.masked_fill(skipped.any(), 0)
        state.steps += ~skipped.any()
        state.skipped += skipped.sum()

    def _generate(self, latents: Tensor, label: Tensor | None) -> Tensor:
        """Returns images in fp32 in any precision of the network, since penalties combine them with real images."""
        with self._autocast():
            return self.state.generator(latents, label).float()

    def _discriminate(
        self, real: Tensor, fake: Tensor, label: Tensor | None, batch: Batch
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The discriminator's logits of reals and of fakes, and its penalty."""
        discriminator, penalty = self.state.discriminator, self.config.penalty
        if not self.joint:
            with self._autocast():
                return discriminator(real, label), discriminator(fake, label), self.one * 0

        # One pass over both: the same logits in half the kernels.
        both, labels = torch.cat((real, fake)), None if label is None else label.repeat(2)
        both.requires_grad_(penalty in ("r1", "r2", "r1+r2"))
        with self._autocast():
            logits = discriminator(both, labels)
        real_logits, fake_logits = logits.chunk(2)

        match penalty:
            case "none":
                return real_logits, fake_logits, self.one * 0
            case "finite-difference":
                with self._autocast():
                    noisy = discriminator(both + FINITE_DIFFERENCE_SIGMA * batch["noise"], labels)
                squares = finite_difference(logits, noisy, FINITE_DIFFERENCE_SIGMA)
                return real_logits, fake_logits, 2 * zero_centred(squares, self.gamma)
            case "wgan-gp":
                between = torch.lerp(fake, real, batch["noise"]).requires_grad_()
                with self._autocast():
                    logits = discriminator(between, label)
                squares = squared_gradient_norms(logits, between, self._scale())
                return real_logits, fake_logits, wasserstein_gp(squares, self.gamma)
            case _:
                squares = squared_gradient_norms(logits, both, self._scale())
                of_real, of_fake = (zero_centred(half, self.gamma) for half in squares.chunk(2))
                parts = {"r1": of_real, "r2": of_fake, "r1+r2": of_real + of_fake}
                return real_logits, fake_logits, parts[penalty]

    def _update(self, network: nn.Module, optimizer: Optimizer, loss: Tensor) -> Tensor:
        """Takes an optimizer step, and returns the norm of the gradient."""
        scaler = self.state.scaler
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        gradients = [weight.grad for weight in network.parameters() if weight.grad is not None]
        self.group.all_reduce_mean(gradients)
        scaler.unscale_(optimizer)
        norm = nn.utils.get_total_norm(gradients)
        scaler.step(optimizer)
        return norm

    @torch.no_grad()
    def _update_ema(self) -> None:
        if self.state.ema is None:
            return
        for mean, weight in zip(self.state.ema.parameters(), self.state.generator.parameters(), strict=True):
            mean.lerp_(weight, self.ema_weight)
        for copied, buffer in zip(self.state.ema.buffers(), self.state.generator.buffers(), strict=True):
            copied.copy_(buffer)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.config.device, self.dtype, enabled=self.dtype is not None)

    def _scale(self) -> Tensor:
        return self.state.scaler.scale(self.one)

    def _label(self, labels: Tensor) -> Tensor | None:
        return labels if self.config.conditional else None


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
