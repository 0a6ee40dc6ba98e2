"""Set-up of a training run: resolves its configuration, loads its data, builds its state, and checks all of them.

Checks everything that can prevent a run from starting, before config.json and the logs are written.
"""

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from models.checkpoint import Checkpoint, check_readable, find_checkpoints
from models.common.errors import InputError, MnistGanError
from models.common.files import is_utf8
from models.export.exportable import check_exportable
from models.networks import build_discriminator, is_own
from models.networks.own import NetworkError, OwnDiscriminator, find_network
from models.networks.own_checks import check_discriminator, has_batch_norm
from models.onnx_file.card import Dataset
from training.augmentation import FEW_IMAGES
from training.config import Config
from training.data import LabelledImages, load_dataset
from training.distributed import Group
from training.duration import images_to_train
from training.errors import RunError
from training.initial_weights import initialize_from
from training.precision import resolve_device, resolve_precision
from training.resume import check_total, load_run_checkpoint, restore_state
from training.state import State, discriminator_config, generator_config
from training.widths import resolve_widths

if TYPE_CHECKING:
    from training.evaluation.training_metrics import TrainingEvaluator


@dataclass(frozen=True)
class Run:
    """A run that is ready to train in this process."""

    config: Config
    """Configuration without "auto" or omitted values. `images` is the total; only in a dry run it can be None."""
    data: LabelledImages
    """Training images, on the training device."""
    state: State
    """Networks and optimizers, new or restored from the newest checkpoint."""
    group: Group
    """Processes that train the run together."""
    initialization: tuple[str, ...] = ()
    """Lines that list the tensors that were copied from the run of --init, and those that were not."""


