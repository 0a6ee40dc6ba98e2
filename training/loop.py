"""The training loop: batches through the step until the images are seen; an epoch ends in a checkpoint and a line.

Time is counted in images. Exact resume: every batch is drawn from the seed and the images seen (`training.batches`),
and a checkpoint holds everything that a step changes (`training.state`).
"""

import importlib.metadata
import json
import math
import platform
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from models import checkpoint as checkpoints
from models import latents as addresses
from models.architectures import multiply_adds, parameter_count
from models.card import Training
from models.checkpoint import Checkpoint, CheckpointError
from models.errors import MnistGanError
from models.files import write_atomically
from training import data as datasets
from training import distributed
from training.batches import Batches
from training.capture import captured_where_possible
from training.config import Config
from training.data import Images
from training.distributed import Group
from training.journal import Journal
from training.state import State
from training.step import Step, resolve_device, resolve_precision
from training.throughput import Throughput

if TYPE_CHECKING:
    from training.evaluation.quality import Quality

SAMPLE_SEED = 0
"""The sheets show images 0, 1, 2, ... of this seed, as `sample` would draw them from the exported file."""
WARMUP_SECONDS = 10.0
"""How long speed is measured before --minutes becomes a number of images."""
REFRESH_SECONDS = 0.2
CHECK_SECONDS = 2.0
"""How often the figures are read within an epoch, to stop a run that has diverged. Reading waits for the device."""
DIVERGED_LOGIT = 1e5
"""Of a mean logit: beyond any that a discriminator in a working game has, and still finite."""
SIGNAL_STEPS = 50
"""Steps between asking the other processes whether one has been told to stop."""


class RunError(MnistGanError):
    """A run that cannot start, or cannot go on."""


@dataclass
class Stop:
    """Set when the user or the system asks the run to end."""

    received: signal.Signals | None = None


def train(config: Config, resume: bool = False) -> signal.Signals | None:
    """Trains a GAN into the folder `config.out`.

    Returns:
        The signal that ended the run early, if one did. A checkpoint is saved all the same.

    Raises:
        RunError, DataError, PrecisionError, CheckpointError: it cannot start, or it diverged; the last good checkpoint
            is kept.
    """
    config = _resolve(config)
    with distributed.group(config.device) as group, ExitStack() as stack:
        if config.batch_size % group.size:
            raise RunError(f"--batch-size {config.batch_size} cannot be shared by {group.size} processes")
        # A folder without a checkpoint holds nothing that could be lost: a run that could not start, or soon diverged.
        if not resume and group.agree(group.leads and bool(checkpoints.find(config.out)), config.device):
            raise RunError(f"{config.out} holds a run already; choose another --out, or go on with it: --resume")
        if config.deterministic:
            torch.use_deterministic_algorithms(True)
        data = _load(config)
        if config.images is None:
            config = replace(config, images=_images_to_train(config, data, group))
        assert config.images is not None
        if config.lr_warmup >= config.images:
            raise RunError(f"--lr-warmup {config.lr_warmup:,} must be below the run's {config.images:,} images")
        state = _begin(config, data)
        quality = _quality(config, data) if config.evaluate_every and group.leads else None
        if group.leads:
            config.out.mkdir(parents=True, exist_ok=True)
            write_atomically(config.out / "config.json", json.dumps(config.to_dict(), indent=2).encode() + b"\n")
        if resume:
            _restore(state, config)
        journal = stack.enter_context(Journal(config.out, state.images_seen)) if group.leads else None
        stop = stack.enter_context(_stop_on_signal())
        return _Run(config, data, state, group, journal, quality, stop).finish()


def dry_run(config: Config) -> str:
    """What a run would be: its configuration and its networks."""
    config = _resolve(config)
    data = _load(config)
    state = State(config, data.info)
    label = (torch.zeros(1, dtype=torch.int64, device=config.device),) if config.conditional else ()
    latent = torch.zeros(1, config.latent_dim, device=config.device)
    image = torch.zeros(1, *data.info.image_shape, device=config.device)
    lines = [json.dumps(config.to_dict(), indent=2)]
    for name, example in (("generator", latent), ("discriminator", image)):
        network = getattr(state, name)
        lines.append(
            f"{name} ({network.config.architecture}): {parameter_count(network):,} parameters, "
            f"{multiply_adds(network, example, *label):,} multiply-adds an image"
        )
    return "\n".join(lines)


