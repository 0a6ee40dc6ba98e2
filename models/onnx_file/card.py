"""The card: what a model file says of itself, and the golden images by which it proves itself.

It travels as JSON in the file's metadata. Every field is checked when a card is read, so that nothing behind it has to
expect a count that is a text or a shape that is negative.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from models.common.checksum import EMPTY_CHECKSUM
from models.common.errors import InputError, ModelFileError
from models.onnx_file.labels import Classes

CARD_VERSION = 3
METADATA_KEY = "card"
"""Where the card stands in the ONNX file's metadata."""
MAX_GOLDEN_IMAGES = 64

Precision = Literal["fp32", "fp16", "int8"]
MAX_SIZE = 2**16
"""Largest latent size, and largest extent of an image along an axis."""
Size = Annotated[int, Field(ge=1, le=MAX_SIZE)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
ImageShape = tuple[Size, Size, Size]
"""Channels, height, width."""

_STRICT = ConfigDict(strict=True, extra="forbid")


class CardError(ModelFileError):
    """A card that is missing, damaged, or not of this file."""


@dataclass(frozen=True)
class Dataset:
    """The data that a generator learned from."""

    __pydantic_config__ = _STRICT

    name: str
    sha256: Sha256 | None
    """SHA-256 of the bytes of all images followed by the bytes of all labels. None: unknown."""
    image_shape: ImageShape
    class_names: tuple[str, ...]
    class_counts: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] | None
    """Number of images of each class. None: unknown."""

    def __post_init__(self) -> None:
        if len(self.class_names) != len(self.class_weights) or len(set(self.class_names)) != len(self.class_names):
            raise ValueError(
                f"{len(self.class_names)} class names ({len(set(self.class_names))} of them different) "
                f"for {len(self.class_weights)} class counts"
            )
        if self.class_weights and not sum(self.class_weights):
            raise ValueError("no class has an image")

    @property
    def class_weights(self) -> tuple[int, ...]:
        """Relative frequency of each class: the counts, or 1 for every class if the counts are unknown."""
        return (1,) * len(self.class_names) if self.class_counts is None else self.class_counts


@dataclass(frozen=True)
class Training:
    """How a generator was trained."""

    __pydantic_config__ = _STRICT

    config: dict[str, Any] | None
    """Configuration of the run, without paths. None: unknown."""
    images_seen: Annotated[int, Field(ge=0)] | None
    """Number of real images that the discriminator was trained on, repetitions included. None: unknown."""
    seed: int | None
    git_commit: str | None
    versions: dict[str, str]


@dataclass(frozen=True)
class Origin:
    """The code and the weights that a model file was made from. None: unknown, or not applicable."""

    __pydantic_config__ = _STRICT

    network: str
    """Class of the generator, as `module:Class`."""
    source_sha256: Sha256 | None
    """SHA-256 of the source file of the class. None for the networks of this package, which `git_commit` identifies."""
    checkpoint_sha256: Sha256 | None
    """Checksum of the checkpoint, as the checkpoint states it in `file_sha256`."""


@dataclass(frozen=True)
class Golden:
    """Images 0 to n - 1 of a seed, as the exporting machine rendered them."""

    __pydantic_config__ = _STRICT

    seed: Annotated[int, Field(ge=0, lt=2**53)]
    n: Annotated[int, Field(ge=1, le=MAX_GOLDEN_IMAGES)]
    pixels: str
    """uint8 (n, channels, height, width), as base64 of zlib."""


@dataclass(frozen=True)
class Card:
    __pydantic_config__ = _STRICT

    name: str
    latent_dim: Size
    latents_version: int
    image_shape: ImageShape
    conditional: bool
    """Whether the generator takes labels."""
    precision: Precision
    """Of the weights; inputs and outputs are the same in all of them."""
    converted_from: Sha256 | None
    """`file_sha256` of the fp32 file that this file was converted from. None in an fp32 file."""
    origin: Origin
    dataset: Dataset
    training: Training
    config_sha256: Sha256 | None
    """SHA-256 of `training.config` as JSON with sorted keys. None: the configuration is unknown."""
    versions: dict[str, str]
    """Of the libraries that exported the file."""
    parity: dict[str, Any]
    """The figures of the export's gate, each with its bound."""
    quality: dict[str, Any] | None
    """Metrics of `evaluate`, and the number of images that they were measured on. None: not evaluated."""
    golden: Golden
    card_version: int = CARD_VERSION
    file_sha256: Sha256 = EMPTY_CHECKSUM
    """The file's seal, see `models.common.checksum`."""

    def __post_init__(self) -> None:
        if self.conditional and not self.dataset.class_names:
            raise ValueError("the generator takes labels, but its data has no classes")

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the labels that the generator takes; empty if it takes none."""
        return self.dataset.class_names if self.conditional else ()

    @property
    def class_weights(self) -> tuple[int, ...]:
        return self.dataset.class_weights if self.conditional else ()

    def class_indices(self, labels: str | Sequence[str | int]) -> list[int]:
        """Turns labels as people write them into class indices, by the rule of docs/labels.md.

        Args:
            labels: a text, or a list of class names and indices.

        Raises:
            InputError: there is no label, or one that is not a class, or the generator has no classes.
        """
        return self._labelled.read(labels)

    def spell(self, text: str) -> list[int]:
        """Turns a text, each character of which is the name of a class, into class indices.

        Raises:
            InputError: a character is not the name of a class, or the generator has no classes.
        """
        return self._labelled.spell(text)

    @cached_property
    def _classes(self) -> Classes:
        return Classes(self.class_names)

    @property
    def _labelled(self) -> Classes:
        if not self.conditional:
            raise InputError("labels", f"{self.name} was trained without classes and takes none")
        return self._classes

    def to_json(self) -> str:
        """ASCII, so that its length in bytes does not change when the file is sealed."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Reads a card.

        Raises:
            CardError: not a card of this version, or a field of another kind or out of its range.
        """
        try:
            version = json.loads(text)["card_version"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise CardError("card: there is none, or it is not JSON") from None
        if version != CARD_VERSION:
            raise CardError(f"card: it is of version {version!r:.20}, this program reads {CARD_VERSION}")
        try:
            return TypeAdapter(cls).validate_json(text)
        except ValidationError as error:
            raise CardError(f"card: {first_validation_error(error)}") from error


def first_validation_error(error: ValidationError) -> str:
    """The first of what is wrong, in one line: where, what, and what stands there."""
    problem = error.errors(include_url=False)[0]
    where = ".".join(map(str, problem["loc"]))
    return f"{where}: {problem['msg']}, got {problem['input']!r:.60}" if where else problem["msg"]
