"""Configuration of a training run: every option with its default, its unit and its range.

The options form groups, which are also the groups of `train --help`. `Config` joins the groups into one flat object:
the training code reads it, and config.json of a run stores it. presets.py has the values of the presets.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args, get_type_hints

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from tyro.conf import arg

from models.common.commands import Count, ImageSize, optional
from models.common.threads import MAX_THREADS
from models.onnx_file.card import first_validation_error
from training.data_dir import default_data_dir
from training.fit import DEFAULT_BACKGROUND, Fit
from training.schedules import LrSchedule

Preset = Literal["mlp", "dcgan", "fast", "r3gan"]
Architecture = Literal["mlp", "dcgan", "residual"]


def _check_network(name: str) -> str:
    choices, (module, _, class_name) = get_args(Architecture), name.partition(":")
    if name not in choices and not (module and class_name.isidentifier()):
        raise ValueError(f"choose {', '.join(choices)}, or give a class of your own as MODULE:CLASS")
    return name


NetworkName = Annotated[str, AfterValidator(_check_network), arg(metavar="{mlp,dcgan,residual}|MODULE:CLASS")]
"""An architecture of this package, or a class of the user (`models.networks.own`)."""
AtLeast0 = Annotated[float, Field(ge=0, lt=math.inf)]
Above0 = Annotated[float, Field(gt=0, lt=math.inf)]
Share = Annotated[float, Field(ge=0, le=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[int, Field(ge=1)]
Widths = Annotated[tuple[Positive, ...], Field(min_length=1)]
ImageCount = Annotated[Count, Field(ge=0), arg(metavar="IMAGES")]
"""Number of images; the command line also accepts 60k or 6M."""
Switch = Annotated[bool, arg(help_behavior_hint=lambda default: f"(default: {'on' if default == 'True' else 'off'})")]


# The help shows each line of a docstring as a line of its own, so they are broken between sentences.


@dataclass(frozen=True)
class RunOptions:
    """The preset of the run, its folder and its initial weights."""

    preset: Preset = "mlp"
    """Set of defaults for the other options. `train --preset NAME --help` shows them.
    mlp: fully connected networks, the textbook GAN (Goodfellow et al., 2014).
    dcgan: convolutional networks (Radford et al., 2015).
    fast: a small class-conditional dcgan, for about ten minutes on a CPU.
    r3gan: class-conditional residual networks (Huang et al., 2024), for a GPU."""
    out: Path = Path("runs/latest")
    """Folder of the run, which is created. It must not contain the checkpoints of another run."""
    init: Annotated[Path | None, optional("RUN", "random weights")] = None
    """Folder of another run, whose weights this run starts from, for example to continue with other data.
    Lists the tensors that fit and are copied, and those that are initialized anew."""


@dataclass(frozen=True)
class DataOptions:
    """The images to learn from."""

    data_dir: Annotated[
        Path, arg(help_behavior_hint=lambda path: f"(default: $MNIST_GAN_DATA, or `data` if it is not set; now {path})")
    ] = field(default_factory=default_data_dir)
    """Folder of the data sets; a missing one is downloaded into it. For --dataset folder, the folder of the images."""
    dataset: Literal["mnist", "fashion-mnist", "kmnist", "emnist-digits", "stacked-mnist", "uci-digits", "folder"] = (
        "mnist"
    )
    """Data set to learn from.
    stacked-mnist: three digits of MNIST as the channels of one RGB image; 1,000 classes.
    uci-digits: 1,797 digits, which scikit-learn contains; needs no download.
    folder: your own images in --data-dir, with one subfolder per class."""
    image_size: Annotated[
        ImageSize | None, optional("PIXELS|WIDTHxHEIGHT", "the size of the images; 28 for a folder with several sizes")
    ] = None
    """Size to which the images are resampled, in pixels: the side of a square, or width x height such as 96x32.
    Each side from 8 to 256."""
    channels: Annotated[Literal[1, 3] | None, optional("{1,3}", "as in the images")] = None
    """Number of channels: 1 for grey, 3 for RGB."""
    fit: Fit = "crop"
    """How images of a folder become --image-size if they have other proportions.
    crop: their middle is used. pad: they are surrounded by --background. stretch: they are distorted."""
    background: Annotated[str, arg(metavar="COLOUR")] = DEFAULT_BACKGROUND
    """Colour behind transparent images of a folder and around padded ones: a name such as black, or #rrggbb."""


