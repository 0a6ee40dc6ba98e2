"""Everything that a training step changes, and nothing else: what a checkpoint must hold for a run to go on exactly."""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.optim import Adam

from models.networks import NetworkConfig, build_discriminator, build_generator
from models.onnx_file.card import Dataset
from training.config import Config
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
"""What is averaged over the steps of an epoch. The gradients are 2-norms over all weights of a network."""


def generator_config(config: Config, data: Dataset) -> NetworkConfig:
    """The generator that a run trains on this data.

    Raises:
        ValueError: a number that no network could have.
    """
    classes = len(data.class_names) if config.conditional else 0
    widths, _ = resolve_widths(config, data.image_shape)
    return NetworkConfig(config.generator, data.image_shape, widths, classes, config.latent_dim)


class State:
    """The networks, the average of the generator, the optimizers, the loss scale, and the sums behind the metrics."""

    def __init__(self, config: Config, data: Dataset):
        """Fresh networks: the same ones for the same seed, on any device.

        Raises:
            ValueError: the networks cannot be built for images of this shape.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.generator = build_generator(generator_config(config, data))
            self.discriminator = build_discriminator(
                NetworkConfig(
                    config.discriminator,
                    data.image_shape,
                    resolve_widths(config, data.image_shape)[1],
                    self.generator.config.classes,
                    normalization=config.discriminator_normalization,
                )
            )
        for network in (self.generator, self.discriminator):
            network.to(config.device).to(memory_format=torch.channels_last)
        self.ema = copy.deepcopy(self.generator).requires_grad_(False) if config.ema_half_life else None

        on_gpu = config.device == "cuda"
        self.generator_optimizer, self.discriminator_optimizer = (
            Adam(
                network.parameters(),
                lr=torch.tensor(config.lr, device="cuda") if on_gpu else config.lr,  # a captured step reads it anew
                betas=config.betas,
                fused=True,
                capturable=on_gpu,
            )
            for network in (self.generator, self.discriminator)
        )
        self.scaler = torch.amp.GradScaler(config.device, enabled=config.precision == "fp16")
        self.images_seen = 0
        self.sums = torch.zeros(len(STEP_METRICS), dtype=torch.float64, device=config.device)
        """Of the metrics, over the steps of the epoch so far."""
        self.steps = torch.zeros((), dtype=torch.int64, device=config.device)
        """Number of steps behind the sums: those of the epoch so far in which fp16 skipped no update."""
        self.skipped = torch.zeros((), dtype=torch.int64, device=config.device)
        """Updates of the whole run that fp16 had no finite gradients for."""

    @property
    def sampler(self) -> nn.Module:
        """The generator that is shown and exported."""
        return self.generator if self.ema is None else self.ema

    def metrics(self) -> dict[str, float]:
        """The means over the epoch so far. Waits for the device."""
        means = self.sums / self.steps.clamp(min=1)
        return dict(zip(STEP_METRICS, means.tolist(), strict=True)) | {"skipped_updates": self.skipped.item()}

    @torch.no_grad()
    def finite(self) -> bool:
        """Reports whether the weights are finite, and small enough for their squares to be. Waits for the device."""
        weights = [tensor for _, tensor in self._network_tensors() if tensor.is_floating_point()]
        return bool(nn.utils.get_total_norm(weights).isfinite())

    def reset_metrics(self) -> None:
        self.sums.zero_()
        self.steps.zero_()

    def tensors(self) -> dict[str, Tensor]:
        """All of it by name, for a checkpoint."""
        scale = self.scaler.state_dict()
        return dict(self._live_tensors()) | {
            f"scaler.{name}": torch.tensor(scale[name], dtype=torch.float64) for name in _SCALER if name in scale
        }

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Undoes `tensors`, in place.

        Raises:
            ValueError: they are of another kind of run.
        """
        for optimizer in (self.generator_optimizer, self.discriminator_optimizer):
            for weight in optimizer.param_groups[0]["params"]:
                optimizer.state[weight] = {
                    # As Adam makes them at its first step.
                    "step": torch.zeros((), device=weight.device),
                    "exp_avg": torch.zeros_like(weight, memory_format=torch.preserve_format),
                    "exp_avg_sq": torch.zeros_like(weight, memory_format=torch.preserve_format),
                }
        for name, tensor in self._live_tensors():
            if name not in tensors or tensors[name].shape != tensor.shape:
                raise ValueError(f"the checkpoint has no {name} of shape {[*tensor.shape]}")
            tensor.copy_(tensors[name])
        scale = self.scaler.state_dict()
        restored = {name: type(scale[name])(tensors[f"scaler.{name}"].item()) for name in _SCALER if name in scale}
        self.scaler.load_state_dict(scale | restored)

    def _network_tensors(self) -> Iterator[tuple[str, Tensor]]:
        networks = {"generator": self.generator, "discriminator": self.discriminator}
        if self.ema is not None:
            networks["ema"] = self.ema
        for part, network in networks.items():
            for name, tensor in network.state_dict().items():
                yield f"{part}.{name}", tensor

    @torch.no_grad()
    def _live_tensors(self) -> Iterator[tuple[str, Tensor]]:
        yield from self._network_tensors()
        for part, network, optimizer in (
            ("generator_optimizer", self.generator, self.generator_optimizer),
            ("discriminator_optimizer", self.discriminator, self.discriminator_optimizer),
        ):
            for name, weight in network.named_parameters():
                for moment, tensor in optimizer.state[weight].items():
                    yield f"{part}.{name}.{moment}", tensor
        for name in ("sums", "steps", "skipped"):
            yield f"progress.{name}", getattr(self, name)


_SCALER = ("scale", "_growth_tracker")
"""What changes in a GradScaler."""
