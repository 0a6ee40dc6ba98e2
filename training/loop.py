"""The training loop: trains batch by batch, and saves a checkpoint and logs metrics after every epoch.

Time is counted in images. Resume is exact, because every batch is drawn from the seed and the number of images seen
(`training.batches`), and a checkpoint contains everything that a step changes (`training.state`).
"""

import json
import math
import signal
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from models.checkpoint import save_checkpoint
from models.common.files import write_atomically
from models.common.lock import lock_folder
from training.batches import Batches
from training.config import Config
from training.cuda_graph import with_cuda_graph
from training.distributed import process_group
from training.divergence import check_divergence
from training.resume import describe_changes
from training.run_logger import RunLogger
from training.samples import generate, grid_latents
from training.setup import Run, make_evaluator, prepare, resolve_config
from training.signals import StopRequest, stop_on_signal
from training.step import Step
from training.throughput import Throughput, slowdown_warning

if TYPE_CHECKING:
    from training.evaluation.training_metrics import TrainingEvaluator

PROGRESS_SECONDS = 0.2
"""Interval in which the progress bar is updated."""
DIVERGENCE_CHECK_SECONDS = 2.0
"""Interval in which a single process checks for divergence within an epoch. Each check synchronizes with the device."""


def train(config: Config, resume: bool = False) -> signal.Signals | None:
    """Trains a GAN into the folder `config.out`.

    Args:
        resume: whether to continue the run in that folder from its newest checkpoint.

    Returns:
        SIGINT or SIGTERM if it ended the run early, after saving a checkpoint; None if the run is complete.

    Raises:
        LockedError: another process is training into the folder.
        RunError, ResumeError, DataError, PrecisionError, CheckpointError: the run cannot start, or it diverged. The
            last good checkpoint is kept.
        OSError: config.json, a checkpoint, or the folder of the run cannot be written.
    """
    config = resolve_config(config)
    with process_group(config.device) as group, ExitStack() as stack:
        with group.raise_in_all_processes():
            if group.is_main_process:
                stack.enter_context(lock_folder(config.out))
        run = prepare(config, resume, group)
        logger = evaluator = None
        with group.raise_in_all_processes():
            if group.is_main_process:
                evaluator = make_evaluator(run)
                logger = stack.enter_context(_open_logger(run, resume))
        stop = stack.enter_context(stop_on_signal())
        return _training_loop(run, logger, evaluator, stop)


def _training_loop(
    run: Run, logger: RunLogger | None, evaluator: "TrainingEvaluator | None", stop: StopRequest
) -> signal.Signals | None:
    """Trains until the total of images is reached or a signal arrives.

    Args:
        logger: logs of the run in the main process; None in the others.
        evaluator: measures the generator every `config.evaluate_every` epochs; None measures nothing.

    Returns:
        the signal that ended the run early, or None.

    Raises:
        RunError: training diverged.
    """
    config, state, group = run.config, run.state, run.group
    assert config.images is not None
    total_images = math.ceil(config.images / config.batch_size) * config.batch_size
    batches = Batches(run.data, config, group)
    step = Step(state, config, group)
    run_step = with_cuda_graph(step)
    latents, labels = grid_latents(config, run.data.info)

    def epoch_ended() -> bool:
        seen = state.images_seen
        return seen > 0 and (seen % batches.epoch_images == 0 or seen >= total_images)

    def log_epoch(images: int, seconds: float) -> None:
        if logger:
            epoch = math.ceil(state.images_seen / batches.epoch_images)
            metrics = _epoch_metrics(run, evaluator, epoch, images, seconds)
            logger.log_epoch(metrics, generate(state.inference_generator, latents, labels))

    if logger:
        logger.start(config, run.data, batches.epoch_images, total_images, group.size)
        if logger.last_logged_images < state.images_seen and epoch_ended():
            log_epoch(0, 0.0)  # the run was killed between saving the checkpoint and logging the epoch
    if epoch_ended():
        state.reset_metrics()
    epoch_start_images, epoch_start = state.images_seen, time.perf_counter()
    last_progress = last_check = epoch_start
    throughput = Throughput(epoch_start)

    while state.images_seen < total_images:
        step.schedule(total_images)
        run_step(batches.at(state.images_seen))
        state.images_seen += config.batch_size

        now = time.perf_counter()
        slow_rate = throughput.step(config.batch_size, now)
        if logger and slow_rate is not None and (warning := slowdown_warning(config, throughput.best, slow_rate)):
            logger.print_line(warning)

        if epoch_ended():
            _save_checkpoint(run)
            log_epoch(state.images_seen - epoch_start_images, time.perf_counter() - epoch_start)
            state.reset_metrics()
            epoch_start_images, epoch_start = state.images_seen, time.perf_counter()
            last_progress = last_check = epoch_start
            throughput.skip_to(epoch_start)
        elif group.size == 1 and now - last_check > DIVERGENCE_CHECK_SECONDS:
            check_divergence(state, config, group)
            last_check = now
        if logger and now - last_progress > PROGRESS_SECONDS:
            logger.update_progress(state.images_seen)
            last_progress = now

        if received := stop.agreed(group, steps=state.images_seen // config.batch_size):
            _save_checkpoint(run)
            if logger:
                logger.print_line(
                    f"{received.name}: saved a checkpoint of {config.out} after {state.images_seen:,} images"
                )
            return received
    return None


def _open_logger(run: Run, resume: bool) -> RunLogger:
    """Writes config.json, opens the logs, and prints what --init copied, or how a resumed run differs from its stored
    configuration."""
    config, images_seen = run.config, run.state.images_seen
    changes = describe_changes(Config.load(config.out), config, images_seen) if resume and images_seen else []
    write_atomically(config.out / "config.json", json.dumps(config.to_dict(), indent=2).encode() + b"\n")
    logger = RunLogger(config.out, images_seen)
    for line in (*run.initialization, *changes):
        logger.print_line(line)
    return logger


def _save_checkpoint(run: Run) -> None:
    """Saves a checkpoint from the main process, unless training has diverged. Every process has to call it.

    Raises:
        RunError: training has diverged.
    """
    check_divergence(run.state, run.config, run.group)
    if run.group.is_main_process:
        save_checkpoint(run.state.checkpoint(run.config, run.data.info), run.config.out)


def _epoch_metrics(
    run: Run, evaluator: "TrainingEvaluator | None", epoch: int, images: int, seconds: float
) -> dict[str, Any]:
    """Returns the entry of metrics.jsonl for an epoch.

    Args:
        epoch: number of the epoch, from 1.
        images, seconds: images on which this process trained in the epoch, and the time that took. In a resumed run
            they cover only the rest of its first epoch.
    """
    state = run.state
    metrics = {
        "epoch": epoch,
        "images_seen": state.images_seen,
        **state.metrics(),
        "lr": float(state.generator_optimizer.param_groups[0]["lr"]),
        "seconds": seconds,
        "images_per_second": images / seconds if seconds else 0.0,
    }
    if evaluator and epoch % run.config.evaluate_every == 0:
        metrics |= evaluator(partial(generate, state.inference_generator))
    return metrics