class _Run:
    """One process's part in a run, from where its state stands to the end."""

    def __init__(
        self,
        config: Config,
        data: Images,
        state: State,
        group: Group,
        journal: Journal | None,
        quality: "Quality | None",
        stop: Stop,
    ):
        self.config, self.data, self.state, self.group = config, data, state, group
        self.journal, self.quality, self.stop = journal, quality, stop
        assert config.images is not None
        self.batches = Batches(data, config, group)
        self.total = math.ceil(config.images / config.batch_size) * config.batch_size
        self.step = Step(state, config, group)
        self.advance = captured_where_possible(self.step)
        self.samples = addresses.draw(
            SAMPLE_SEED,
            0,
            config.sample_images,
            config.latent_dim,
            data.info.class_counts if config.conditional else (),
        )

    def finish(self) -> signal.Signals | None:
        """Trains until the images are seen, or a signal comes."""
        state, config = self.state, self.config
        if self.journal:
            self.journal.begin(config, self.data, self.total, self.group.size)
            if self._ends_epoch() and self.journal.images_told < state.images_seen:
                self._end_epoch(0.0)  # it was killed between the checkpoint and the line
        if self._ends_epoch():
            state.reset_figures()
        started = refreshed = checked = time.perf_counter()
        throughput = Throughput(started)
        while state.images_seen < self.total:
            self.step.schedule(self.total)
            self.advance(self.batches.at(state.images_seen))
            state.images_seen += config.batch_size

            now = time.perf_counter()
            if (rate := throughput.step(config.batch_size, now)) is not None:
                self._warn_of_slowdown(throughput.best, rate)
            if self._ends_epoch():
                self._check()
                self._save()
                if self.journal:
                    self._end_epoch(time.perf_counter() - started)
                state.reset_figures()
                started = refreshed = checked = time.perf_counter()
                throughput.skip_to(started)
            elif now - checked > CHECK_SECONDS and self.group.size == 1:
                self._check()
                checked = now
            if self.journal and now - refreshed > REFRESH_SECONDS:
                self.journal.advance(state.images_seen)
                refreshed = now
            if received := self._stop_requested():
                self._save()
                if self.journal:
                    self.journal.say(f"{received.name}: saved {config.out} after {state.images_seen:,} images")
                return received
        return None

    def _warn_of_slowdown(self, before: float, now: float) -> None:
        """Explains how to avoid that threads wait for a CPU that another program uses."""
        threads = self.config.threads
        if self.journal and self.config.device == "cpu" and threads is not None and threads > 1:
            self.journal.say(
                f"Warning: training has slowed down from {before:,.0f} to {now:,.0f} images/s. If other programs use "
                f"the CPUs, the {threads} threads of this run block each other. Interrupt it (it saves first) and go "
                f"on with OMP_NUM_THREADS=1 train --resume {self.config.out}"
            )

    def _ends_epoch(self) -> bool:
        seen = self.state.images_seen
        return seen > 0 and (seen % self.batches.epoch_images == 0 or seen >= self.total)

    def _end_epoch(self, seconds: float) -> None:
        assert self.journal
        state, epoch_images = self.state, self.batches.epoch_images
        images = state.steps.item() * self.config.batch_size
        figures = {
            "epoch": math.ceil(state.images_seen / epoch_images),
            "images_seen": state.images_seen,
            **state.figures(),
            "lr": float(state.generator_optimizer.param_groups[0]["lr"]),
            "seconds": seconds,
            "images_per_second": images / seconds if seconds else 0.0,
        }
        if self.quality and figures["epoch"] % self.config.evaluate_every == 0:
            figures |= self.quality(partial(_sample, state))
        self.journal.end_epoch(figures, _sample(state, *self.samples))

    def _check(self) -> None:
        """Raises:
        RunError: a figure is not finite, or the logits have run away.
        """
        self.group.average([self.state.sums])
        figures = self.state.figures()
        finite = all(map(math.isfinite, figures.values()))
        if finite and max(abs(figures["logit_real"]), abs(figures["logit_fake"])) < DIVERGED_LOGIT:
            return
        told = ", ".join(f"{name} {value:.3g}" for name, value in figures.items())
        kept = checkpoints.find(self.config.out)
        raise RunError(
            f"diverged after {self.state.images_seen:,} images: {told}; "
            + (f"the last good checkpoint is {kept[-1]}" if kept else "there was no checkpoint yet")
            + "; try a lower --lr, a larger --gamma or --precision fp32"
        )

    def _save(self) -> None:
        if self.group.leads:
            training = Training(
                self.config.model_fields(), self.state.images_seen, self.config.seed, _git_commit(), _versions()
            )
            checkpoints.save(
                Checkpoint(self.state.tensors(), self.state.generator.config, self.data.info, training),
                self.config.out,
            )

    def _stop_requested(self) -> signal.Signals | None:
        if self.group.size == 1:
            return self.stop.received
        # Processes hear of a signal at different steps, and have to end after the same one.
        if self.state.images_seen // self.config.batch_size % SIGNAL_STEPS:
            return None
        number = int(self.group.agree(float(self.stop.received or 0), self.config.device))
        return signal.Signals(number) if number else None


