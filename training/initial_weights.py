"""Initial weights of a run from another run (`--init`): copies the tensors that fit, and lists those that do not."""

from collections.abc import Collection
from pathlib import Path

from torch import nn

from models.checkpoint import Checkpoint, load_checkpoint
from models.networks import is_own
from training.errors import RunError
from training.state import State


def initialize_from(state: State, run: Path) -> list[str]:
    """Copies the weights of another run into a new state: tensors that have the same name and the same shape.

    The generator and its EMA start from the weights that the other run generates images with. All other tensors keep
    their random initial values, for example an embedding of another number of classes.

    Args:
        run: the other run, or a checkpoint file. If its networks are those of a user, their code is not imported.

    Returns:
        lines that list the copied tensors and the others.

    Raises:
        CheckpointError: there is no checkpoint, or it cannot be read.
        RunError: no tensor of the generator fits, or the other run has another architecture of the generator.
    """
    source = load_checkpoint(run, check_network=False)
    ours, theirs = state.generator.config.architecture, source.generator.architecture
    if ours != theirs and not (is_own(ours) or is_own(theirs)):
        raise RunError(f"--init {run}: its generator is {theirs}, this run has {ours}; add --generator {theirs}")
    lines = _copy(state.generator, source, ("ema", "generator"), "generator")
    if not lines[0].startswith("copied"):
        raise RunError(
            f"--init {run}: no tensor of its generator has the name and the shape of one of this run; give the same "
            "--latent-dim, --generator-widths and --image-size, or omit --init"
        )
    lines += _copy(state.discriminator, source, ("discriminator",), "discriminator")
    if state.ema is not None:
        state.ema.load_state_dict(state.generator.state_dict())
    return [f"--init {run}: {line}" for line in lines]


def _copy(network: nn.Module, source: Checkpoint, parts: tuple[str, ...], name: str) -> list[str]:
    """Copies the tensors that fit from the first of `parts` that the checkpoint has, and describes what it did."""
    weights = next((weights for part in parts if (weights := source.part(part))), {})
    copied, anew = {}, []
    for key, tensor in network.state_dict().items():
        if key in weights and weights[key].shape == tensor.shape:
            copied[key] = weights[key]
        else:
            before = f"had {_shape(weights[key].shape)}" if key in weights else "is not in that run"
            anew.append(f"{key} (has {_shape(tensor.shape)}, {before})")
    network.load_state_dict(copied, strict=False)
    lines = []
    if copied:
        lines.append(f"copied {_tensors(copied)} of the {name}: {', '.join(copied)}")
    if anew:
        lines.append(f"initialized {_tensors(anew)} of the {name} anew: {', '.join(anew)}")
    return lines


def _tensors(names: Collection[str]) -> str:
    return f"{len(names)} tensor{'s' if len(names) > 1 else ''}"


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "one number"
