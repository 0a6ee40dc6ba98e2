"""Origin of a training run, as stored in its checkpoints and in the card: configuration, git commit, versions."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path

from models.onnx_file.card import Training
from training.config import Config


def training_record(config: Config, images_seen: int) -> Training:
    """Describes how the weights were trained after `images_seen` real images."""
    return Training(config.model_fields(), images_seen, config.seed, git_commit(), library_versions())


def git_commit() -> str | None:
    """Returns the commit hash of the source tree that contains this file, or None if it is not a git checkout."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return None
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True)
    return git.stdout.strip() or None


def library_versions() -> dict[str, str]:
    """Returns the versions of Python and of the libraries that affect the result of training, by name."""
    return {"python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in ("torch", "numpy", "torchvision")
    }
