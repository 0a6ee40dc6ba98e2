"""The configuration of a run: every default once, presets as differences from it, the command line from both."""

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self, get_type_hints

import tyro
from pydantic import ConfigDict, TypeAdapter, ValidationError

from models.common.commands import Count
from models.common.threads import MAX_THREADS
from models.onnx_file.card import first_validation_error

Architecture = Literal["mlp", "dcgan", "residual"]


def default_data_dir() -> Path:
    return Path(os.environ.get("MNIST_GAN_DATA", "data"))


@dataclass(frozen=True)
class Config:
    """Trains a GAN. The defaults are those of the preset."""

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid")  # for those read from a file

    preset: str = "mlp"
    """Where the other defaults come from: mlp, dcgan, r3gan or fast."""

    # Paths: they say nothing about the model, so they do not travel with it.
    out: Path = field(default=Path("runs/latest"), metadata={"path": True})
    """Folder for the run; must not hold one yet."""
    data_dir: Path = field(default_factory=default_data_dir, metadata={"path": True})
    """Folder of the data sets; what is not there is downloaded. Defaults to $MNIST_GAN_DATA, else data. For --dataset
    folder, the folder itself."""
    init: Path | None = field(default=None, metadata={"path": True})
    """Another run, whose weights this one starts from."""

    # Data
    dataset: Literal["mnist", "fashion-mnist", "kmnist", "emnist-digits", "stacked-mnist", "uci-digits", "folder"] = (
        "mnist"
    )
    """stacked-mnist: three digits as RGB, 1,000 classes. uci-digits: 1,797 digits that come with scikit-learn. folder:
    images of your own, one subfolder a class."""
    image_size: int | None = None
    """Edge that images are resampled to; as they are if omitted (28 for a folder)."""
    channels: Literal[1, 3] | None = None
    """Grey or colour; as the images are if omitted."""

    # Networks
    generator: Architecture = "mlp"
    discriminator: Architecture = "mlp"
    latent_dim: int = 100
    generator_widths: tuple[int, ...] | None = None
    """mlp: hidden layers from the latent on. Others: channels, from the coarsest resolution on. If omitted, those of
    the preset, with one more resolution for each doubling of the image size beyond 32."""
    discriminator_widths: tuple[int, ...] | None = None
    """mlp: hidden layers from the image on. Others: channels, from the finest resolution on. If omitted, as for
    --generator-widths."""
    discriminator_normalization: Literal["batch", "spectral"] = "batch"
    """Of a dcgan discriminator: spectral judges each image on its own, and makes the generator more diverse."""
    conditional: bool = False
    """Show both networks the labels, so that images can be asked for by class."""

    # Duration: one of the three
    epochs: float = 50
    images: Count | None = None
    """Real images to show to the discriminator; instead of --epochs."""
    minutes: float | None = None
    """About how long to train; instead of --epochs. Becomes a number of images after a short warm-up."""

    # Optimization
    batch_size: int = 64
    loss: Literal["non-saturating", "minimax", "hinge", "wasserstein", "relativistic"] = "non-saturating"
    generator_data: Literal["same", "fresh"] = "same"
    """Whether the generator learns from the fakes that the discriminator has just seen, or from fresh ones."""
    lr: float = 2e-4
    """Adam's learning rate, for both networks."""
    lr_schedule: Literal["constant", "linear", "cosine"] = "constant"
    lr_end: float = 0.0
    """Share of the learning rate that a schedule ends at."""
    lr_warmup: Count = 0
    """Images over which the learning rate rises from 0."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Adam's moments."""
    ema_half_life: Count = 0
    """Images after which a weight counts half in the average that is sampled and exported; 0 keeps no average."""
    seed: int = 0

    # Penalty on the gradient of the discriminator with respect to the images
    penalty: Literal["none", "r1", "r2", "r1+r2", "wgan-gp", "finite-difference"] = "none"
    """finite-difference estimates r1+r2 without differentiating twice."""
    gamma: float = 1.0
    """Weight of the penalty."""
    burn_in: Count = 0
    """Images over which gamma and Adam's second moment go from their start to their value."""
    gamma_start: float | None = None
    """Where gamma starts, if not at its value."""
    beta2_start: float | None = None
    """Where Adam's second moment starts, if not at its value."""

    # Execution
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = None
    """CPU threads of each process; another number gives other bits. If omitted: $OMP_NUM_THREADS, else the number of
    CPUs that are idle when the run starts."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Of the networks; weights, losses, penalties and optimizers stay in fp32. auto: the fastest safe one."""
    cuda_graph: bool = True
    """On a GPU, replay the step as one CUDA graph; without it, each operation can be debugged."""
    deterministic: bool = False
    """On a GPU, the same bits every time, at some cost in speed. A CPU gives them anyway."""

    # RunLogger
    sample_images: int = 64
    """Images of the sheet that is drawn after every epoch, always from the same latents."""
    evaluate_every: int = 0
    """Epochs between measurements of the fast metrics of `evaluate`; 0 measures none. For MNIST, of which there is a
    classifier."""

    def __post_init__(self) -> None:
        """Raises:
        ValueError: a value out of range.
        """
        self._convert()
        for name in ("batch_size", "latent_dim", "sample_images"):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        self._require("threads", self.threads is None or 1 <= self.threads <= MAX_THREADS, f"from 1 to {MAX_THREADS:,}")
        for name in ("epochs", "images", "minutes"):
            self._require(name, getattr(self, name) is None or 0 < getattr(self, name) < float("inf"), "above 0")
        for name in ("generator_widths", "discriminator_widths"):
            widths = getattr(self, name)
            self._require(name, widths is None or min(widths, default=0) >= 1, "positive sizes")
        for name in ("lr_warmup", "burn_in", "ema_half_life", "evaluate_every"):
            self._require(name, getattr(self, name) >= 0, "at least 0")
        self._require("lr", 0 < self.lr < float("inf"), "above 0")
        self._require("lr_end", 0 <= self.lr_end <= 1, "from 0 to 1")
        self._require("gamma", 0 <= self.gamma < float("inf"), "at least 0")
        self._require("gamma_start", self.gamma_start is None or 0 <= self.gamma_start < float("inf"), "at least 0")
        self._require("betas", all(0 <= beta < 1 for beta in self.betas), "at least 0 and below 1")
        self._require("beta2_start", self.beta2_start is None or 0 <= self.beta2_start < 1, "at least 0 and below 1")
        self._require("seed", 0 <= self.seed < 2**53, "from 0 to 2^53 - 1")
        spectral = self.discriminator_normalization == "spectral"
        if spectral and self.discriminator != "dcgan":
            raise ValueError(f"--discriminator-normalization spectral is of dcgan; {self.discriminator} has none")
        if self.penalty != "none" and self.discriminator == "dcgan" and not spectral:
            raise ValueError(
                f"--penalty {self.penalty} needs a discriminator that sees each image on its own; dcgan normalises "
                "over the batch: use --discriminator-normalization spectral, or --discriminator residual or mlp"
            )

    def _convert(self) -> None:
        """Gives every value its declared type, so that reading config.json back changes nothing: 8 epochs are 8.0."""
        for name, adapter in _adapters().items():
            try:
                value = adapter.validate_python(getattr(self, name))
            except ValidationError as error:
                got = getattr(self, name)
                raise ValueError(f"{_option(name)}: {first_validation_error(error)}, got {got!r:.60}") from None
            object.__setattr__(self, name, value)

    def _require(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            raise ValueError(f"{_option(name)} must be {expected}, got {getattr(self, name)}")

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}

    def model_fields(self) -> dict[str, Any]:
        """Everything but the paths: what the checkpoint and the card say of the training."""
        paths = {field.name for field in fields(self) if field.metadata.get("path")}
        return {name: value for name, value in self.to_dict().items() if name not in paths}

    @classmethod
    def load(cls, run: Path) -> Self:
        """Reads the configuration of a run, wherever it lies by now.

        Raises:
            ValueError: there is none, or it is not one of ours.
        """
        try:
            values = json.loads((run / "config.json").read_text())
            if "preset" not in values:  # every field has a default: without this, {} would be a run
                raise ValueError("it names no preset")
            return TypeAdapter(cls).validate_json(json.dumps(values | {"out": str(run)}))
        except FileNotFoundError:
            raise ValueError(f"{run} holds no run: there is no config.json") from None
        except (TypeError, OSError, ValueError) as error:
            reason = first_validation_error(error) if isinstance(error, ValidationError) else error
            raise ValueError(f"{run}/config.json cannot be read: {reason}") from None


