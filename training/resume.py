"""Continuing a run: checks that its checkpoint fits the data and the configuration, and reports the changes.

Exactness itself comes from `training.batches` (draws keyed by images seen) and `training.state` (everything that is
saved).
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from models.checkpoint import Checkpoint, CheckpointError, find_checkpoints, load_checkpoint
from models.common.errors import MnistGanError
from models.onnx_file.card import Dataset
from training.config import Config
from training.schedules import decay
from training.state import State

MAX_DIFFERENCES = 5
"""Maximum number of differences between two data sets that an error message lists."""


class ResumeError(MnistGanError):
    """A run cannot be continued with this data or up to this total of images."""


def load_run_checkpoint(config: Config, data: Dataset) -> Checkpoint | None:
    """Loads the newest checkpoint of the run in `config.out`.

    Returns:
        the checkpoint, or None if the run ended before it saved one, and therefore starts from the beginning.

    Raises:
        CheckpointError: the checkpoint is damaged.
        ResumeError: the run was trained on other data; the message lists the differences.
    """
    if not find_checkpoints(config.out):
        return None
    checkpoint = load_checkpoint(config.out)
    if data != checkpoint.dataset:
        differences = "; ".join(_shortened(list(_differences(checkpoint.dataset, data))))
        raise ResumeError(
            f"{config.data_dir}: this is not the data that {config.out} was trained on: {differences}. Restore the "
            f"data, or start a new run from the weights of this one: --init {config.out}"
        )
    return checkpoint


def restore_state(state: State, checkpoint: Checkpoint, run: Path) -> None:
    """Copies a checkpoint into the state.

    Args:
        run: folder of the run, for the error message.

    Raises:
        CheckpointError: the checkpoint belongs to other networks or another precision.
    """
    try:
        state.restore(checkpoint.tensors)
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"{run}: the checkpoint does not fit config.json: {error}") from error
    state.images_seen = checkpoint.training.images_seen or 0


def check_total(config: Config, images_seen: int) -> None:
    """Checks that a run has not seen more images than its total, `config.images`, which must be set.

    Raises:
        ResumeError: it has seen more.
    """
    assert config.images is not None
    if images_seen - config.images >= config.batch_size:  # the last batch exceeds the total by less than a batch
        raise ResumeError(
            f"{config.out} has already seen {images_seen:,} images, more than the new total of {config.images:,}; "
            "give a larger total, or omit it to keep that of the run"
        )


def describe_changes(before: Config, after: Config, images_seen: int) -> list[str]:
    """Describes how a changed configuration affects a run that continues after `images_seen` images, one line each."""
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
                "total; the result differs from that of a run that was started with this total"
            )
    if before.device != after.device:
        lines.append(
            f"the run continues on {after.device} instead of {before.device}, which draws other random numbers and "
            "rounds differently"
        )
    return lines


def _differences(before: Dataset, after: Dataset) -> Iterator[str]:
    """Describes the differences between two versions of a data set, one at a time."""
    if before.image_shape != after.image_shape:
        yield f"its images have the shape {_shape(after)} and had {_shape(before)} (channels x height x width)"
    old, new = (dict(zip(data.class_names, data.class_weights, strict=True)) for data in (before, after))
    if before.sha256 == after.sha256 and len(old) == len(new):
        for old_name, new_name in zip(old, new, strict=True):
            if old_name != new_name:
                yield f"class {old_name!r} is now called {new_name!r}"
        return
    for name in old.keys() - new.keys():
        yield f"class {name!r} with {old[name]:,} images was removed"
    for name in new.keys() - old.keys():
        yield f"class {name!r} with {new[name]:,} images was added"
    for name in old:
        if new.get(name, old[name]) != old[name]:
            yield f"class {name!r} has {new[name]:,} images and had {old[name]:,}"
    if old == new and before.image_shape == after.image_shape:
        yield "each class has as many images as before, but images were altered, exchanged or reordered"


def _shape(data: Dataset) -> str:
    return "x".join(map(str, data.image_shape))


def _shortened(lines: Sequence[str]) -> list[str]:
    rest = len(lines) - MAX_DIFFERENCES
    return [*islice(lines, MAX_DIFFERENCES)] + ([f"and {rest:,} more"] if rest > 0 else [])
