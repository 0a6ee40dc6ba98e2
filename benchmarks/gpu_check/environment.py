"""The Python environment of the stages: the running one, completed from the folder of `make gpu-bundle` if need be.

A machine with a GPU may have PyTorch, but no network and not every package. The missing wheels are unpacked into a
folder that PYTHONPATH puts before the installed packages. A virtual environment would not do: where the running Python
is itself in one, a virtual environment made from it does not see that environment's packages.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

REQUIRED = ("torch", "torchvision", "onnx", "onnxruntime", "onnxscript", "safetensors", "sklearn", "tyro", "pydantic")
"""Modules without which no stage can run."""
BUNDLE = Path(__file__).parents[2] / "gpu-bundle"


class MissingPackageError(Exception):
    """A package is missing, and the bundle does not supply it."""


def prepare(bundle: Path, packages: Path) -> dict[str, str]:
    """Makes an environment in which the stages can be started with `sys.executable`.

    Args:
        bundle: the folder that `make gpu-bundle` makes; it may be missing.
        packages: an empty folder for unpacked wheels.

    Returns:
        The environment variables of the stages.

    Raises:
        MissingPackageError: a package is missing, and the message names it.
    """
    environment = dict(os.environ)
    root = str(Path(__file__).parents[2])
    paths = [root]
    wheels = sorted((bundle / "wheels").glob("*.whl"))
    if missing_modules() and wheels:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", packages]
        done = subprocess.run([*pip, *wheels], capture_output=True, text=True)
        if done.returncode:
            raise MissingPackageError(f"the wheels of {bundle} cannot be installed: {done.stderr.strip()}")
        paths.append(str(packages))
    if missing := missing_modules(packages):
        raise MissingPackageError(
            f"{sys.executable} lacks {', '.join(missing)}: run `make setup`, or bring the folder of `make gpu-bundle`"
        )
    paths += [path for path in (environment.get("PYTHONPATH"),) if path]
    return environment | {"PYTHONPATH": os.pathsep.join(paths)}


def missing_modules(packages: Path | None = None) -> list[str]:
    """The modules of `REQUIRED` that are neither installed nor in the folder `packages`."""
    return [
        name
        for name in REQUIRED
        if importlib.util.find_spec(name) is None and not (packages and (packages / name).exists())
    ]
