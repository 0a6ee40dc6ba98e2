"""A checkpoint: one safetensors file with the weights and, in its header, all that is known of them.

A run keeps its last two, in `checkpoints/`, named by the images seen. Each holds the generator, the average of its
weights if one is kept, and whatever else training needs to go on. The exporter prefers the average to the raw weights.
Nothing in it is ever executed: no pickle on the way from training to service. It is sealed, so that a damaged one is
found.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from models.architectures import Network, NetworkConfig, build_generator
from models.card import Dataset, Training, first_problem
from models.errors import MnistGanError, ModelFileError
from models.files import write_atomically
from models.seal import UNSEALED, check_seal, seal

_FOLDER = "checkpoints"
_KEPT = 2
_VERSION = 2
_HEADER = "mnist-gan"


class CheckpointError(MnistGanError):
    """A checkpoint that is missing, damaged, or not ours."""


@dataclass(frozen=True)
class Checkpoint:
    tensors: dict[str, Tensor]
    """By name; those of the generator begin with "generator.", those of its average with "average."."""
    generator: NetworkConfig
    dataset: Dataset
    training: Training
    sha256: str = UNSEALED
    """Of the file that it was loaded from, as its seal states it."""

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin with "prefix.", without it."""
        return {
            name.removeprefix(f"{prefix}."): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(f"{prefix}.")
        }

    def build(self) -> Network:
        """The generator, with the average of its weights if there is one, ready for inference."""
        generator = build_generator(self.generator)
        generator.load_state_dict(self.part("average") or self.part("generator"))
        return generator.eval()


def save(checkpoint: Checkpoint, run: Path) -> Path:
    """Writes a checkpoint into a run. The one before it stays; older ones go once this one is whole."""
    header = {
        "version": _VERSION,
        "generator": asdict(checkpoint.generator),
        "dataset": asdict(checkpoint.dataset),
        "training": asdict(checkpoint.training),
        "file_sha256": UNSEALED,
    }
    folder = run / _FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{checkpoint.training.images_seen:012}.safetensors"
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    write_atomically(path, seal(safetensors.torch.save(tensors, {_HEADER: json.dumps(header)})))
    for old in find(run)[:-_KEPT]:
        old.unlink()
    return path


def find(run: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted((run / _FOLDER).glob("*.safetensors"))


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Reads the newest checkpoint of a run, or a checkpoint file.

    Raises:
        CheckpointError: there is none, or it is damaged or not ours; then the message names the one before it.
    """
    path = Path(path)
    before = None
    if path.is_dir():
        found = find(path)
        if not found:
            raise CheckpointError(f"{path}: holds no checkpoint; `train --out RUN` makes one")
        path, before = found[-1], found[-2] if len(found) > 1 else None
    try:
        return _parse(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}") from error
    except (ModelFileError, safetensors.SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = first_problem(error) if isinstance(error, ValidationError) else error
        advice = f"; the one before it is {before}: delete the damaged one to go on from there" if before else ""
        raise CheckpointError(f"{path}: damaged, or not a checkpoint of mnist-gan ({reason}){advice}") from error


def _parse(file: bytes) -> Checkpoint:
    sha256 = check_seal(file)
    header = _read_header(file)
    kinds = {"generator": NetworkConfig, "dataset": Dataset, "training": Training}
    # From JSON, where a list is a tuple.
    known: dict[str, Any] = {
        name: TypeAdapter(kind).validate_json(json.dumps(header[name])) for name, kind in kinds.items()
    }
    checkpoint = Checkpoint(safetensors.torch.load(file), **known, sha256=sha256)
    checkpoint.build()  # the weights fit the network
    return checkpoint


def _read_header(file: bytes) -> dict[str, Any]:
    """safetensors: eight bytes of length, then that much JSON, whose `__metadata__` is ours."""
    length = int.from_bytes(file[:8], "little")
    header = json.loads(json.loads(file[8 : 8 + length])["__metadata__"][_HEADER])
    if header["version"] != _VERSION:
        raise ValueError(f"version {header['version']}, this program reads {_VERSION}")
    return header
