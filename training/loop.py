"""The training loop: batches through the step until the images are seen; an epoch ends in a checkpoint and a line.

Time is counted in images. Exact resume: every batch is drawn from the seed and the images seen (`training.batches`),
and a checkpoint holds everything that a step changes (`training.state`).
"""

import importlib.metadata
import json
import math
import os
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

from models.checkpoint import Checkpoint, check_readable, find_checkpoints, load_checkpoint, save_checkpoint
from models.common.errors import MnistGanError
from models.common.files import is_utf8, write_atomically
from models.common.lock import lock_folder
from models.export.exportable import check_exportable
from models.networks import multiply_adds, parameter_count
from models.onnx_file.card import Training
from models.onnx_file.latents import draw_latents
from training import distributed
from training.batches import Batches
from training.config import Config
from training.cuda_graph import with_cuda_graph
from training.data import LabelledImages, load_dataset
from training.distributed import Group
from training.duration import images_to_train
from training.resume import check_total, describe_changes, load_run_checkpoint, restore_state
from training.run_logger import RunLogger
from training.state import State, generator_config
from training.step import Step, resolve_device, resolve_precision
from training.throughput import Throughput
from training.widths import resolve_widths

if TYPE_CHECKING:
    from training.evaluation.training_metrics import Quality

SAMPLE_SEED = 0
"""The sheets show images 0, 1, 2, ... of this seed, as `sample` would draw them from the exported file."""
REFRESH_SECONDS = 0.2
CHECK_SECONDS = 2.0
"""How often the metrics are read within an epoch, to stop a run that has diverged. Reading waits for the device."""
DIVERGED_LOGIT = 1e5
"""Of a mean logit: beyond any that a discriminator in a working game has, and still finite."""
DIVERGED_LOSS_SCALE = 2.0**-8
"""Loss scale at which fp16 overflows in no working game. It starts at 2^16, and each skipped step halves it."""
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
        LockedError: another process is training into the folder.
        RunError, ResumeError, DataError, PrecisionError, CheckpointError: it cannot start, or it diverged; the last
            good checkpoint is kept.
    """
    config = _resolve(config)
    with distributed.group(config.device) as group, ExitStack() as stack:
        with group.raise_in_all_processes():
            if group.is_main_process:
                stack.enter_context(lock_folder(config.out))
        config, data, state = _prepare(config, resume, group)
        changes = []
        if resume and state.images_seen:
            changes = describe_changes(Config.load(config.out), config, state.images_seen)
            config = replace(config, minutes=None)  # they were additional: the total is in images
        with group.raise_in_all_processes():
            quality = _quality(config, data) if config.evaluate_every and group.is_main_process else None
            if group.is_main_process:
                write_atomically(config.out / "config.json", json.dumps(config.to_dict(), indent=2).encode() + b"\n")
            logger = stack.enter_context(RunLogger(config.out, state.images_seen)) if group.is_main_process else None
        if logger:
            for change in changes:
                logger.say(change)
        stop = stack.enter_context(_stop_on_signal())
        return _Run(config, data, state, group, logger, quality, stop).finish()


def dry_run(config: Config, resume: bool = False) -> str:
    """Checks everything that a run checks, and describes its configuration and its networks. Writes nothing.

    Raises:
        MnistGanError: as `train` would.
    """
    config, data, state = _prepare(_resolve(config), resume, Group(), dry=True)
    if config.evaluate_every:
        _quality(config, data)
    label = (torch.zeros(1, dtype=torch.int64, device=config.device),) if config.conditional else ()
    latent = torch.zeros(1, config.latent_dim, device=config.device)
    image = torch.zeros(1, *data.info.image_shape, device=config.device)
    lines = [json.dumps(config.to_dict(), indent=2), *data.summary]
    for name, example in (("generator", latent), ("discriminator", image)):
        network = getattr(state, name)
        lines.append(
            f"{name} ({network.config.architecture}): {parameter_count(network):,} parameters, "
            f"{multiply_adds(network, example, *label):,} multiply-adds an image"
        )
    return "\n".join(lines)


def _prepare(config: Config, resume: bool, group: Group, dry: bool = False) -> tuple[Config, LabelledImages, State]:
    """Does what a run does before it writes its first file: loads the data, builds or restores the state, checks all.

    Args:
        dry: whether to download nothing and not to measure the speed of training where --minutes says when to stop;
            then the configuration comes back without a number of images.

    Raises:
        MnistGanError: the run cannot start.
    """
    if config.batch_size % group.size:
        raise RunError(f"--batch-size {config.batch_size} cannot be shared by {group.size} processes")
    # A folder without a checkpoint holds nothing that could be lost: a run that could not start, or soon diverged.
    if not resume and group.all_reduce_max(group.is_main_process and bool(find_checkpoints(config.out)), config.device):
        raise RunError(f"{config.out} holds a run already; choose another --out, or go on with it: --resume")
    if config.deterministic:
        # cuBLAS gives the same bits twice only with a workspace of fixed size, and PyTorch refuses to run without.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    data = group.load(partial(_load, config, download=not dry))
    config = _with_widths(config, data)
    checkpoint = load_run_checkpoint(config, data.info) if resume else None
    state = _begin(config, data, checkpoint)
    if config.images is None and (config.minutes is None or not dry):
        images = images_to_train(config, data, group)
        config = replace(config, images=images if config.minutes is None else state.images_seen + images)
    if config.images is not None:
        if config.lr_warmup >= config.images:
            raise RunError(f"--lr-warmup {config.lr_warmup:,} must be below the run's {config.images:,} images")
        check_total(config, state.images_seen)
    return config, data, state


class _Run:
    """One process's part in a run, from where its state stands to the end."""

    def __init__(
        self,
        config: Config,
        data: LabelledImages,
        state: State,
        group: Group,
        logger: RunLogger | None,
        quality: "Quality | None",
        stop: Stop,
    ):
        self.config, self.data, self.state, self.group = config, data, state, group
        self.logger, self.quality, self.stop = logger, quality, stop
        assert config.images is not None
        self.batches = Batches(data, config, group)
        self.total = math.ceil(config.images / config.batch_size) * config.batch_size
        self.step = Step(state, config, group)
        self.advance = with_cuda_graph(self.step)
        self.samples = draw_latents(
            SAMPLE_SEED,
            0,
            config.sample_images,
            config.latent_dim,
            data.info.class_weights if config.conditional else (),
        )

    def finish(self) -> signal.Signals | None:
        """Trains until the images are seen, or a signal comes."""
        state, config = self.state, self.config
        if self.logger:
            self.logger.begin(config, self.data, self.total, self.group.size)
            if self._ends_epoch() and self.logger.images_logged < state.images_seen:
                self._end_epoch(0, 0.0)  # it was killed between the checkpoint and the line
        if self._ends_epoch():
            state.reset_metrics()
        first, started = state.images_seen, time.perf_counter()
        refreshed = checked = started
        throughput = Throughput(started)
        while state.images_seen < self.total:
            self.step.schedule(self.total)
            self.advance(self.batches.at(state.images_seen))
            state.images_seen += config.batch_size

            now = time.perf_counter()
            if (rate := throughput.step(config.batch_size, now)) is not None:
                self._warn_of_slowdown(throughput.best, rate)
            if self._ends_epoch():
                self._save()
                if self.logger:
                    self._end_epoch(state.images_seen - first, time.perf_counter() - started)
                state.reset_metrics()
                first, started = state.images_seen, time.perf_counter()
                refreshed = checked = started
                throughput.skip_to(started)
            elif now - checked > CHECK_SECONDS and self.group.size == 1:
                self._check()
                checked = now
            if self.logger and now - refreshed > REFRESH_SECONDS:
                self.logger.advance(state.images_seen)
                refreshed = now
            if received := self._stop_requested():
                self._save()
                if self.logger:
                    self.logger.say(f"{received.name}: saved {config.out} after {state.images_seen:,} images")
                return received
        return None

    def _warn_of_slowdown(self, before: float, now: float) -> None:
        """Explains how to avoid that threads wait for a CPU that another program uses."""
        threads = self.config.threads
        if self.logger and self.config.device == "cpu" and threads is not None and threads > 1:
            self.logger.say(
                f"Warning: training has slowed down from {before:,.0f} to {now:,.0f} images/s. If other programs use "
                f"the CPUs, the {threads} threads of this run block each other. Interrupt it (it saves first) and go "
                f"on with OMP_NUM_THREADS=1 train --resume {self.config.out}"
            )

    def _ends_epoch(self) -> bool:
        seen = self.state.images_seen
        return seen > 0 and (seen % self.batches.epoch_images == 0 or seen >= self.total)

    def _end_epoch(self, images: int, seconds: float) -> None:
        """Records an epoch, of which this process has trained `images` images in `seconds`: fewer after a resume."""
        assert self.logger
        state, epoch_images = self.state, self.batches.epoch_images
        metrics = {
            "epoch": math.ceil(state.images_seen / epoch_images),
            "images_seen": state.images_seen,
            **state.metrics(),
            "lr": float(state.generator_optimizer.param_groups[0]["lr"]),
            "seconds": seconds,
            "images_per_second": images / seconds if seconds else 0.0,
        }
        if self.quality and metrics["epoch"] % self.config.evaluate_every == 0:
            metrics |= self.quality(partial(_sample, state))
        self.logger.end_epoch(metrics, _sample(state, *self.samples))

    def _check(self) -> None:
        """Raises:
        RunError: a metric or a weight is not finite, the logits have run away, or fp16 skips every step.
        """
        self.group.all_reduce_mean([self.state.sums])
        metrics = self.state.metrics()
        problems = [f"{name} {value:.3g}" for name, value in metrics.items()]
        # The metrics of a step are those of the weights before it.
        finite = self.group.all_reduce_max(float(not self.state.finite()), self.config.device) == 0
        if not finite:
            problems.append("the weights are not finite")
        if stuck := self._skips_every_step():
            problems.append("fp16 skips every step")
        logit = max(abs(metrics["logit_real"]), abs(metrics["logit_fake"]))
        if all(map(math.isfinite, metrics.values())) and logit < DIVERGED_LOGIT and finite and not stuck:
            return
        kept = find_checkpoints(self.config.out)
        raise RunError(
            f"diverged after {self.state.images_seen:,} images: {', '.join(problems)}; "
            + (f"the last good checkpoint is {kept[-1]}" if kept else "there was no checkpoint yet")
            + "; try a lower --lr, a larger --gamma or --precision fp32"
        )

    def _skips_every_step(self) -> bool:
        """Reports whether fp16 finds no loss scale with which gradients are finite. A few skipped steps find one."""
        state = self.state
        if state.scaler.get_scale() < DIVERGED_LOSS_SCALE:
            return True
        never = state.skipped.item() >= state.images_seen // self.config.batch_size and not state.steps.item()
        return never and state.images_seen >= self.total

    def _save(self) -> None:
        """Writes a checkpoint, unless the run has diverged: that must not replace a good one.

        Raises:
            RunError: it has diverged.
        """
        self._check()
        if self.group.is_main_process:
            save_checkpoint(_checkpoint(self.config, self.data, self.state), self.config.out)

    def _stop_requested(self) -> signal.Signals | None:
        if self.group.size == 1:
            return self.stop.received
        # Processes hear of a signal at different steps, and have to end after the same one.
        if self.state.images_seen // self.config.batch_size % SIGNAL_STEPS:
            return None
        number = int(self.group.all_reduce_max(float(self.stop.received or 0), self.config.device))
        return signal.Signals(number) if number else None


