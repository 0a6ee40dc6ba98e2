"""A checkpoint: one safetensors file with the weights and, in its header, the configs that describe them.

A run keeps its two newest checkpoints in `checkpoints/`, named by the number of images seen. Each has the weights of
the generator, their EMA if the run keeps one, and everything else that training needs to resume. No pickle is involved,
so that loading a checkpoint executes nothing. The header contains the checksum of the file (`models.common.checksum`).
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
from models.networks.own import NetworkError
from models.onnx_file.card import Dataset, Training, first_validation_error

_FOLDER = "checkpoints"
_KEPT = 2
"""Number of checkpoints that a run keeps."""
_VERSION = 3
"""Version of the header and of the names of the tensors."""
_HEADER = "mnist-gan"
"""Key of the header in the metadata of the safetensors file."""
_FIELDS = {"generator": NetworkConfig, "dataset": Dataset, "training": Training}
"""Fields of `Checkpoint` that the header stores as JSON, with their types."""


class CheckpointError(MnistGanError):
    """A checkpoint is missing, damaged, of another version, or was not written by mnist-gan."""


class _VersionError(CheckpointError):
    """A checkpoint has a version that this program cannot read."""


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run after some number of images: everything that is needed to export the generator or to resume
    the run."""

    tensors: dict[str, Tensor]
    """Tensors by name. Names of the generator's weights begin with "generator.", those of their EMA with "ema.". The
    other tensors, such as the discriminator and the optimizers, are only needed to resume; see `training.state`."""
    generator: NetworkConfig
    """Architecture of the generator."""
    dataset: Dataset
    """Data set that the generator is trained on."""
    training: Training
    """Configuration, seed, number of images seen, and library versions of the run."""
    sha256: str = EMPTY_CHECKSUM
    """Checksum of the file that the checkpoint was loaded from, as the file states it; zeros if it was not loaded."""

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Returns the tensors whose names begin with "prefix.", with the prefix removed from their names.

        Empty if there are none.
        """
        return {
            name.removeprefix(f"{prefix}."): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(f"{prefix}.")
        }

    def inference_weights(self) -> dict[str, Tensor]:
        """Returns the weights that generate images: the EMA weights, or the generator's if there are none."""
        return self.part("ema") or self.part("generator")

    def build(self) -> Network:
        """Builds the generator on the CPU, in evaluation mode, with `inference_weights`.

        Raises:
            ValueError, RuntimeError: the config is invalid, or the weights do not fit it.
            NetworkError: the network is that of a user, and was not imported, has changed, or raises an error.
        """
        generator = build_generator(self.generator)
        generator.load_state_dict(self.inference_weights())
        return generator.eval()


def save_checkpoint(checkpoint: Checkpoint, run: Path) -> Path:
    """Writes a checkpoint into a run folder, then deletes all but the two newest.

    Returns:
        The path of the file, `RUN/checkpoints/IMAGES_SEEN.safetensors`.

    Raises:
        OSError: the file cannot be written, in which case all older checkpoints are still there. Or an older checkpoint
            cannot be deleted, in which case the new one is written.
    """
    folder = run / _FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{checkpoint.training.images_seen:012}.safetensors"
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    write_atomically(path, write_checksum(safetensors.torch.save(tensors, {_HEADER: _write_header(checkpoint)})))
    for old in find_checkpoints(run)[:-_KEPT]:
        old.unlink()
    return path


def load_checkpoint(path: str | os.PathLike[str], check_network: bool = True) -> Checkpoint:
    """Reads a checkpoint file, or the newest checkpoint of a run folder.

    Args:
        check_network: whether to build the generator, to check that the weights fit it. If False, the network of a
            user need not be imported.

    Raises:
        CheckpointError: there is no checkpoint, or it cannot be read. The message says "damaged", and to delete the
            file, only if the checksum is wrong.
    """
    path = Path(path)
    previous = None
    if path.is_dir():
        checkpoints = find_checkpoints(path)
        if not checkpoints:
            raise CheckpointError(f"{path}: contains no checkpoint; make one with `train --out RUN`")
        path = checkpoints[-1]
        previous = checkpoints[-2] if len(checkpoints) > 1 else None
    try:
        file = path.read_bytes()
        sha256 = verify_checksum(file)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}") from error
    except ChecksumError as error:
        advice = f"; delete this file to resume from the previous checkpoint, {previous}" if previous else ""
        raise CheckpointError(f"{path}: {error}{advice}") from error
    except ModelFileError as error:
        advice = f"; move this file elsewhere to resume from the previous checkpoint, {previous}" if previous else ""
        raise CheckpointError(f"{path}: {error}{advice}") from error
    try:
        return _parse(file, sha256, check_network)
    except (_VersionError, NetworkError) as error:
        raise CheckpointError(f"{path}: {error}") from None
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: the checksum is right, but this version of mnist-gan cannot read the checkpoint "
            f"({_reason(error)}); keep the file: another version may have written it"
        ) from error


def check_readable(checkpoint: Checkpoint) -> None:
    """Checks, before training, that `load_checkpoint` will accept the header that `save_checkpoint` will write.

    Raises:
        CheckpointError: it will not; the message names the field.
    """
    try:
        _parse_header(json.loads(_write_header(checkpoint)))
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"checkpoints of this run could not be loaded again: {_reason(error)}") from error


def find_checkpoints(run: Path) -> list[Path]:
    """Lists the checkpoint files of a run folder, oldest first. Empty if there are none."""
    return sorted((run / _FOLDER).glob("*.safetensors"))


def run_name(path: str | os.PathLike[str]) -> str:
    """Name of a run folder. For a checkpoint file: name of the run that it is in, or else its own without the suffix.

    Nothing has to exist at `path`. The name is empty if `path` is the root folder.
    """
    path = Path(path).resolve()
    if path.suffix != ".safetensors":
        return path.name
    return path.parents[1].name if path.parent.name == _FOLDER else path.stem


def _parse(file: bytes, sha256: str, check_network: bool) -> Checkpoint:
    header = _read_header(file)  # read first, so that a version mismatch is reported before other errors
    checkpoint = Checkpoint(safetensors.torch.load(file), **_parse_header(header), sha256=sha256)
    if check_network:
        checkpoint.build()  # fails if the weights do not fit the network
    return checkpoint


def _write_header(checkpoint: Checkpoint) -> str:
    fields = {name: asdict(getattr(checkpoint, name)) for name in _FIELDS}
    return json.dumps({"version": _VERSION, **fields, "file_sha256": EMPTY_CHECKSUM})


def _read_header(file: bytes) -> dict[str, Any]:
    """Reads our header from a safetensors file and checks its version.

    The file begins with the length of its JSON as 8 bytes, then the JSON; its `__metadata__` contains the header.

    Raises:
        _VersionError: the header has another version.
        ValueError, KeyError, TypeError: the file has no such header.
    """
    length = int.from_bytes(file[:8], "little")
    header = json.loads(json.loads(file[8 : 8 + length])["__metadata__"][_HEADER])
    if header["version"] != _VERSION:
        raise _VersionError(
            f"a checkpoint of version {header['version']!r:.20}, but this program reads version {_VERSION}; "
            "use the release of mnist-gan that wrote it, or train again"
        )
    return header


def _parse_header(header: dict[str, Any]) -> dict[str, Any]:
    """Validates the fields of a `Checkpoint`.

    They are passed as JSON because pydantic's strict mode converts a list to a tuple only in JSON input.
    """
    return {name: TypeAdapter(field).validate_json(json.dumps(header[name])) for name, field in _FIELDS.items()}


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return first_validation_error(error)
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)