def resolve_config(config: Config) -> Config:
    """Resolves device, precision and number of CPU threads, makes the paths of the data and of --init absolute, and
    adds the hashes of the source files of a user's networks.

    It also sets PyTorch's number of threads. Absolute paths let `--resume` work from any folder.

    Raises:
        PrecisionError: the device does not exist.
        RunError: a path is not valid UTF-8.
        NetworkError: a network of the user was not imported.
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
        generator_sha256=_source_sha256(config.generator, config.generator_sha256),
        discriminator_sha256=_source_sha256(config.discriminator, config.discriminator_sha256),
    )
    for option, path in (("out", config.out), ("data-dir", config.data_dir), ("init", config.init)):
        if path and not is_utf8(str(path)):
            raise RunError(f"--{option} {path}: the path is not valid UTF-8, so config.json cannot store it; rename it")
    return config


def _source_sha256(network: str, stored: str | None) -> str | None:
    """Returns the hash of the source file of a user's network: the stored one of a resumed run, or that of the file.

    The network compares it with the file when it is built.
    """
    return stored or (find_network(network).source_sha256 if is_own(network) else None)


def prepare(config: Config, resume: bool, group: Group, dry_run: bool = False) -> Run:
    """Loads the data and builds or restores the state. Every process of the group has to call it.

    With `config.deterministic` it also selects PyTorch's deterministic algorithms for the whole process, and sets
    CUBLAS_WORKSPACE_CONFIG if it is not set.

    Args:
        config: a configuration from `resolve_config`.
        resume: whether to continue the run in `config.out` from its newest checkpoint, or from the beginning if it has
            none. If False, a folder that contains a checkpoint is an error.
        dry_run: whether to download nothing, and to leave `config.images` as None where --minutes sets the duration,
            because that needs a measurement of the training speed.

    Raises:
        MnistGanError: the run cannot start.
    """
    if config.batch_size % group.size:
        raise RunError(
            f"--batch-size {config.batch_size} cannot be divided equally among {group.size} processes; "
            f"use a multiple of {group.size}"
        )
    # A folder without a checkpoint may be reused: its run did not start, or it diverged before the first checkpoint.
    if not resume and group.all_reduce_max(group.is_main_process and bool(find_checkpoints(config.out))):
        raise RunError(f"{config.out} already contains a run; choose another --out, or continue the run with --resume")
    if config.deterministic:
        # cuBLAS is deterministic only with a workspace of fixed size; PyTorch raises an error if this is not set.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    data = group.local_main_process_first(lambda: _load_data(config, download=not dry_run))
    config, data = _choose_augmentation(config, data)
    generator_widths, discriminator_widths = resolve_widths(config, data.info.image_shape)
    config = replace(
        config, generator_widths=generator_widths or None, discriminator_widths=discriminator_widths or None
    )
    checkpoint = load_run_checkpoint(config, data.info) if resume else None
    state, initialization = _build_state(config, data, checkpoint)
    config = _with_total(config, data, state, group, dry_run)
    return Run(config, data, state, group, initialization)


def make_evaluator(run: Run) -> "TrainingEvaluator | None":
    """Returns the evaluator for `--evaluate-every`, or None if that is 0.

    Raises:
        RunError: the generator cannot be evaluated on this data set.
    """
    if not run.config.evaluate_every:
        return None
    # A local import, because it loads scikit-learn, which runs without evaluation do not need.
    from training.evaluation.training_metrics import TrainingEvaluator

    try:
        return TrainingEvaluator(run.data, run.config.data_dir, run.config.latent_dim, run.config.conditional)
    except MnistGanError as error:
        reason = error.message if isinstance(error, InputError) else error
        raise RunError(f"--evaluate-every: {reason}") from error


def _load_data(config: Config, download: bool) -> LabelledImages:
    data = load_dataset(
        config.dataset,
        config.data_dir,
        config.image_size,
        config.channels,
        config.fit,
        config.background,
        download=download,
    )
    if config.batch_size > len(data):
        raise RunError(f"--batch-size {config.batch_size} is more than the {len(data):,} images of {config.dataset}")
    return data.to(torch.device(config.device))


def _choose_augmentation(config: Config, data: LabelledImages) -> tuple[Config, LabelledImages]:
    """Resolves `--augment auto`, and adds a line about the augmentation to the summary of the data."""
    chosen, reason = config.augment, ""
    if chosen == "auto":
        few = config.dataset == "folder" and len(data) < FEW_IMAGES
        chosen = "ada" if few else "none"  # it changes nothing unless the discriminator overfits
        if few:
            reason = f", because the folder has fewer than {FEW_IMAGES:,} images; --augment none turns it off"
    note = () if chosen == "none" else (f"augmentation of the images: {chosen}{reason}",)
    return replace(config, augment=chosen), replace(data, summary=(*data.summary, *note))


def _build_state(config: Config, data: LabelledImages, checkpoint: Checkpoint | None) -> tuple[State, tuple[str, ...]]:
    """Builds the state and fills it from the checkpoint or from the weights of --init.

    Returns:
        the state, and lines that list the tensors that were copied from --init and those that were not.

    Raises:
        RunError: the networks do not fit the images, the memory or a model file, or no weights of --init fit the
            networks.
        CheckpointError: the checkpoint does not fit the networks, or a checkpoint of this run could not be read again.
        NetworkError: a network of the user breaks a rule.
    """
    try:
        check_exportable(generator_config(config, data.info))
        _check_discriminator(config, data.info)
        state = State(config, data.info)
    except (ValueError, RuntimeError) as error:  # PyTorch raises a RuntimeError for sizes that exceed the memory
        raise RunError(str(error)) from error
    check_readable(state.checkpoint(config, data.info))
    if checkpoint:
        restore_state(state, checkpoint, config.out)
    elif config.init:
        return state, tuple(initialize_from(state, config.init))
    return state, ()


def _check_discriminator(config: Config, dataset: Dataset) -> None:
    """Checks the discriminator, if it is a class of the user (`--discriminator MODULE:CLASS`).

    Raises:
        NetworkError: it breaks a rule of `check_discriminator`, or it has batch normalization and the run a penalty.
    """
    if not is_own(config.discriminator):
        return
    discriminator = build_discriminator(discriminator_config(config, dataset))
    assert isinstance(discriminator, OwnDiscriminator)
    check_discriminator(discriminator)
    if config.penalty != "none" and has_batch_norm(discriminator):
        raise NetworkError(
            f"--penalty {config.penalty} needs a discriminator that treats each image independently, but "
            f"{config.discriminator} has batch normalization; remove it, or use --penalty none"
        )


def _with_total(config: Config, data: LabelledImages, state: State, group: Group, dry_run: bool) -> Config:
    """Returns the configuration with `images` set to the total of the run.

    In a dry run, `images` stays None if --minutes sets the duration.

    Raises:
        RunError: the warm-up of the learning rate is as long as the run.
        ResumeError: the run has already seen more images.
    """
    if config.images is None and (config.minutes is None or not dry_run):
        images = images_to_train(config, data, group)
        config = replace(config, images=images if config.minutes is None else state.images_seen + images)
    if config.images is None:
        return config
    if config.lr_warmup >= config.images:
        raise RunError(f"--lr-warmup {config.lr_warmup:,} must be below the run's {config.images:,} images")
    check_total(config, state.images_seen)
    if state.images_seen:  # the minutes of a resumed run are additional, so they do not describe the whole run
        config = replace(config, minutes=None)
    return config