def _resolve(config: Config) -> Config:
    """Names the device, the precision and the number of CPU threads, which it sets, and makes paths absolute: the run
    can be gone on with from anywhere.
    """
    device = resolve_device(config.device)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    config = replace(
        config,
        device=device,
        threads=torch.get_num_threads(),
        precision=resolve_precision(config.precision, device),
        data_dir=config.data_dir.resolve(),
        init=config.init and config.init.resolve(),
    )
    for option, path in (("out", config.out), ("data-dir", config.data_dir), ("init", config.init)):
        if path and not is_utf8(str(path)):
            raise RunError(f"--{option} {path}: the path is not valid UTF-8, so config.json cannot store it; rename it")
    return config


def _load(config: Config, download: bool = True) -> LabelledImages:
    data = load_dataset(config.dataset, config.data_dir, config.image_size, config.channels, download=download).to(
        torch.device(config.device)
    )
    if config.batch_size > len(data):
        raise RunError(f"--batch-size {config.batch_size} is more than the {len(data):,} images of {config.dataset}")
    return data


def _with_widths(config: Config, data: LabelledImages) -> Config:
    """Stores the widths that the size of the images led to."""
    generator, discriminator = resolve_widths(config, data.info.image_shape)
    return replace(config, generator_widths=generator, discriminator_widths=discriminator)


