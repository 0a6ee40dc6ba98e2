"""Version of this project."""

import importlib.metadata
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