@dataclass(frozen=True)
class NetworkOptions:
    """The generator and the discriminator."""

    generator: NetworkName = "mlp"
    """Architecture of the generator: fully connected, convolutional or residual.
    MODULE:CLASS is a class of your own, whose module is imported; docs/own-network.md says what it has to do."""
    discriminator: NetworkName = "mlp"
    """Architecture of the discriminator; need not be that of the generator. A class of your own is possible, too."""
    latent_dim: Positive = 100
    """Length of a latent vector; at least 1."""
    generator_widths: Annotated[Widths | None, optional("WIDTH [WIDTH ...]", "the preset's")] = None
    """Widths of the generator, each at least 1.
    mlp: sizes of the hidden layers, from the latent to the image.
    dcgan and residual: channels at each resolution, from the coarsest to the finest.
    The default widths are for images of up to 32 x 32 pixels. Each doubling of that size adds one resolution."""
    discriminator_widths: Annotated[Widths | None, optional("WIDTH [WIDTH ...]", "the preset's")] = None
    """Widths of the discriminator, in the order from the image to the logit; otherwise like --generator-widths."""
    discriminator_normalization: Literal["batch", "spectral"] = "batch"
    """Normalization of a dcgan discriminator.
    batch: batch normalization; the logit of an image depends on the other images of its batch.
    spectral: spectral normalization; each logit depends on one image only, and the generator keeps more of the variety
    of the data."""
    conditional: Switch = False
    """Give both networks the class of each image, so that images of a requested class can be generated."""


@dataclass(frozen=True)
class DurationOptions:
    """When training ends: after a number of epochs, images or minutes."""

    epochs: Above0 = 50
    """Number of passes over the data set; above 0, and may be a fraction."""
    images: Annotated[
        Annotated[Count, Field(ge=1)] | None, optional("IMAGES", "the number that --epochs amounts to")
    ] = None
    """Number of real images that the discriminator sees, repetitions included, for example 600k or 6M; at least 1.
    Replaces --epochs."""
    minutes: Annotated[Above0 | None, optional("MINUTES", "the time that --epochs takes")] = None
    """Approximate training time in minutes; above 0. A short measurement of the speed converts it to a
    number of images.
    Replaces --epochs."""


@dataclass(frozen=True)
class OptimizationOptions:
    """The loss, and how it is minimized."""

    batch_size: Positive = 64
    """Number of real images per step, over all processes together; at least 1."""
    loss: Literal["non-saturating", "minimax", "hinge", "wasserstein", "relativistic"] = "non-saturating"
    """Loss of both networks. wasserstein is meant to be used with --penalty wgan-gp."""
    generator_data: Literal["same", "fresh"] = "same"
    """Real images and latents for the update of the generator: those of the discriminator in this step, or others."""
    lr: Above0 = 2e-4
    """Learning rate of Adam, for both networks; above 0."""
    lr_schedule: LrSchedule = "constant"
    """Learning rate after the warm-up: constant, or a decay to its final value at the end of the run."""
    lr_end: Share = 0.0
    """Final learning rate of a linear or cosine schedule, as a share of --lr; from 0 to 1."""
    lr_warmup: ImageCount = 0
    """Number of images over which the learning rate rises linearly from 0; 0 for no warm-up."""
    betas: Annotated[tuple[Beta, Beta], arg(metavar="BETA1 BETA2")] = (0.9, 0.999)
    """Decay rates of Adam's running means of the gradient and of its square; each at least 0 and below 1."""
    ema_half_life: ImageCount = 0
    """Half-life of the exponential moving average (EMA) of the generator's weights, in images; 0 keeps no EMA.
    Samples and exported models use the EMA if there is one."""
    seed: Annotated[int, Field(ge=0, lt=2**53)] = 0
    """Seed of the initial weights, batches, latents and noise; from 0 to 2^53 - 1."""