def _checkpoint(config: Config, data: LabelledImages, state: State) -> Checkpoint:
    training = Training(config.model_fields(), state.images_seen, config.seed, _git_commit(), _versions())
    return Checkpoint(state.tensors(), state.generator.config, data.info, training)


def _begin(config: Config, data: LabelledImages, checkpoint: Checkpoint | None) -> State:
    """The state before the first step, or after that of the checkpoint.

    Raises:
        RunError: the networks do not fit the images, the memory or a model file, or the weights of --init do not fit
            the networks.
        CheckpointError: the checkpoint does not fit the networks, or one of this run could not be read again.
    """
    try:
        check_exportable(generator_config(config, data.info))
        state = State(config, data.info)
    except (ValueError, RuntimeError) as error:  # PyTorch has no error of its own for sizes beyond the memory
        raise RunError(str(error)) from error
    check_readable(_checkpoint(config, data, state))
    if checkpoint:
        restore_state(state, checkpoint, config.out)
    elif config.init:
        source = load_checkpoint(config.init)
        try:
            state.sampler.load_state_dict(source.part("ema") or source.part("generator"))
            state.generator.load_state_dict(state.sampler.state_dict())
            state.discriminator.load_state_dict(source.part("discriminator"))
        except RuntimeError as error:
            raise RunError(f"--init {config.init} has other networks than this run: {error}") from error
    return state


def _quality(config: Config, data: LabelledImages) -> "Quality":
    # Imported only now: whoever does not measure should not wait for scikit-learn.
    from training.evaluation.training_metrics import Quality

    try:
        return Quality(data, config.data_dir, config.latent_dim, config.conditional)
    except MnistGanError as error:
        raise RunError(f"--evaluate-every: {error}") from error


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
