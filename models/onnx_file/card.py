"""The card of a model file: JSON in the metadata of the ONNX file, with one field for each field of `Card`.

Reading a card checks the type and the range of every field, so that other code does not have to. The docstring of each
field that may be null (None in Python) says what null means.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from models.common.checksum import EMPTY_CHECKSUM
from models.common.errors import InputError, ModelFileError
from models.onnx_file.labels import LabelParser

CARD_VERSION = 3
"""Version of the format that this program writes, and the only one that it reads."""
METADATA_KEY = "card"
"""Key of the card in the ONNX file's metadata."""
MAX_GOLDEN_IMAGES = 64
"""Maximum number of golden images in a card."""

Precision = Literal["fp32", "fp16", "int8"]
"""Number format of the weights. Inputs and outputs of the graph are the same in all of them."""
MAX_SIZE = 2**16
"""Maximum of the latent size, and of the channels, height and width of an image."""
Size = Annotated[int, Field(ge=1, le=MAX_SIZE)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
ImageShape = tuple[Size, Size, Size]
"""Channels, height, width."""

Number = Annotated[float, Field(allow_inf_nan=False)]

_STRICT = ConfigDict(strict=True, extra="forbid")


class CardError(ModelFileError):
    """The card of a model file is missing, invalid, of another version, or belongs to another file."""


@dataclass(frozen=True)
class Dataset:
    """The data set that a generator was trained on."""

    __pydantic_config__ = _STRICT

    name: str
    """Name of the data set, such as "mnist"."""
    sha256: Sha256 | None
    """SHA-256 of the bytes of all images followed by the bytes of all labels. None: unknown."""
    image_shape: ImageShape
    """Channels, height and width of each image in pixels."""
    class_names: tuple[str, ...]
    """Distinct names of the classes, in the order of their indices. Empty: the images have no labels."""
    class_counts: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] | None
    """Number of images of each class, in the order of `class_names`. None: unknown."""
    # Not compared: a checkpoint of an earlier version lacks them, and is of the same data nevertheless.
    pixel_mean: Number | None = field(default=None, compare=False)
    """Mean of all pixels, in levels from 0 to 255. None: unknown."""
    pixel_contrast: Number | None = field(default=None, compare=False)
    """Mean over the images of the standard deviation of the pixels of an image, in levels. None: unknown."""

    def __post_init__(self) -> None:
        if len(self.class_names) != len(self.class_weights) or len(set(self.class_names)) != len(self.class_names):
            raise ValueError(
                f"{len(self.class_names)} class names, {len(set(self.class_names))} of them distinct, "
                f"for {len(self.class_weights)} class counts"
            )
        if self.class_weights and not sum(self.class_weights):
            raise ValueError("no class has an image")

    @property
    def class_weights(self) -> tuple[int, ...]:
        """Weights for drawing a class: `class_counts`. If the counts are unknown, each class has weight 1."""
        return (1,) * len(self.class_names) if self.class_counts is None else self.class_counts


@dataclass(frozen=True)
class Training:
    """How a generator was trained."""

    __pydantic_config__ = _STRICT

    config: dict[str, Any] | None
    """Configuration of the run, with the keys of the run's config.json, without paths. None: unknown."""
    images_seen: Annotated[int, Field(ge=0)] | None
    """Number of real images that the discriminator was trained on, repetitions included. None: unknown."""
    seed: int | None
    """Seed of the run. None: unknown."""
    git_commit: str | None
    """Commit of this repository that trained the generator, as 40 hexadecimal digits. None: unknown."""
    versions: dict[str, str]
    """Versions of Python and of the libraries that trained the generator, by name."""


@dataclass(frozen=True)
class Origin:
    """The code and the weights that a model file was exported from."""

    __pydantic_config__ = _STRICT

    network: str
    """Class of the PyTorch module, as "module:Class"."""
    source_sha256: Sha256 | None
    """SHA-256 of the source file of the class. None: the class is part of this repository, and `git_commit` identifies
    its source."""
    checkpoint_sha256: Sha256 | None
    """`file_sha256` in the checkpoint, or the SHA-256 of a file of weights that were trained elsewhere. None: the
    checkpoint was exported from memory, without having been saved to a file."""


