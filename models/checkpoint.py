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

from models.common.checksum import EMPTY_CHECKSUM, ChecksumError, verify_checksum, write_checksum
from models.common.errors import MnistGanError, ModelFileError
from models.common.files import write_atomically
from models.networks import Network, NetworkConfig, build_generator
from models.onnx_file.card import Dataset, Training, first_validation_error

_FOLDER = "checkpoints"
_KEPT = 2
_VERSION = 3
_HEADER = "mnist-gan"
_KINDS = {"generator": NetworkConfig, "dataset": Dataset, "training": Training}


class CheckpointError(MnistGanError):
    """A checkpoint that is missing, damaged, or not ours."""


@dataclass(frozen=True)
class Checkpoint:
    tensors: dict[str, Tensor]
    """By name; those of the generator begin with "generator.", those of its average with "ema."."""
    generator: NetworkConfig
    dataset: Dataset
    training: Training
    sha256: str = EMPTY_CHECKSUM
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
        generator.load_state_dict(self.part("ema") or self.part("generator"))
        return generator.eval()


def save_checkpoint(checkpoint: Checkpoint, run: Path) -> Path:
    """Writes a checkpoint into a run. The one before it stays; older ones go once this one is whole."""
    folder = run / _FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{checkpoint.training.images_seen:012}.safetensors"
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    write_atomically(path, write_checksum(safetensors.torch.save(tensors, {_HEADER: _write_header(checkpoint)})))
    for old in find_checkpoints(run)[:-_KEPT]:
        old.unlink()
    return path


def check_readable(checkpoint: Checkpoint) -> None:
    """Finds out before training whether `load_checkpoint` would accept what `save_checkpoint` would write.

    Raises:
        CheckpointError: it would not.
    """
    try:
        _parse_header(json.loads(_write_header(checkpoint)))
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"a checkpoint of this run could not be read again: {_reason(error)}") from error


def find_checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted((run / _FOLDER).glob("*.safetensors"))


def run_name(path: str | os.PathLike[str]) -> str:
    """Name of the run folder, or of the run that a checkpoint file is in, or else of the checkpoint file."""
    path = Path(path).resolve()
    if path.suffix != ".safetensors":
        return path.name
    return path.parents[1].name if path.parent.name == _FOLDER else path.stem


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Reads the newest checkpoint of a run, or a checkpoint file.

    Raises:
        CheckpointError: there is none, or it cannot be read. The message calls it damaged, and says to delete it, only
            if its checksum is wrong.
    """
    path = Path(path)
    before = None
    if path.is_dir():
        found = find_checkpoints(path)
        if not found:
            raise CheckpointError(f"{path}: holds no checkpoint; `train --out RUN` makes one")
        path, before = found[-1], found[-2] if len(found) > 1 else None
    try:
        file = path.read_bytes()
        sha256 = verify_checksum(file)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}") from error
    except ChecksumError as error:
        advice = f"; the one before it is {before}: delete the damaged one to go on from there" if before else ""
        raise CheckpointError(f"{path}: damaged ({error}){advice}") from error
    except ModelFileError as error:
        advice = f"; the one before it is {before}: move this file elsewhere to go on from there" if before else ""
        raise CheckpointError(f"{path}: cut short, or not a checkpoint of mnist-gan ({error}){advice}") from error
    try:
        return _parse(file, sha256)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: its checksum is right, but it is not a checkpoint that this version of mnist-gan can read "
            f"({_reason(error)}); keep it: another version may have written it"
        ) from error


def _parse(file: bytes, sha256: str) -> Checkpoint:
    checkpoint = Checkpoint(safetensors.torch.load(file), **_parse_header(_read_header(file)), sha256=sha256)
    checkpoint.build()  # the weights fit the network
    return checkpoint


def _write_header(checkpoint: Checkpoint) -> str:
    header = {name: asdict(getattr(checkpoint, name)) for name in _KINDS}
    return json.dumps({"version": _VERSION, **header, "file_sha256": EMPTY_CHECKSUM})


def _parse_header(header: dict[str, Any]) -> dict[str, Any]:
    """The fields of a `Checkpoint` by name. Validated from JSON, where a list is a tuple."""
    return {name: TypeAdapter(kind).validate_json(json.dumps(header[name])) for name, kind in _KINDS.items()}


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return first_validation_error(error)
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)


def _read_header(file: bytes) -> dict[str, Any]:
    """safetensors: eight bytes of length, then that much JSON, whose `__metadata__` is ours."""
    length = int.from_bytes(file[:8], "little")
    header = json.loads(json.loads(file[8 : 8 + length])["__metadata__"][_HEADER])
    if header["version"] != _VERSION:
        raise ValueError(f"version {header['version']}, this program reads {_VERSION}")
    return header