@cache
def _adapters() -> dict[str, TypeAdapter[Any]]:
    return {name: TypeAdapter(declared) for name, declared in get_type_hints(Config, include_extras=True).items()}


PRESETS: dict[str, dict[str, Any]] = {
    # Goodfellow et al. (2014), as every tutorial has it.
    "mlp": {},
    # Radford et al. (2015).
    "dcgan": {
        "generator": "dcgan",
        "discriminator": "dcgan",
        "batch_size": 128,
        "betas": (0.5, 0.999),
        "epochs": 25,
    },
    # Huang et al. (2024): relativistic pairing with R1 and R2 at every step, no normalisation.
    "r3gan": {
        "generator": "residual",
        "discriminator": "residual",
        "latent_dim": 64,
        "conditional": True,
        "batch_size": 128,
        "loss": "relativistic",
        "generator_data": "fresh",
        "penalty": "r1+r2",
        "gamma": 1.0,
        "gamma_start": 10.0,
        "burn_in": 600_000,
        "betas": (0.0, 0.99),
        "beta2_start": 0.9,
        "lr_schedule": "cosine",
        "lr_end": 0.1,
        "ema_half_life": 100_000,
        "epochs": 100,
    },
    # For a CPU and ten minutes: dcgan with a quarter of the multiply-adds, told the class, its weights averaged. The
    # discriminator and the loss are those of Miyato et al. (2018), which keep the variety that dcgan loses.
    "fast": {
        "generator": "dcgan",
        "discriminator": "dcgan",
        "discriminator_normalization": "spectral",
        "latent_dim": 64,
        "conditional": True,
        "loss": "hinge",
        "lr": 5e-4,
        "betas": (0.0, 0.99),
        "ema_half_life": 20_000,
        "epochs": 8,
    },
}


