"""Origin of a training run, as stored in its checkpoints and in the card: configuration, git commit, versions."""

import importlib.metadata
import platform

from models.common.version import git_commit
from models.onnx_file.card import Training
from training.config import Config


def training_record(config: Config, images_seen: int) -> Training:
    """Describes how the weights were trained after `images_seen` real images."""
    return Training(config.model_fields(), images_seen, config.seed, git_commit(), library_versions())


def library_versions() -> dict[str, str]:
    """Returns the versions of Python and of the libraries that affect the result of training, by name."""
    return {"python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in ("torch", "numpy", "torchvision")
    }