@dataclass(frozen=True)
class Build:
    """The program that exported a model file."""

    __pydantic_config__ = _STRICT

    version: str
    """Version of mnist-gan."""
    git_commit: str | None
    """Commit of this repository, whose requirements.lock lists the packages. None: it was not a git checkout."""
    python: str
    """Version of Python."""
    platform: str
    """Operating system and kind of processor, such as "Linux x86_64"."""


@dataclass(frozen=True)
class Golden:
    """Images 0 to n - 1 of a seed, as rendered on the machine that exported the file. Their labels are drawn from the
    seed."""

    __pydantic_config__ = _STRICT

    seed: Annotated[int, Field(ge=0, lt=2**53)]
    """Seed of the images."""
    n: Annotated[int, Field(ge=1, le=MAX_GOLDEN_IMAGES)]
    """Number of images."""
    pixels: str
    """uint8 (n, channels, height, width) in C order, compressed by zlib and encoded as base64."""


@dataclass(frozen=True)
class QualityMeasurement:
    """A measurement of the quality check, with its bounds. It is bad to be beyond a bound: below it if `better` is
    "higher", above it if `better` is "lower"."""

    __pydantic_config__ = _STRICT

    value: Number | None
    """The measured value. None: it could not be measured, and is skipped."""
    better: Literal["higher", "lower"]
    """Direction of better values."""
    warn: Number
    """Bound beyond which the export prints a warning."""
    refuse: Number | None
    """Bound beyond which the export is refused. None: there is none."""

    def beyond(self, bound: float | None) -> bool:
        """Whether the value is worse than a bound. False if either is unknown."""
        if self.value is None or bound is None:
            return False
        return self.value < bound if self.better == "higher" else self.value > bound


@dataclass(frozen=True)
class QualityCheck:
    """Measurements that show, without real images, whether a generator is untrained or has collapsed."""

    __pydantic_config__ = _STRICT

    images: Annotated[int, Field(ge=1)]
    """Number of generated images that were measured."""
    measurements: dict[str, QualityMeasurement]
    """Measurements by name."""

    @property
    def passed(self) -> bool:
        """True if every measurement is within its bound `refuse`; otherwise the export is refused."""
        return not any(measurement.beyond(measurement.refuse) for measurement in self.measurements.values())

    def problems(self) -> list[str]:
        """Describes the measurements beyond the bound at which an export is refused."""
        return self._beyond("refuse", "required")

    def warnings(self) -> list[str]:
        """Describes the measurements beyond the bound of a warning."""
        return self._beyond("warn", "expected")

    def _beyond(self, bound_name: Literal["warn", "refuse"], word: str) -> list[str]:
        found = []
        for name, measured in self.measurements.items():
            bound = getattr(measured, bound_name)
            if measured.beyond(bound):
                side = "at least" if measured.better == "higher" else "at most"
                found.append(f"{name} {measured.value:.3g}, {side} {bound:.3g} is {word}")
        return found

    def __str__(self) -> str:
        """Formats the measurements as a table."""
        width = max(map(len, self.measurements))
        lines = [f"{f'quality of {self.images:,} images':{width}}  {'measured':>8}  {'expected':>8}  {'required':>8}"]
        for name, measured in self.measurements.items():
            sign = ">=" if measured.better == "higher" else "<="
            value = "unknown" if measured.value is None else f"{measured.value:.3g}"
            bounds = ["" if bound is None else f"{sign} {bound:.3g}" for bound in (measured.warn, measured.refuse)]
            lines.append(f"{name:{width}}  {value:>8}  {bounds[0]:>8}  {bounds[1]:>8}".rstrip())
        return "\n".join(lines)


