"""Training state: everything that a training step changes, and therefore everything that exact resume needs."""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.optim import Adam

from models.checkpoint import Checkpoint
from models.networks import NetworkConfig, build_discriminator, build_generator, is_own
from models.onnx_file.card import Dataset
from training.augmentation import AUGMENTATIONS
from training.config import Config
from training.provenance import training_record
from training.widths import resolve_widths

STEP_METRICS = (
    "loss_discriminator",
    "loss_generator",
    "penalty",
    "logit_real",
    "logit_fake",
    "gradient_discriminator",
    "gradient_generator",
)
"""Metrics that are averaged over the steps of an epoch. The logits are means over the batch, and the gradients are
L2 norms over all weights of a network, after unscaling and without clipping."""

_SCALER_FIELDS = ("scale", "_growth_tracker")
"""Entries of a GradScaler's state that change during training."""


def generator_config(config: Config, dataset: Dataset) -> NetworkConfig:
    """Returns the architecture of the generator that a run trains on this data.

    Raises:
        ValueError: no network can have these sizes.
    """
    classes = len(dataset.class_names) if config.conditional else 0
    widths, _ = resolve_widths(config, dataset.image_shape)
    return NetworkConfig(
        config.generator,
        dataset.image_shape,
        widths,
        classes,
        config.latent_dim,
        source_sha256=config.generator_sha256,
    )


def discriminator_config(config: Config, dataset: Dataset) -> NetworkConfig:
    """Returns the architecture of the discriminator that a run trains on this data.

    Raises:
        ValueError: no network can have these sizes.
    """
    return NetworkConfig(
        config.discriminator,
        dataset.image_shape,
        resolve_widths(config, dataset.image_shape)[1],
        len(dataset.class_names) if config.conditional else 0,
        normalization=config.discriminator_normalization,
        source_sha256=config.discriminator_sha256,
    )


