"""Version and commit of this project."""

import importlib.metadata
import subprocess
import tomllib
from functools import cache
from pathlib import Path

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
"""A clone and a Bento contain this file. A Bento has no metadata of an installed package."""


@cache
def version() -> str:
    """Returns the version in pyproject.toml, or if the packages are installed without that file, the installed one."""
    if PYPROJECT.exists():
        return tomllib.loads(PYPROJECT.read_text())["project"]["version"]
    return importlib.metadata.version("mnist-gan")


def git_commit() -> str | None:
    """Returns the commit hash of the source tree that contains this file, or None if it is not a git checkout."""
    root = PYPROJECT.parent
    if not (root / ".git").exists():
        return None
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True)
    return git.stdout.strip() or None
