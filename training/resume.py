"""Continuing a run: its checkpoint has to fit the data and the configuration, and its end has to lie ahead."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from models.checkpoint import Checkpoint, CheckpointError, find_checkpoints, load_checkpoint
from models.common.errors import MnistGanError
from models.onnx_file.card import Dataset
from training.config import Config
from training.schedules import decay
from training.state import State

DIFFERENCES = 5
"""How many differences between two versions of the data a message lists at most."""


class ResumeError(MnistGanError):
    """A run that cannot be continued with this data or up to this total."""


def load_run_checkpoint(config: Config, data: Dataset) -> Checkpoint | None:
    """The newest checkpoint of a run, or None where it ended before its first one and begins anew.

    Raises:
        CheckpointError: the checkpoint is damaged.
        ResumeError: the data is not what the run was trained on; the message names the differences.
    """
    if not find_checkpoints(config.out):
        return None
    checkpoint = load_checkpoint(config.out)
    if data != checkpoint.dataset:
        differences = "; ".join(_shortened(list(_differences(checkpoint.dataset, data))))
        raise ResumeError(
            f"{config.data_dir}: the data is not what {config.out} was trained on: {differences}. Restore it, or begin "
            f"a new run from the weights of this one: --init {config.out}"
        )
    return checkpoint


def restore_state(state: State, checkpoint: Checkpoint, run: Path) -> None:
    """Raises:
    CheckpointError: the checkpoint is one of other networks or another precision.
    """
    try:
        state.restore(checkpoint.tensors)
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"{run}: the checkpoint does not fit config.json: {error}") from error
    state.images_seen = checkpoint.training.images_seen or 0


def check_total(config: Config, images_seen: int) -> None:
    """Raises:
    ResumeError: the run has seen more images than its new total.
    """
    assert config.images is not None
    if images_seen - config.images >= config.batch_size:  # the last batch goes beyond the total by less than a batch
        raise ResumeError(
            f"{config.out} has seen {images_seen:,} images already, more than the new total of {config.images:,}"
        )


def describe_changes(before: Config, after: Config, images_seen: int) -> list[str]:
    """What continuing with a changed configuration does to a run, a line each."""
    lines = []
    if before.images is not None and after.images is not None and before.images != after.images:
        lines.append(f"the total changes from {before.images:,} to {after.images:,} images")
        if after.lr_schedule != "constant":
            old, new = (
                config.lr * decay(config.lr_schedule, images_seen, config.images or 1, config.lr_warmup, config.lr_end)
                for config in (before, after)
            )
            lines.append(
                f"--lr-schedule {after.lr_schedule} depends on the total: after {images_seen:,} images the learning "
                f"rate changes from {old:.3g} to {new:.3g}, and then falls to {after.lr * after.lr_end:.3g} at the new "
                "total; the result differs from that of a run that was begun with this total"
            )
    if before.device != after.device:
        lines.append(f"continuing on {after.device} instead of {before.device}, which computes other bits")
    return lines


def _differences(before: Dataset, now: Dataset) -> Iterator[str]:
    """What changed from one version of the data to another."""
    if before.image_shape != now.image_shape:
        yield f"its images have the shape {_shape(now)} and had {_shape(before)} (channels x height x width)"
    had, has = (dict(zip(data.class_names, data.class_weights, strict=True)) for data in (before, now))
    if before.sha256 == now.sha256 and len(had) == len(has):
        for old, new in zip(had, has, strict=True):
            if old != new:
                yield f"class {old!r} is now called {new!r}"
        return
    for name in had.keys() - has.keys():
        yield f"class {name!r} with {had[name]:,} images was removed"
    for name in has.keys() - had.keys():
        yield f"class {name!r} with {has[name]:,} images was added"
    for name in had:
        if has.get(name, had[name]) != had[name]:
            yield f"class {name!r} has {has[name]:,} images and had {had[name]:,}"
    if had == has and before.image_shape == now.image_shape:
        yield "each class has as many images as before, but images were altered, exchanged or put in another order"


def _shape(data: Dataset) -> str:
    return "x".join(map(str, data.image_shape))


def _shortened(lines: Sequence[str]) -> list[str]:
    rest = len(lines) - DIFFERENCES
    return [*islice(lines, DIFFERENCES)] + ([f"and {rest:,} more"] if rest > 0 else [])