class State:
    """Networks, EMA, optimizers, loss scaler and metric sums of a run, on its training device.

    Weights, EMA and optimizer states are float32 in every precision; the weights of the networks of this package have
    the channels-last memory format.
    """

    def __init__(self, config: Config, dataset: Dataset):
        """Initializes the networks from `config.seed`, with the same weights on any device.

        Raises:
            ValueError: the networks cannot be built for images of this shape.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.generator = build_generator(generator_config(config, dataset))
            self.discriminator = build_discriminator(discriminator_config(config, dataset))
        for network in (self.generator, self.discriminator):
            network.to(config.device)
            if not is_own(network.config.architecture):  # it may call Tensor.view, which needs the plain layout
                network.to(memory_format=torch.channels_last)
        self.ema = copy.deepcopy(self.generator).requires_grad_(False) if config.ema_half_life else None
        """Generator whose weights are the exponential moving average (EMA) of the trained ones; None keeps no EMA."""

        on_gpu = config.device == "cuda"
        self.generator_optimizer, self.discriminator_optimizer = (
            Adam(
                network.parameters(),
                # A CUDA graph reads the learning rate from a tensor; it would store a number as a constant.
                lr=torch.tensor(config.lr, device="cuda") if on_gpu else config.lr,
                betas=config.betas,
                fused=True,
                capturable=on_gpu,
            )
            for network in (self.generator, self.discriminator)
        )
        self.scaler = torch.amp.GradScaler(config.device, enabled=config.precision == "fp16")
        """Loss scaler for fp16; disabled in other precisions."""
        self.images_seen = 0
        """Number of real images that the discriminator was trained on, over all processes, repetitions included."""
        adaptive = config.augment in AUGMENTATIONS and AUGMENTATIONS[config.augment].adaptive
        self.augment_probability = torch.zeros((), device=config.device) if adaptive else None
        """Probability of each change of `--augment ada`: float32 scalar; None for other augmentations."""
        self.metric_names = ("overfitting", *STEP_METRICS) if adaptive else STEP_METRICS
        """Names of the metrics of a step."""
        self.metric_sums = torch.zeros(len(self.metric_names), dtype=torch.float64, device=config.device)
        """Sums of the metrics over the steps since the last reset: float64 (metrics,)."""
        self.metric_steps = torch.zeros((), dtype=torch.int64, device=config.device)
        """Number of steps in the sums: int64 scalar. Steps in which fp16 skipped an update are not among them."""
        self.skipped_updates = torch.zeros((), dtype=torch.int64, device=config.device)
        """Updates of either network that fp16 skipped in the run because a gradient was not finite: int64 scalar."""

    @property
    def inference_generator(self) -> nn.Module:
        """The generator that is sampled and exported: the EMA if the run keeps one, else the trained generator."""
        return self.generator if self.ema is None else self.ema

    def metrics(self) -> dict[str, float]:
        """Returns the means of the metrics since the last reset, `skipped_updates` and, for `ada`, the present
        `augment_probability`. Synchronizes with the device."""
        means = self.metric_sums / self.metric_steps.clamp(min=1)
        counts = {"skipped_updates": self.skipped_updates.item()}
        if self.augment_probability is not None:
            counts["augment_probability"] = self.augment_probability.item()
        return dict(zip(self.metric_names, means.tolist(), strict=True)) | counts

    def reset_metrics(self) -> None:
        """Sets the metric sums to zero, for a new epoch. `skipped_updates` continues to count."""
        self.metric_sums.zero_()
        self.metric_steps.zero_()

    @torch.no_grad()
    def weights_are_finite(self) -> bool:
        """Reports whether the L2 norm over all weights and buffers of the networks is finite. Synchronizes with the
        device."""
        weights = [tensor for _, tensor in self._network_tensors() if tensor.is_floating_point()]
        return bool(nn.utils.get_total_norm(weights).isfinite())

    def checkpoint(self, config: Config, dataset: Dataset) -> Checkpoint:
        """Returns a checkpoint of the state together with its provenance. Its tensors share memory with the state."""
        return Checkpoint(self.tensors(), self.generator.config, dataset, training_record(config, self.images_seen))

    def tensors(self) -> dict[str, Tensor]:
        """Returns all tensors of the state by name, such as "ema.<weight>" or "generator_optimizer.<weight>.exp_avg".

        `images_seen` is not among them. The tensors of the optimizers exist only after the first step.
        """
        scaler = self.scaler.state_dict()
        return dict(self._live_tensors()) | {
            f"scaler.{name}": torch.tensor(scaler[name], dtype=torch.float64)
            for name in _SCALER_FIELDS
            if name in scaler
        }

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Copies tensors that `tensors()` returned into the state, in place. Set `images_seen` separately.

        Raises:
            ValueError: a tensor is missing or has another shape.
            KeyError: a tensor of the loss scaler is missing.
        """
        for part, network, optimizer in self._optimizers():
            for name, weight in network.named_parameters():
                if f"{part}.{name}.step" not in tensors:
                    continue  # a weight without a gradient, which a network of the user may have
                optimizer.state[weight] = {
                    # The same tensors that Adam makes in its first step.
                    "step": torch.zeros((), device=weight.device),
                    "exp_avg": torch.zeros_like(weight, memory_format=torch.preserve_format),
                    "exp_avg_sq": torch.zeros_like(weight, memory_format=torch.preserve_format),
                }
        for name, tensor in self._live_tensors():
            if name not in tensors or tensors[name].shape != tensor.shape:
                raise ValueError(f"the checkpoint has no tensor {name} of shape {[*tensor.shape]}")
            tensor.copy_(tensors[name])
        scaler = self.scaler.state_dict()
        restored = {
            name: type(scaler[name])(tensors[f"scaler.{name}"].item()) for name in _SCALER_FIELDS if name in scaler
        }
        self.scaler.load_state_dict(scaler | restored)

    def _optimizers(self) -> tuple[tuple[str, nn.Module, Adam], ...]:
        """Returns each optimizer with its name in a checkpoint and its network."""
        return (
            ("generator_optimizer", self.generator, self.generator_optimizer),
            ("discriminator_optimizer", self.discriminator, self.discriminator_optimizer),
        )

    def _network_tensors(self) -> Iterator[tuple[str, Tensor]]:
        networks = {"generator": self.generator, "discriminator": self.discriminator}
        if self.ema is not None:
            networks["ema"] = self.ema
        for part, network in networks.items():
            for name, tensor in network.state_dict().items():
                yield f"{part}.{name}", tensor

    @torch.no_grad()
    def _live_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yields all tensors except those of the loss scaler, by name and without copying."""
        yield from self._network_tensors()
        for part, network, optimizer in self._optimizers():
            for name, weight in network.named_parameters():
                for moment, tensor in optimizer.state[weight].items():
                    yield f"{part}.{name}.{moment}", tensor
        yield "progress.sums", self.metric_sums
        yield "progress.steps", self.metric_steps
        yield "progress.skipped", self.skipped_updates
        if self.augment_probability is not None:
            yield "progress.augment_probability", self.augment_probability