WIDTHS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "mlp": ((256, 512), (512, 256)),
    "dcgan": ((128, 64), (64, 128)),
    "r3gan": ((128, 64, 32), (32, 64, 128)),
    "fast": ((64, 32), (32, 64)),
}
"""Widths of each preset's generator and discriminator, for images of 28 x 28 pixels."""


@dataclass(frozen=True)
class Command:
    """What the command line asks for."""

    config: Config
    resume: bool = False
    dry_run: bool = False
    threads: int | None = None
    """Number that --threads gives; `config.threads` is the stored one when a run is resumed."""


@dataclass(frozen=True)
class _Options(Config):
    __doc__ = Config.__doc__

    resume: Path | None = None
    """Continue the run in this folder. Without other options it ends in the same bits as an unbroken run;
    `train --resume RUN --help` lists the options that can be changed."""
    dry_run: bool = False
    """Check everything as a run would, print the configuration and the networks, and write nothing."""

    def __post_init__(self) -> None:
        """Checks nothing: tyro would put the name of this class in front of the message. `Config` checks the values."""


@dataclass(frozen=True)
class _Resumption:
    """Continues a run, by default as it was begun. What would change the meaning of the run is refused: the data, the
    networks, the loss, the batch size and so on."""

    resume: Path
    """Folder of the run."""
    data_dir: Path | None = None
    """Where the data is now. It must be the same data."""
    epochs: float | None = None
    """New total of epochs, instead of the run's."""
    images: Count | None = None
    """New total of real images to show to the discriminator, instead of the run's."""
    minutes: float | None = None
    """About how long to train in addition to what is done, instead of the run's total."""
    device: Literal["auto", "cpu", "cuda"] | None = None
    """Where to continue. The precision stays that of the run; another device computes other bits."""
    threads: int | None = None
    """CPU threads of each process, instead of the run's; another number gives other bits."""
    dry_run: bool = False
    """Check everything as a run would, print the configuration and the networks, and write nothing."""


_DURATION = ("epochs", "images", "minutes")
_CHANGEABLE = ("data_dir", *_DURATION, "device")


def parse(args: Sequence[str] | None = None) -> Command:
    """Reads the command line: first the preset, then what differs from it. Exits with a message if it is wrong."""
    first = argparse.ArgumentParser(
        "train", "train [OPTIONS]; train --help lists them", add_help=False, allow_abbrev=False
    )
    first.add_argument("--preset", choices=PRESETS)
    first.add_argument("--resume", type=Path)
    chosen, _ = first.parse_known_args(args)
    if chosen.resume is not None:
        try:
            return _parse_resumption(args)
        except ValueError as error:
            first.error(str(error))
    preset = chosen.preset or Config.preset
    options = tyro.cli(
        _Options,
        prog="train",
        args=args,
        default=_Options(preset=preset, **PRESETS[preset]),
        config=(tyro.conf.HelptextFromCommentsOff,),
    )
    if options.images is not None and options.minutes is not None:
        first.error("--images and --minutes both say when to stop: give one")
    values = {field.name: getattr(options, field.name) for field in fields(Config)}
    try:
        return Command(Config(**values), dry_run=options.dry_run, threads=options.threads)
    except ValueError as error:
        first.error(str(error))


def _parse_resumption(args: Sequence[str] | None) -> Command:
    """Reads the command line of a run that is continued.

    Raises:
        ValueError: an option that cannot be changed, a value out of range, or a folder without a run.
    """
    options, rest = tyro.cli(_Resumption, prog="train", args=args, return_unknown_args=True)
    if rest:
        names = [word.partition("=")[0] for word in rest if word.startswith("--")] or rest
        raise ValueError(
            f"--resume continues a run as it was begun and cannot take {', '.join(names)}; it takes "
            + ", ".join(map(_option, (*_CHANGEABLE, "threads", "dry_run")))
        )
    changes = {name: getattr(options, name) for name in _CHANGEABLE if getattr(options, name) is not None}
    durations = [name for name in _DURATION if name in changes]
    if len(durations) > 1:
        raise ValueError(f"{' and '.join(map(_option, durations))} both say when to stop: give one")
    if durations:  # the run's own total no longer counts
        changes = {"images": None, "minutes": None} | changes
    config = replace(Config.load(options.resume), **changes)
    return Command(config, resume=True, dry_run=options.dry_run, threads=options.threads)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
