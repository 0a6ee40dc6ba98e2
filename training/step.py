"""One training step: updates the discriminator, the generator and the EMA on one batch."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from models.networks import is_own
from models.networks.own_checks import has_batch_norm
from models.networks.pixels import normalize
from training.augmentation import AUGMENTATIONS, adapt, overfitting
from training.batches import Batch
from training.config import Config
from training.distributed import Group
from training.losses import LOSSES
from training.penalties import finite_difference, squared_gradient_norms, wasserstein_gp, zero_centred
from training.precision import AUTOCAST_DTYPES
from training.schedules import decay, ema_beta, ramp
from training.state import State

FINITE_DIFFERENCE_SIGMA = 0.1
"""Standard deviation of the noise of the finite-difference penalty, on images in [-1, 1]."""


class Step:
    """Callable that runs one training step on a batch and changes `state` in place.

    A step never synchronizes with the device: metrics are summed on the device, and scheduled values are tensors there.
    Therefore the whole step can be captured in a CUDA graph (`training.cuda_graph`).

    Mixed precision: the networks run under autocast. Weights, losses, penalties, EMA and optimizer states are float32.
    For fp16 the loss is scaled, so that small gradients do not underflow (Micikevicius et al., 2018, "Mixed precision
    training"), and gradients are unscaled before they are measured or applied.
    """

    def __init__(self, state: State, config: Config, group: Group = Group()):  # noqa: B008  # it is frozen
        self.state = state
        self.config = config
        self.group = group
        self.loss = LOSSES[config.loss]
        self.augmentation = AUGMENTATIONS.get(config.augment)
        self.autocast_dtype = AUTOCAST_DTYPES.get(config.precision)
        """Dtype of the networks under autocast; None runs them in float32."""
        self.one = torch.ones((), device=config.device)
        self.gamma = torch.tensor(config.gamma, device=config.device)
        """Weight of the penalty in the coming step: float32 scalar."""
        self.ema_weight = torch.zeros((), device=config.device)
        """Share of the EMA that the coming step replaces, 1 - beta: float32 scalar in [0, 1]."""
        # Batch normalization needs separate passes, so that its statistics do not mix real and fake images.
        self.joint_pass = not has_batch_norm(state.discriminator)
        """Whether the discriminator sees reals and fakes in one forward pass.

        This gives the same logits and launches half as many kernels.
        """

    def schedule(self, total_images: int) -> None:
        """Sets learning rate, Adam's beta2, penalty weight and EMA decay for the coming step. Call it before each step.

        A network of the user may draw random numbers in training, such as Dropout. They are seeded here by the images
        seen, so that resume stays exact.

        The values are those of `training.schedules` after `state.images_seen` plus one batch.

        Args:
            total_images: length of the run in images.
        """
        config, seen = self.config, self.state.images_seen + self.config.batch_size
        if is_own(config.generator) or is_own(config.discriminator):
            torch.manual_seed(int(np.random.SeedSequence((config.seed, seen, self.group.rank)).generate_state(1)[0]))
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
        """Runs one step: discriminator update, generator update, EMA update, metrics.

        With `--augment`, all images are augmented before the discriminator sees them, so x and G(z) stand for augmented
        images in its logits and penalties.

        1. The discriminator minimizes loss.discriminator(D(x), D(G(z))) + penalty with Adam, at fixed G.
        2. The generator minimizes loss.generator(D(G(z)), D(x)) with Adam, at fixed D. It uses the examples in
           `batch.generator`; if that is None, it reuses the examples and the fakes of the discriminator's update.
        3. ema = beta * ema + (1 - beta) * weights, see `training.schedules.ema_beta`.
        4. The metrics of the step are added to `state.metric_sums`.

        In a group, gradients are averaged over the processes before each update. `state.images_seen` does not change:
        the training loop increases it by the global batch size.

        Args:
            batch: n real images (uint8), labels and latents, on the training device; see `training.batches.Batch`.
        """
        state, examples = self.state, batch.discriminator
        real, labels = normalize(examples.images), self._labels(examples.labels)

        with torch.set_grad_enabled(batch.generator is None):  # the generator's update needs the graph of these fakes
            fake = self._generate(examples.latents, labels)
        real_logits, fake_logits, penalty = self._discriminate(
            self._augment(real, batch, 0), self._augment(fake.detach(), batch, 1), labels, batch.noise
        )
        loss_discriminator = self.loss.discriminator(real_logits, fake_logits)
        gradient_discriminator = self._update(
            state.discriminator, state.discriminator_optimizer, loss_discriminator + penalty
        )

        state.discriminator.requires_grad_(False)  # skips the weight gradients of the discriminator, which are unused
        if batch.generator is not None:
            real, labels = normalize(batch.generator.images), self._labels(batch.generator.labels)
            fake = self._generate(batch.generator.latents, labels)
        fake = self._augment(fake, batch, 2)
        if self.loss.relativistic:
            real = self._augment(real, batch, 3)
        with self._autocast():
            fake_logits_for_generator = state.discriminator(fake, labels)
            real_logits_for_generator = state.discriminator(real, labels) if self.loss.relativistic else None
        loss_generator = self.loss.generator(fake_logits_for_generator, real_logits_for_generator)
        gradient_generator = self._update(state.generator, state.generator_optimizer, loss_generator)
        state.discriminator.requires_grad_(True)

        state.scaler.update()
        self._update_ema()
        self._add_metrics(
            *self._adapt_augmentation(real_logits, fake_logits),
            loss_discriminator,
            loss_generator,
            penalty,
            real_logits.float().mean(),
            fake_logits.float().mean(),
            gradient_discriminator,
            gradient_generator,
        )

    def _generate(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        """Returns fake images in float32 in any precision, because penalties combine them with real images.

        Args:
            latents: float32 (n, latent_dim).
            labels: int64 (n,), or None for an unconditional generator.

        Returns:
            (n, channels, height, width) in [-1, 1].
        """
        with self._autocast():
            return self.state.generator(latents, labels).float()

    def _augment(self, images: Tensor, batch: Batch, use: int) -> Tensor:
        """Returns the images as the discriminator sees them.

        Args:
            images: float32 (n, channels, height, width).
            use: index of the random numbers in the second dimension of `Batch.augmentation`.
        """
        if self.augmentation is None:
            return images
        assert batch.augmentation is not None
        return self.augmentation.function(images, batch.augmentation[:, use], self.state.augment_probability)

    def _adapt_augmentation(self, real_logits: Tensor, fake_logits: Tensor) -> tuple[Tensor, ...]:
        """Adapts the probability of the augmentation to the logits of the discriminator's update.

        Returns:
            the overfitting statistic, a float32 scalar, if the augmentation is adaptive; otherwise nothing.
        """
        if self.state.augment_probability is None:
            return ()
        measured = overfitting(real_logits, fake_logits, self.loss.only_differences)
        self.group.all_reduce_mean([measured])
        adapt(self.state.augment_probability, measured, self.config.batch_size)
        return (measured,)

    def _discriminate(
        self, real: Tensor, fake: Tensor, labels: Tensor | None, noise: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Runs the discriminator and computes its penalty.

        Args:
            real, fake: float32 (n, channels, height, width) in [-1, 1]; `fake` is detached from the generator.
            labels: int64 (n,), or None for an unconditional discriminator.
            noise: see `Batch.noise`.

        Returns:
            the logits of the reals and of the fakes, in the precision of the network, and the penalty multiplied by
            its weight, a float32 scalar (0 if there is no penalty).
        """
        discriminator, penalty = self.state.discriminator, self.config.penalty
        if not self.joint_pass:
            with self._autocast():
                return discriminator(real, labels), discriminator(fake, labels), self.one * 0

        both, both_labels = torch.cat((real, fake)), None if labels is None else labels.repeat(2)
        both.requires_grad_(penalty in ("r1", "r2", "r1+r2"))
        with self._autocast():
            logits = discriminator(both, both_labels)
        real_logits, fake_logits = logits.chunk(2)

        match penalty:
            case "none":
                return real_logits, fake_logits, self.one * 0
            case "finite-difference":
                assert noise is not None
                with self._autocast():
                    noisy = discriminator(both + FINITE_DIFFERENCE_SIGMA * noise, both_labels)
                squares = finite_difference(logits, noisy, FINITE_DIFFERENCE_SIGMA)
                # The mean runs over reals and fakes, so twice the mean estimates R1 + R2.
                return real_logits, fake_logits, 2 * zero_centred(squares, self.gamma)
            case "wgan-gp":
                assert noise is not None
                interpolated = torch.lerp(fake, real, noise).requires_grad_()
                with self._autocast():
                    logits = discriminator(interpolated, labels)
                squares = squared_gradient_norms(logits, interpolated, self._loss_scale())
                return real_logits, fake_logits, wasserstein_gp(squares, self.gamma)
            case _:
                squares = squared_gradient_norms(logits, both, self._loss_scale())
                r1, r2 = (zero_centred(half, self.gamma) for half in squares.chunk(2))
                return real_logits, fake_logits, {"r1": r1, "r2": r2, "r1+r2": r1 + r2}[penalty]

    def _update(self, network: nn.Module, optimizer: Optimizer, loss: Tensor) -> Tensor:
        """Updates a network by one optimizer step.

        fp16 skips the step on the device if a gradient is not finite.

        Args:
            loss: scalar, of this process's share of the batch.

        Returns:
            the L2 norm over all weights of the unscaled gradient, which is first averaged over the group: float32
            scalar.
        """
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
        """Moves the weights of the EMA towards the generator's, and copies its buffers."""
        if self.state.ema is None:
            return
        for mean, weight in zip(self.state.ema.parameters(), self.state.generator.parameters(), strict=True):
            mean.lerp_(weight, self.ema_weight)
        for target, buffer in zip(self.state.ema.buffers(), self.state.generator.buffers(), strict=True):
            target.copy_(buffer)

    @torch.no_grad()
    def _add_metrics(self, *metrics: Tensor) -> None:
        """Adds the metrics of a step to the sums, unless fp16 skipped an update: then they are not finite.

        Other precisions skip no update. There, a value that is not finite has reached the weights, so it must enter the
        sums, where `check_divergence` finds it.

        Args:
            metrics: scalars in the order of `state.metric_names`; the last two are the gradient norms.
        """
        state, values = self.state, torch.stack(metrics)
        if not state.scaler.is_enabled():
            state.metric_sums += values
            state.metric_steps += 1
            return
        skipped = ~values[-2:].isfinite()
        # A Python branch on `skipped` would synchronize with the device and could not be captured in a CUDA graph.
        state.metric_sums += values.masked_fill(skipped.any(), 0)
        state.metric_steps += ~skipped.any()
        state.skipped_updates += skipped.sum()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.config.device, self.autocast_dtype, enabled=self.autocast_dtype is not None)

    def _loss_scale(self) -> Tensor:
        """Returns the loss scale of fp16, or 1: scalar on the device."""
        return self.state.scaler.scale(self.one)

    def _labels(self, labels: Tensor) -> Tensor | None:
        return labels if self.config.conditional else None


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
