"""Command line of `train`: a new run from a preset and options, or the continuation of a run."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tyro
from tyro.conf import DisallowNone, HelptextFromCommentsOff, OmitArgPrefixes, arg

from models.common.commands import Count, Version, optional
from training.config import (
    AugmentationOptions,
    Config,
    DataOptions,
    DurationOptions,
    ExecutionOptions,
    LoggingOptions,
    NetworkOptions,
    OptimizationOptions,
    PenaltyOptions,
    Preset,
    RunOptions,
    Switch,
    option_name,
)
from training.presets import PRESETS

DURATION_OPTIONS = ("epochs", "images", "minutes")
CHANGEABLE_OPTIONS = ("data_dir", *DURATION_OPTIONS, "device")
"""Options of the configuration that may differ when a run is resumed."""

EXAMPLES = """\
examples:
  train --preset fast --minutes 10 --out runs/a   train for ten minutes on a CPU
  train --dataset folder --data-dir my-images --preset fast --out runs/b
  train --resume runs/a --minutes 10              continue for ten more minutes
  train --preset fast --help                      show the defaults of a preset
  train --resume runs/a --help                    show what may change in a run
"""
RESUME_EXAMPLES = """\
examples:
  train --resume runs/a                  continue to the total of the run
  train --resume runs/a --epochs 100     continue to a new total of 100 epochs
