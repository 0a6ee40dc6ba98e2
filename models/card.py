"""The card: what a model file says of itself, and the golden images by which it proves itself.

It travels as JSON in the file's metadata. This module needs nothing but Python.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from models.errors import InputError

VERSION = 1
METADATA_KEY = "card"
"""Where the card stands in the ONNX file's metadata."""
_UNSEALED = "0" * 64
_SEAL = re.compile(rb'"file_sha256": "([0-9a-f]{64})"')


class CardError(ValueError):
    """A card that is missing, damaged, or not of this file."""


def tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a dataclass as they were before JSON turned its tuples into lists."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


@dataclass(frozen=True)
class Dataset:
    """The data that a generator learned from."""

    name: str
    sha256: str
    """Of the images' bytes followed by the labels' bytes."""
    image_shape: tuple[int, int, int]
    """Channels, height, width."""
    class_names: tuple[str, ...]
    class_counts: tuple[int, ...]
    """How many images of each class there are."""


@dataclass(frozen=True)
class Training:
    """How a generator was trained."""

    config: dict[str, Any]
    """The whole configuration but for the paths."""
    images_seen: int
    """Real images shown to the discriminator."""
    seed: int
    git_commit: str | None
    versions: dict[str, str]


@dataclass(frozen=True)
class Golden:
    """Images 0 to n - 1 of a seed, as the exporting machine rendered them."""

    seed: int
    n: int
    pixels: str
    """uint8 (n, channels, height, width), as base64 of zlib."""


@dataclass(frozen=True)
class Card:
    name: str
    latent_dim: int
    latents_version: int
    image_shape: tuple[int, int, int]
    """Channels, height, width of an image."""
    conditional: bool
    """Whether the generator takes labels."""
    dataset: Dataset
    training: Training
    config_sha256: str
    checkpoint_sha256: str
    versions: dict[str, str]
    """Of the libraries that exported the file."""
    parity: dict[str, Any]
    """How far the file's output is from PyTorch's."""
    quality: dict[str, Any]
    """Figures of merit, where it was evaluated."""
    golden: Golden
    card_version: int = VERSION
    file_sha256: str = _UNSEALED
    """SHA-256 of the whole file with these 64 characters set to zero."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the labels that the generator takes; empty if it takes none."""
        return self.dataset.class_names if self.conditional else ()

    @property
    def class_counts(self) -> tuple[int, ...]:
        return self.dataset.class_counts if self.conditional else ()

    def class_indices(self, labels: str | Sequence[str | int]) -> list[int]:
        """Turns labels as people write them into class indices.

        Args:
            labels: class names or indices; or one string of class names, of one character each ("0123456789") or with
                commas between them. Where classes are named by numbers, the text "3" is the class of that name.

        Raises:
            InputError: no label, a label that is no class, or a generator without classes.
        """
        if not self.conditional:
            raise InputError("labels", f"{self.name} was trained without classes and takes none")
        if isinstance(labels, str) and "," in labels:
            labels = labels.split(",")
        if not labels:
            raise InputError("labels", "give at least one")
        return [self._class_index(label) for label in labels]

    def _class_index(self, label: str | int) -> int:
        if isinstance(label, str) and label in self.class_names:
            return self.class_names.index(label)
        if isinstance(label, int) and 0 <= label < len(self.class_names):
            return label
        names = ", ".join(self.class_names)
        raise InputError("labels", f"{label!r} is no class; there are {names}, or 0 to {len(self.class_names) - 1}")

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Reads a card.

        Raises:
            CardError: not a card of this version.
        """
        try:
            fields = json.loads(text)
            if fields["card_version"] != VERSION:
                raise CardError(f"the card is of version {fields['card_version']}, this program reads {VERSION}")
            fields["image_shape"] = tuple(fields["image_shape"])
            fields["dataset"] = Dataset(**tuples(fields["dataset"]))
            fields["training"] = Training(**fields["training"])
            fields["golden"] = Golden(**fields["golden"])
            return cls(**fields)
        except CardError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise CardError(f"the card cannot be read ({type(error).__name__}: {error})") from error


def seal(file: bytes) -> bytes:
    """Writes a file's SHA-256 into the card that it carries."""
    digits = _find_seal(file).span(1)
    return file[: digits[0]] + _digest(file, digits).encode() + file[digits[1] :]


def check_seal(file: bytes) -> str:
    """Proves that a file is whole, byte for byte, before anything in it is parsed.

    Returns:
        The file's SHA-256 as its card states it.

    Raises:
        CardError: there is no seal, or it does not fit.
    """
    seal = _find_seal(file)
    stated, actual = seal[1].decode(), _digest(file, seal.span(1))
    if stated != actual:
        raise CardError(f"the file is damaged: its SHA-256 is {actual}, its card says {stated}")
    return stated


def _find_seal(file: bytes) -> re.Match[bytes]:
    seals = list(_SEAL.finditer(file))
    if len(seals) != 1:
        raise CardError(f"the file is cut short or was not made by export-onnx: it holds {len(seals)} cards, not 1")
    return seals[0]


def _digest(file: bytes, digits: tuple[int, int]) -> str:
    sha256 = hashlib.sha256(file[: digits[0]])
    sha256.update(_UNSEALED.encode())
    sha256.update(file[digits[1] :])
    return sha256.hexdigest()
