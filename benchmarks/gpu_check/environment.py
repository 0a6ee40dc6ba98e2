"""The Python environment of the stages: the running one, plus packages from the bundle where some are missing.

A machine with a GPU may have PyTorch, but no network and not every package. The missing wheels are unpacked into a
folder that precedes the installed packages in PYTHONPATH. A virtual environment would not work: one that is created
inside another virtual environment does not see the packages of the outer one.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

REQUIRED = ("torch", "torchvision", "onnx", "onnxruntime", "onnxscript", "safetensors", "sklearn", "tyro", "pydantic")
"""Modules that every stage needs."""
BUNDLE = Path(__file__).parents[2] / "gpu-bundle"


class MissingPackageError(Exception):
    """A required package is missing or cannot be installed from the GPU bundle."""


def prepare(bundle: Path, packages: Path) -> dict[str, str]:
    """Prepares an environment in which the stages can be started with `sys.executable`.

    Args:
        bundle: the folder that `make gpu-bundle` writes; it need not exist.
        packages: an empty folder for unpacked wheels.

    Returns:
        the environment variables of the stages.

    Raises:
        MissingPackageError: a package is missing or cannot be installed; the message names it.
    """
    environment = dict(os.environ)
    root = str(Path(__file__).parents[2])
    paths = [root]
    wheels = sorted((bundle / "wheels").glob("*.whl"))
    if missing_modules() and wheels:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", packages]
        done = subprocess.run([*pip, *wheels], capture_output=True, text=True)
        if done.returncode:
            raise MissingPackageError(f"the wheels in {bundle} cannot be installed: {done.stderr.strip()}")
        paths.append(str(packages))
    if missing := missing_modules(packages):
        raise MissingPackageError(
            f"{sys.executable} lacks {', '.join(missing)}: run `make setup`, or copy the folder of `make gpu-bundle`"
        )
    paths += [path for path in (environment.get("PYTHONPATH"),) if path]
    return environment | {"PYTHONPATH": os.pathsep.join(paths)}


def missing_modules(packages: Path | None = None) -> list[str]:
    """Returns the modules of `REQUIRED` that are neither installed nor in the folder `packages`."""
    return [
        name
        for name in REQUIRED
        if importlib.util.find_spec(name) is None and not (packages and (packages / name).exists())
    ]