@dataclass(frozen=True)
class Card:
    """Describes a model file: its inputs and outputs, its origin, its measured properties, and its golden images."""

    __pydantic_config__ = _STRICT

    name: str
    """Name of the generator, for people, such as "fast-mnist"."""
    latent_dim: Size
    """Latent size D: the input `latent` has the shape [batch, D]."""
    latents_version: int
    """Version of the method that turns a seed and an index into a latent, see `models.onnx_file.latents`."""
    image_shape: ImageShape
    """Channels, height and width of an image in pixels. The output `image` has the shape [batch, *image_shape]."""
    conditional: bool
    """Whether the generator is class-conditional: it has the input `label`, an index of `dataset.class_names`."""
    precision: Precision
    """Number format of the weights: fp32, or that of a variant which was converted from an fp32 file."""
    converted_from: Sha256 | None
    """`file_sha256` of the fp32 file that this file was converted from. None: this is an fp32 file."""
    origin: Origin
    """Code and weights that the file was exported from."""
    dataset: Dataset
    """Data set that the generator was trained on."""
    training: Training
    """How the generator was trained."""
    config_sha256: Sha256 | None
    """SHA-256 of `training.config` as Python's `json.dumps(config, sort_keys=True)` writes it. None: unknown."""
    versions: dict[str, str]
    """Versions of the libraries that exported the file, by name."""
    parity: dict[str, Any]
    """Result of the parity check, which compared the file with PyTorch when it was exported: `graph` is the list of
    checks of the graph, and `metrics` maps the name of each metric to its `value` and its `bound`, the largest value
    allowed."""
    quality: dict[str, Any] | None
    """Metrics of the command `evaluate` by name, such as `fid`, and `images`, the number of generated images on which
    they were measured. A metric that could not be measured is left out. None: the file was not evaluated."""
    golden: Golden
    """Images to compare with those that this machine renders."""
    quality_check: QualityCheck | None = None
    """Result of the quality check that `export-onnx` makes. None: it was not made."""
    build: Build | None = None
    """The program that exported the file. None: unknown."""
    truncation: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Factor by which the graph multiplies latents. A factor in a request is applied before it."""
    card_version: int = CARD_VERSION
    """Version of the format of this card."""
    file_sha256: Sha256 = EMPTY_CHECKSUM
    """SHA-256 of the whole ONNX file with these 64 digits set to zero, see `models.common.checksum`. It is not what
    `sha256sum` prints. All zeros: the file has not been written yet."""

    def __post_init__(self) -> None:
        if self.conditional and not self.dataset.class_names:
            raise ValueError("the generator takes labels, but its data has no classes")

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes that can be requested; empty if the generator takes no labels."""
        return self.dataset.class_names if self.conditional else ()

    @property
    def class_weights(self) -> tuple[int, ...]:
        """Relative frequencies with which classes are drawn, see `Dataset`; empty if the generator takes no labels."""
        return self.dataset.class_weights if self.conditional else ()

    def class_indices(self, labels: str | Sequence[str | int]) -> list[int]:
        """Turns labels into class indices, by the rule of docs/labels.md.

        Args:
            labels: a text such as "3, 8", or a list of class names and indices.

        Raises:
            InputError: there is no label, a label is not a class, a text mixes names and indices, or the generator
                takes no labels.
        """
        return self._label_parser().parse(labels)

    def class_indices_by_character(self, text: str) -> list[int]:
        """Turns a text into class indices, one for each character. Each must be the name of a class.

        Raises:
            InputError: a character is not the name of a class, or the generator takes no labels.
        """
        return self._label_parser().parse_characters(text)

    def _label_parser(self) -> LabelParser:
        if not self.conditional:
            raise InputError("labels", f"{self.name} was trained without classes and takes none")
        return self._parser

    @cached_property
    def _parser(self) -> LabelParser:
        return LabelParser(self.class_names)

    def to_json(self) -> str:
        """Returns the card as JSON in ASCII, in which `write_checksum` can replace the digits of `file_sha256`."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Reads a card from JSON.

        Raises:
            CardError: it is not a card of this version, or a field is missing, unknown or invalid.
        """
        try:
            version = json.loads(text)["card_version"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise CardError("card: it is not JSON with a card_version") from None
        if version != CARD_VERSION:
            raise CardError(f"card: it is of version {version!r:.20}, this program reads version {CARD_VERSION}")
        try:
            return TypeAdapter(cls).validate_json(text)
        except ValidationError as error:
            raise CardError(f"card: {first_validation_error(error)}") from error


def first_validation_error(error: ValidationError) -> str:
    """Returns the first error of a validation in one line: the path of the field, the problem and the value."""
    problem = error.errors(include_url=False)[0]
    path = ".".join(map(str, problem["loc"]))
    return f"{path}: {problem['msg']}, got {problem['input']!r:.60}" if path else problem["msg"]
