"""Environments of their own for clients whose dependencies conflict with those of this project."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CLIENTS = Path(__file__).parent / "clients"
"""Scripts that run in such an environment. Each exits with 1 if an assertion fails."""


def make_environment(folder: Path, *packages: str) -> Path:
    """Creates an environment with some packages, and returns its Python. Skips the test if they cannot be installed."""
    uv = Path(sys.executable).parent / "uv"
    if not uv.exists():
        pytest.skip("no uv: make setup installs it")
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder / "environment"], check=True)
    python = folder / "environment/bin/python"
    command = [uv, "pip", "install", "--quiet", "--python", python, *packages]
    installed = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if installed.returncode:
        pytest.skip(f"{', '.join(packages)} cannot be installed: {installed.stderr[-300:]}")
    return python


def run_client(python: Path, script: str, *arguments: object) -> str:
    """Runs a script of CLIENTS and returns what it prints."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [python, CLIENTS / script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
