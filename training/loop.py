"""The training loop: epochs of steps over shuffled batches, a checkpoint and a line in the journal after each."""

import importlib.metadata
import json
import math
import platform
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models import checkpoint as checkpoints
from models import latents as addresses
from models.card import Training
from models.checkpoint import Checkpoint
from models.files import write_atomically
from models.networks import Discriminator, Generator, NetworkConfig
from training import data as datasets
from training.config import Config
from training.journal import Journal, loss_figures
from training.step import Step, resolve_device, resolve_precision

SAMPLE_SEED = 0
"""The sheets show images 0, 1, 2, ... of this seed, as `sample` would draw them from the exported file."""


class RunError(ValueError):
    """A run that cannot start, or cannot go on."""


@dataclass
class Stop:
    """Set when the user or the system asks the run to end."""

    received: signal.Signals | None = None


def train(config: Config) -> signal.Signals | None:
    """Trains a GAN into the folder `config.out`.

    Returns:
        The signal that ended the run early, if one did. The checkpoint is saved all the same.

    Raises:
        RunError, DataError, PrecisionError: it cannot start, or it diverged; the last good checkpoint is kept.
    """
    device = resolve_device(config.device)
    config = replace(config, device=device, precision=resolve_precision(config.precision, device))
    if (config.out / "config.json").exists():
        raise RunError(f"{config.out} holds a run already; choose another --out, or delete it")
    data = datasets.load(config.dataset, config.data_dir).to(torch.device(device))
    batches = len(data) // config.batch_size
    if not batches:
        raise RunError(f"--batch-size {config.batch_size} is more than the {len(data):,} images of {config.dataset}")

    generator, discriminator = _networks(config, data.info)
    step = Step(generator, discriminator, config)
    samples = addresses.draw(
        SAMPLE_SEED, 0, config.sample_images, config.latent_dim, data.info.class_counts if config.conditional else ()
    )

    def save(images_seen: int) -> None:
        training = Training(config.model_fields(), images_seen, config.seed, _git_commit(), _versions())
        checkpoints.save(Checkpoint(generator, data.info, training), config.out)

    config.out.mkdir(parents=True, exist_ok=True)
    write_atomically(config.out / "config.json", json.dumps(config.to_dict(), indent=2).encode() + b"\n")
    images_seen = 0
    with Journal(config.out) as journal, _stop_on_signal() as stop:
        journal.say(
            f"{config.preset} on {config.dataset}: {len(data):,} images, {config.epochs} epochs of {batches} batches, "
            f"{config.device}, {config.precision}"
        )
        for epoch in range(1, config.epochs + 1):
            started = time.perf_counter()
            advance = journal.start_epoch(epoch, config.epochs, batches)
            losses = []
            for index in _shuffled_batches(len(data), config, epoch):
                latents = torch.randn(
                    config.batch_size,
                    config.latent_dim,
                    generator=_random(config.seed, "latents", images_seen, device),
                    device=device,
                )
                losses.append(step(data.images[index], data.labels[index], latents))
                images_seen += config.batch_size
                advance()
                if stop.received:
                    save(images_seen)
                    journal.say(f"{stop.received.name}: saved {config.out} after {images_seen:,} images")
                    return stop.received

            figures = loss_figures(torch.stack(losses))
            if not all(map(math.isfinite, figures.values())):
                raise RunError(
                    f"the losses of epoch {epoch} are not finite ({figures}); {config.out} keeps the checkpoint of "
                    "the epoch before; try a lower --lr or --precision fp32"
                )
            seconds = time.perf_counter() - started
            save(images_seen)
            journal.end_epoch(
                {
                    "epoch": epoch,
                    "images_seen": images_seen,
                    **figures,
                    "seconds": seconds,
                    "images_per_second": batches * config.batch_size / seconds,
                },
                _sample(generator, *samples),
            )
    return None


def _networks(config: Config, data: datasets.Dataset) -> tuple[Generator, Discriminator]:
    """Fresh networks; the same ones for the same seed, on any device."""
    classes = len(data.class_names) if config.conditional else 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        generator = Generator(NetworkConfig(data.image_shape, config.generator_widths, classes, config.latent_dim))
        discriminator = Discriminator(NetworkConfig(data.image_shape, config.discriminator_widths, classes))
    return generator.to(config.device), discriminator.to(config.device)


def _shuffled_batches(n: int, config: Config, epoch: int) -> tuple[Tensor, ...]:
    """Index batches of one size; the images left over wait for another epoch's order."""
    order = torch.randperm(n, generator=_random(config.seed, "order", epoch, config.device), device=config.device)
    return order[: n - n % config.batch_size].split(config.batch_size)


def _random(seed: int, stream: str, position: int, device: str) -> torch.Generator:
    """Random numbers that depend on where the training stands and on nothing else (the way of EDM2, Karras 2024)."""
    key = np.random.SeedSequence((seed, ("order", "latents").index(stream), position)).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(key[0]) >> 1)


@torch.inference_mode()
def _sample(generator: Generator, latents: np.ndarray, labels: np.ndarray | None) -> Tensor:
    device = next(generator.parameters()).device
    inputs = (torch.from_numpy(array).to(device) for array in (latents, labels) if array is not None)
    return generator(*inputs)


@contextmanager
def _stop_on_signal() -> Iterator[Stop]:
    """Turns the first Ctrl-C or SIGTERM into a request; a second one acts at once."""
    stop = Stop()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: int, _: object) -> None:
        stop.received = signal.Signals(number)
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in before:
        signal.signal(number, handle)
    try:
        yield stop
    finally:
        restore()


def _git_commit() -> str | None:
    """Of the source tree that this runs from; None where it was installed as a package."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return None
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True)
    return git.stdout.strip() or None


def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in ("torch", "numpy", "torchvision")
    }