"""


@dataclass(frozen=True)
class Command:
    """The run that the command line requests."""

    config: Config
    resume: bool = False
    """Whether `config.out` is a run that is continued."""
    dry_run: bool = False
    """Whether to check and print everything instead of training."""
    threads: int | None = None
    """Value of --threads, None if it is not given. `config.threads` of a resumed run is the number it used so far."""


@dataclass(frozen=True)
class _RunOptions(RunOptions):
    __doc__ = RunOptions.__doc__

    resume: Annotated[Path | None, optional("RUN", "start a new run")] = None
    """Folder of a run to continue. On the same device and with the same number of threads, the result
    is bit-for-bit that of an uninterrupted run; a GPU also needs --deterministic.
    `train --resume RUN --help` shows the options that may change."""
    dry_run: Switch = False
    """Check everything that training needs, print the configuration and the networks, and write nothing."""
    version: Version = False


@dataclass(frozen=True)
class _NewRun:
    """Train a GAN: a generator of images and the discriminator that it learns from."""

    run: _RunOptions
    data: DataOptions
    network: NetworkOptions
    duration: DurationOptions
    optimization: OptimizationOptions
    penalty: PenaltyOptions
    augmentation: AugmentationOptions
    execution: ExecutionOptions
    logging: LoggingOptions


@dataclass(frozen=True)
class _ResumedRun:
    """Continue a run. Only these options may change; all others stay as they are in the run."""

    resume: Annotated[Path, arg(metavar="RUN")]
    """Folder of the run."""
    data_dir: Annotated[Path | None, optional("PATH", "as in the run")] = None
    """Folder where the data is now. The data must be the same."""
    epochs: Annotated[float | None, optional("EPOCHS", "as in the run")] = None
    """New total number of epochs; above 0."""
    images: Annotated[Count | None, optional("IMAGES", "as in the run")] = None
    """New total number of real images that the discriminator sees, for example 600k or 6M; at least 1."""
    minutes: Annotated[float | None, optional("MINUTES", "the total of the run")] = None
    """Approximate time to train from now on, in minutes; above 0."""
    device: Annotated[Literal["auto", "cpu", "cuda"] | None, optional("{auto,cpu,cuda}", "as in the run")] = None
    """Device to continue on, in the precision of the run. Another device computes other bits."""
    generator: Annotated[str | None, optional("MODULE:CLASS", "one of this package")] = None
    """Generator of the run, if it is a class of your own. Code is imported only if the command line names it."""
    discriminator: Annotated[str | None, optional("MODULE:CLASS", "one of this package")] = None
    """Discriminator of the run, if it is a class of your own."""
    threads: Annotated[int | None, optional("THREADS", "as in the run")] = None
    """Number of CPU threads of each process, from 1 to 1,024. Another number changes the last bits of the results."""
    dry_run: Switch = False
    """Check everything that training needs, print the configuration and the networks, and write nothing."""
    version: Version = False


def parse(args: Sequence[str] | None = None) -> Command:
    """Reads the command line: --resume or the preset first, since they decide about the other options.

    Args:
        args: the arguments; None means sys.argv.

    Raises:
        SystemExit: code 2 and a message on stderr if an argument is wrong, code 0 after --help.
    """
    first = argparse.ArgumentParser(
        "train", "train [OPTIONS]; train --help lists them", add_help=False, allow_abbrev=False
    )
    first.add_argument("--preset", choices=get_args(Preset), default=Config.preset)
    first.add_argument("--resume", type=Path)
    first.add_argument("-h", "--help", action="store_true")
    chosen, _ = first.parse_known_args(args)
    try:
        return _parse_new_run(chosen.preset, args) if chosen.resume is None else _parse_resumed_run(args)
    except SystemExit as end:
        if chosen.help and end.code == 0:
            print(EXAMPLES if chosen.resume is None else RESUME_EXAMPLES, end="")
        raise
    except ValueError as error:
        first.error(str(error))


def _parse_new_run(preset: Preset, args: Sequence[str] | None) -> Command:
    """Reads the options of a new run: those of the preset, replaced by those of the command line.

    Raises:
        ValueError: a value is out of range, or two options exclude each other.
    """
    options = tyro.cli(
        _NewRun,
        prog="train",
        args=args,
        default=_with_defaults({"preset": preset, **PRESETS[preset]}),
        config=(OmitArgPrefixes, DisallowNone, HelptextFromCommentsOff),
    )
    values = {name: value for group in vars(options).values() for name, value in vars(group).items()}
    _check_duration([name for name in ("images", "minutes") if values[name] is not None])
    dry_run = values.pop("dry_run")
    del values["resume"], values["version"]
    return Command(Config(**values), dry_run=dry_run, threads=values["threads"])


def _with_defaults(defaults: dict[str, Any]) -> _NewRun:
    """Sorts the defaults of a preset into the groups of options."""

    def fill(group: Any) -> Any:
        return group(**{each.name: defaults[each.name] for each in fields(group) if each.name in defaults})

    return _NewRun(*(fill(each.type) for each in fields(_NewRun)))


def _parse_resumed_run(args: Sequence[str] | None) -> Command:
    """Reads the configuration of a run, and the options that change it.

    Raises:
        ValueError: an option cannot change, a value is out of range, or the folder is not that of a run.
    """
    options, unknown = tyro.cli(
        _ResumedRun,
        prog="train",
        args=args,
        return_unknown_args=True,
        config=(DisallowNone, HelptextFromCommentsOff),
    )
    if unknown:
        names = [word.partition("=")[0] for word in unknown if word.startswith("--")] or unknown
        changeable = ", ".join(map(option_name, (*CHANGEABLE_OPTIONS, "threads", "dry_run")))
        raise ValueError(
            f"{', '.join(names)} cannot be given with --resume, which accepts only {changeable}. Omit "
            f"{'it' if len(names) == 1 else 'them'}, or start a new run"
        )
    changes = {name: getattr(options, name) for name in CHANGEABLE_OPTIONS if getattr(options, name) is not None}
    durations = [name for name in DURATION_OPTIONS if name in changes]
    _check_duration(durations)
    if durations:
        changes = {"images": None, "minutes": None} | changes  # the total of the run no longer applies
    config = Config.load(options.resume)
    _check_same_networks(options.resume, config, options.generator, options.discriminator)
    config = replace(config, **changes)
    return Command(config, resume=True, dry_run=options.dry_run, threads=options.threads)


def _check_same_networks(run: Path, config: Config, generator: str | None, discriminator: str | None) -> None:
    """Checks that the command line names the classes of the user that a run was trained with, and no other ones.

    Raises:
        ValueError: one is missing, or differs.
    """
    options = {"--generator": (generator, config.generator), "--discriminator": (discriminator, config.discriminator)}
    for option, (given, stored) in options.items():
        if given not in (None, stored):
            raise ValueError(
                f"{option} {given} cannot replace {stored}, with which {run} was trained; omit it, or start a new run "
                f"from its weights: --init {run}"
            )
    missing = [f"{option} {stored}" for option, (given, stored) in options.items() if ":" in stored and not given]
    if missing:
        raise ValueError(
            f"{run} was trained with networks of your own, whose code is imported only if the command line names it; "
            f"add {' '.join(missing)}"
        )


def _check_duration(given: Sequence[str]) -> None:
    if len(given) > 1:
        raise ValueError(f"{' and '.join(map(option_name, given))} both set the duration; give one of them")
