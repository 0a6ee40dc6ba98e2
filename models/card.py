"""The card: what a model file says of itself, and the golden images by which it proves itself.

    python -m models.card generator.onnx

It travels as JSON in the file's metadata. Every field is checked when a card is read, so that nothing behind it has to
expect a count that is a text or a shape that is negative.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from models.errors import InputError, ModelFileError
from models.labels import Classes
from models.seal import UNSEALED

VERSION = 2
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
    sha256: Sha256
    """Of the images' bytes followed by the labels' bytes."""
    image_shape: ImageShape
    class_names: tuple[str, ...]
    class_counts: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...]
    """How many images of each class there are."""

    def __post_init__(self) -> None:
        if len(self.class_names) != len(self.class_counts) or len(set(self.class_names)) != len(self.class_names):
            raise ValueError(
                f"{len(self.class_names)} class names ({len(set(self.class_names))} of them different) "
                f"for {len(self.class_counts)} class counts"
            )
        if self.class_counts and not sum(self.class_counts):
            raise ValueError("no class has an image")


@dataclass(frozen=True)
class Training:
    """How a generator was trained."""

    __pydantic_config__ = _STRICT

    config: dict[str, Any]
    """The whole configuration but for the paths."""
    images_seen: Annotated[int, Field(ge=0)]
    """Real images shown to the discriminator."""
    seed: int
    git_commit: str | None
    versions: dict[str, str]


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
    made_from: Sha256 | None
    """`file_sha256` of the fp32 file that this is a variant of."""
    dataset: Dataset
    training: Training
    config_sha256: Sha256
    checkpoint_sha256: Sha256
    versions: dict[str, str]
    """Of the libraries that exported the file."""
    parity: dict[str, Any]
    """The figures of the export's gate, each with its bound."""
    quality: dict[str, Any]
    """Figures of merit, where it was evaluated."""
    golden: Golden
    card_version: int = VERSION
    file_sha256: Sha256 = UNSEALED
    """The file's seal, see `models.seal`."""

    def __post_init__(self) -> None:
        if self.conditional and not self.dataset.class_names:
            raise ValueError("the generator takes labels, but its data has no classes")

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the labels that the generator takes; empty if it takes none."""
        return self.dataset.class_names if self.conditional else ()

    @property
    def class_counts(self) -> tuple[int, ...]:
        return self.dataset.class_counts if self.conditional else ()

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
        if version != VERSION:
            raise CardError(f"card: it is of version {version!r:.20}, this program reads {VERSION}")
        try:
            return TypeAdapter(cls).validate_json(text)
        except ValidationError as error:
            raise CardError(f"card: {first_problem(error)}") from error


def first_problem(error: ValidationError) -> str:
    """The first of what is wrong, in one line: where, what, and what stands there."""
    problem = error.errors(include_url=False)[0]
    where = ".".join(map(str, problem["loc"]))
    return f"{where}: {problem['msg']}, got {problem['input']!r:.60}" if where else problem["msg"]


def main() -> None:
    """Prints the card of a model file that opens, less the golden images' pixels."""
    from models.artifact import Generator  # which stands on this module

    if len(sys.argv) != 2:
        sys.exit("usage: python -m models.card FILE.onnx")
    try:
        card = Generator.open(sys.argv[1]).card
    except ModelFileError as error:
        sys.exit(f"card: {error}")
    pixels = f"... {len(card.golden.pixels):,} characters"
    print(json.dumps(asdict(replace(card, golden=replace(card.golden, pixels=pixels))), indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