@dataclass(frozen=True)
class PenaltyOptions:
    """The penalty on the gradient of the discriminator with respect to its input images."""

    penalty: Literal["none", "r1", "r2", "r1+r2", "wgan-gp", "finite-difference"] = "none"
    """Penalty that is added to the loss of the discriminator.
    r1: at real images. r2: at generated images. r1+r2: at both.
    wgan-gp: between pairs of a real and a generated image.
    finite-difference: an estimate of r1+r2 without second derivatives."""
    gamma: AtLeast0 = 1.0
    """Weight of the penalty; at least 0."""
    burn_in: ImageCount = 0
    """Number of images over which gamma and Adam's beta2 change from their start values to --gamma and --betas.
    0: no burn-in, the final values from the first step on."""
    gamma_start: Annotated[AtLeast0 | None, optional("FLOAT", "the value of --gamma")] = None
    """Weight of the penalty at the start of the burn-in; at least 0."""
    beta2_start: Annotated[Beta | None, optional("FLOAT", "the second value of --betas")] = None
    """Adam's beta2 at the start of the burn-in; at least 0 and below 1."""


@dataclass(frozen=True)
class AugmentationOptions:
    """Measures against overfitting on few images."""

    augment: Literal["auto", "none", "diff", "ada"] = "auto"
    """Random changes of all images that the discriminator sees, so that it cannot memorize few training images.
    auto: ada for a folder with fewer than 5,000 images, otherwise none.
    diff: moves, covers and colours every image (Zhao et al., 2020).
    ada: changes as many images as the overfitting of the discriminator requires (Karras et al., 2020)."""
    mirror: Switch = False
    """Mirror half of the training images horizontally, chosen at random each time.
    Not for images whose mirror image looks wrong, such as digits and text."""


@dataclass(frozen=True)
class ExecutionOptions:
    """The hardware and the precision."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to train on. auto: a GPU if PyTorch finds one, otherwise the CPU."""
    threads: Annotated[
        Annotated[int, Field(ge=1, le=MAX_THREADS)] | None,
        optional("THREADS", "$OMP_NUM_THREADS, or the number of idle CPUs if that is not set"),
    ] = None
    """Number of CPU threads of each process, from 1 to 1,024. Another number changes the last bits of the results."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of the networks. Weights, losses, penalties and optimizers stay in fp32.
    auto: on a GPU bf16 if it supports it, otherwise fp16; on a CPU with AMX bf16, otherwise fp32."""
    cuda_graph: Switch = True
    """On a single GPU, replay each step as one CUDA graph, which is faster. No effect with several processes. Turn
    it off to debug single operations."""
    deterministic: Switch = False
    """On a GPU, use deterministic algorithms, which are slower. On a CPU, results are always reproducible."""


@dataclass(frozen=True)
class LoggingOptions:
    """The samples and metrics that are recorded during training."""

    sample_images: Positive = 64
    """Number of images in the grid that is drawn after every epoch, always from the same latents; at least 1."""
    evaluate_every: Annotated[int, Field(ge=0), arg(metavar="EPOCHS")] = 0
    """Number of epochs between measurements of the fast metrics of `evaluate`; 0 measures none.
    Only for mnist and stacked-mnist at their original 28 x 28 pixels and channels, for which there is a classifier."""


