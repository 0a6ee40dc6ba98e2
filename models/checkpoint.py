"""A checkpoint: one safetensors file with a generator's weights and, in its header, all that is known of it.

Nothing in it is ever executed: no pickle on the way from training to service.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch

from models.card import Dataset, Training
from models.files import write_atomically
from models.networks import Generator, NetworkConfig

FILE_NAME = "generator.safetensors"
_VERSION = 1
_HEADER = "mnist-gan"


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged, or not ours."""


@dataclass(frozen=True)
class Checkpoint:
    generator: Generator
    dataset: Dataset
    training: Training
    sha256: str = ""
    """Of the file that it was loaded from."""


def save(checkpoint: Checkpoint, run: Path) -> Path:
    """Writes a run's checkpoint, replacing the one before it once it is whole."""
    header = {
        "version": _VERSION,
        "generator": asdict(checkpoint.generator.config),
        "dataset": asdict(checkpoint.dataset),
        "training": asdict(checkpoint.training),
    }
    weights = {name: tensor.detach().cpu() for name, tensor in checkpoint.generator.state_dict().items()}
    path = run / FILE_NAME
    write_atomically(path, safetensors.torch.save(weights, {_HEADER: json.dumps(header)}))
    return path


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Reads the checkpoint of a run, or a checkpoint file.

    Raises:
        CheckpointError: there is none, or it is damaged or not ours.
    """
    path = Path(path)
    if path.is_dir():
        path /= FILE_NAME
    try:
        file = path.read_bytes()
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such checkpoint; `train --out RUN` makes one") from error
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}") from error
    try:
        weights = safetensors.torch.load(file)
        header = _read_header(file)
        config = header["generator"]
        generator = Generator(
            NetworkConfig(**config | {"image_shape": tuple(config["image_shape"]), "widths": tuple(config["widths"])})
        )
        generator.load_state_dict(weights)
        return Checkpoint(
            generator.eval(),
            Dataset.from_dict(header["dataset"]),
            Training(**header["training"]),
            hashlib.sha256(file).hexdigest(),
        )
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{path}: damaged, or not a checkpoint of mnist-gan ({error})") from error


def _read_header(file: bytes) -> dict[str, Any]:
    """safetensors: eight bytes of length, then that much JSON, whose `__metadata__` is ours."""
    length = int.from_bytes(file[:8], "little")
    header = json.loads(json.loads(file[8 : 8 + length])["__metadata__"][_HEADER])
    if header["version"] != _VERSION:
        raise ValueError(f"version {header['version']}, this program reads {_VERSION}")
    return header