def _resolve(config: Config) -> Config:
    """Names the device, the precision and the number of CPU threads, which it sets, and makes paths absolute: the run
    can be gone on with from anywhere.
    """
    device = resolve_device(config.device)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    return replace(
        config,
        device=device,
        threads=torch.get_num_threads(),
        precision=resolve_precision(config.precision, device),
        data_dir=config.data_dir.resolve(),
        init=config.init and config.init.resolve(),
    )


def _load(config: Config) -> Images:
    data = datasets.load(config.dataset, config.data_dir, config.image_size, config.channels).to(
        torch.device(config.device)
    )
    if config.batch_size > len(data):
        raise RunError(f"--batch-size {config.batch_size} is more than the {len(data):,} images of {config.dataset}")
    return data


def _begin(config: Config, data: Images) -> State:
    """The state before the first step.

    Raises:
        RunError: the networks do not fit the images, or the weights of --init the networks.
    """
    try:
        state = State(config, data.info)
    except ValueError as error:
        raise RunError(str(error)) from error
    if config.init:
        source = checkpoints.load(config.init)
        try:
            state.sampler.load_state_dict(source.part("average") or source.part("generator"))
            state.generator.load_state_dict(state.sampler.state_dict())
            state.discriminator.load_state_dict(source.part("discriminator"))
        except RuntimeError as error:
            raise RunError(f"--init {config.init} has other networks than this run: {error}") from error
    return state


def _quality(config: Config, data: Images) -> "Quality":
    # Imported only now: whoever does not measure should not wait for scikit-learn.
    from training.evaluation.quality import Quality

    try:
        return Quality(data, config.data_dir, config.latent_dim, config.conditional)
    except MnistGanError as error:
        raise RunError(f"--evaluate-every: {error}") from error


def _restore(state: State, config: Config) -> None:
    if not checkpoints.find(config.out):
        return  # killed before its first one: the run begins anew
    checkpoint = checkpoints.load(config.out)
    try:
        state.restore(checkpoint.tensors)
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"{config.out}: the checkpoint does not fit config.json: {error}") from error
    state.images_seen = checkpoint.training.images_seen


def _images_to_train(config: Config, data: Images, group: Group) -> int:
    """How many images --epochs or --minutes are. Speed is measured on a state that is thrown away."""
    batches = Batches(data, config, group)
    if config.minutes is None:
        return max(config.batch_size, round(config.epochs * batches.epoch_images))
    state = State(config, data.info)
    step = Step(state, config, group)
    advance = captured_where_possible(step)
    seconds = min(WARMUP_SECONDS, 6 * config.minutes)
    begun = started = time.perf_counter()
    measured = 0
    while time.perf_counter() - begun < seconds:
        step.schedule(total_images=10**9)
        advance(batches.at(state.images_seen))
        state.images_seen += config.batch_size
        if not measured and time.perf_counter() - begun > seconds / 4:
            state.figures()  # waits for the device
            started, measured = time.perf_counter(), state.images_seen
    state.figures()
    rate = (state.images_seen - measured) / (time.perf_counter() - started)
    # The largest of the group's: each must train for the same number.
    return int(group.agree(max(config.batch_size, rate * 60 * config.minutes), config.device))


@torch.inference_mode()
def _sample(state: State, latents: np.ndarray, labels: np.ndarray | None) -> Tensor:
    network = state.sampler
    device = next(network.parameters()).device
    inputs = [torch.from_numpy(array).to(device) for array in (latents, labels) if array is not None]
    training = network.training
    try:
        return network.eval()(*inputs)
    finally:
        network.train(training)


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