@dataclass(frozen=True)
class Config(
    # A dataclass takes the fields of its last base class first.
    LoggingOptions,
    ExecutionOptions,
    AugmentationOptions,
    PenaltyOptions,
    OptimizationOptions,
    DurationOptions,
    NetworkOptions,
    DataOptions,
    RunOptions,
):
    """All options of a run. The defaults are those of the preset mlp.

    Raises:
        ValueError: a value is out of range, or two options exclude each other; the message names the option.
    """

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid")  # for `load`

    generator_sha256: str | None = None
    """SHA-256 of the source file of a generator of the user. It is not an option: the run stores it, so that a changed
    file is noticed. None: the generator is part of this package, or the class was not imported yet."""
    discriminator_sha256: str | None = None
    """The same of the discriminator."""

    def __post_init__(self) -> None:
        for name, (declared, adapter) in _declared_types().items():
            value = getattr(self, name)
            try:  # also converts: 8 epochs become 8.0, so that config.json reads back as an equal object
                object.__setattr__(self, name, adapter.validate_python(value))
            except ValidationError as error:
                raise ValueError(f"{option_name(name)} {_problem(error, declared)}, got {value!r:.60}") from None
        self._check_discriminator()

    def _check_discriminator(self) -> None:
        spectral = self.discriminator_normalization == "spectral"
        if spectral and self.discriminator != "dcgan":
            raise ValueError(
                f"--discriminator-normalization spectral needs --discriminator dcgan, got {self.discriminator}"
            )
        if self.penalty != "none" and self.discriminator == "dcgan" and not spectral:
            raise ValueError(
                f"--penalty {self.penalty} needs a discriminator that treats each image independently, but dcgan "
                "normalizes over the batch; add --discriminator-normalization spectral, or use --discriminator "
                "residual or mlp"
            )

    def to_dict(self) -> dict[str, Any]:
        """Returns all options, ready for JSON: paths become strings."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}

    def model_fields(self) -> dict[str, Any]:
        """Returns all options except paths, for checkpoints and cards, which must not reveal a machine's folders."""
        return {name: value for name, value in self.to_dict().items() if name not in ("out", "data_dir", "init")}

    @classmethod
    def load(cls, run: Path) -> Self:
        """Reads config.json of a run. `out` becomes `run`, since the folder may have been moved.

        Raises:
            ValueError: the file is missing, damaged or invalid.
        """
        try:
            values = json.loads((run / "config.json").read_text())
            if "preset" not in values:  # every field has a default, so any {} would pass for a run
                raise ValueError("it has no preset")
            values = {"augment": "none"} | values | {"out": str(run)}  # the first runs had no augmentation
            return TypeAdapter(cls).validate_json(json.dumps(values))
        except FileNotFoundError:
            raise ValueError(f"{run} is not the folder of a run: it has no config.json") from None
        except (TypeError, OSError, ValueError) as error:
            reason = first_validation_error(error) if isinstance(error, ValidationError) else error
            raise ValueError(f"{run}/config.json is not a valid configuration: {reason}") from None


def option_name(field_name: str) -> str:
    """Returns the option of a field as it is typed on the command line: --batch-size for batch_size."""
    return f"--{field_name.replace('_', '-')}"


_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
"""Words for the attributes that pydantic stores a bound under."""


@cache
def _declared_types() -> dict[str, tuple[Any, TypeAdapter[Any]]]:
    """Returns the declared type of each field, and the pydantic adapter that converts to it and checks its range."""
    hints = get_type_hints(Config, include_extras=True)
    return {each.name: (hints[each.name], TypeAdapter(hints[each.name])) for each in fields(Config)}


def _problem(error: ValidationError, declared: Any) -> str:
    """Returns the first problem of a field: its allowed range if the value is outside, otherwise pydantic's message."""
    first = error.errors(include_url=False)[0]
    out_of_range = first["type"] in ("greater_than", "greater_than_equal", "less_than", "less_than_equal")
    bounds = " and ".join(dict.fromkeys(_bounds(declared)))
    return f"must be {bounds}" if out_of_range else f"is invalid: {first['msg']}"


def _bounds(declared: Any) -> Iterator[str]:
    """Yields the bounds that a type declares with `Field`, in words: "at least 0", "below 1"."""
    for part in get_args(declared):
        for bound in part.metadata if isinstance(part, FieldInfo) else ():
            yield from (f"{words} {getattr(bound, name):,}" for name, words in _BOUNDS.items() if hasattr(bound, name))
        yield from _bounds(part)
