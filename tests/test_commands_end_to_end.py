"""From training to images, with the commands that a user types."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.onnx_file.generator import Generator

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


def run(command: str, *arguments: object) -> str:
    """Runs a command of this project, which has to succeed, and returns its standard output."""
    done = subprocess.run([BIN / command, *map(str, arguments)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_mnist_is_trained_exported_and_sampled_to_a_grid_of_digits(mnist, tmp_path):
    output = run("train", "--preset", "mlp", "--data-dir", mnist, "--out", tmp_path / "a", "--epochs", 1)
    assert "preset mlp on mnist (60,000 images)" in output
    assert "epoch   1" in output
    run("export-onnx", tmp_path / "a", "--out", tmp_path / "a.onnx")
    run("sample", tmp_path / "a.onnx", "--n", 64, "--seed", 1, "--out", tmp_path / "a.png")

    card = Generator.open(tmp_path / "a.onnx").card
    assert (card.name, card.latent_dim, card.image_shape) == ("a", 100, (1, 28, 28))
    assert str(tmp_path).encode() not in (tmp_path / "a.onnx").read_bytes()
    with Image.open(tmp_path / "a.png") as grid:
        pixels = np.asarray(grid)
    assert pixels.shape == (8 * 28 * 2, 8 * 28 * 2)
    mean_cell = pixels.reshape(8, 56, 8, 56).mean(axis=(0, 2))
    # A digit is bright in the middle of its cell and dark at the upper edge.
    assert mean_cell[20:36, 20:36].mean() > 3 * mean_cell[:4].mean()


@pytest.mark.slow
def test_make_demo_works_in_a_fresh_clone(tmp_path):
    # A newer Python than the one that runs the tests, if there is one, so that both are tried.
    python = next((name for name in ("python3.13", "python3.12") if works(name)), sys.executable)
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    environment = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "MNIST_GAN_DATA")}
    done = subprocess.run(
        ["make", "demo", f"PYTHON={python}"],
        cwd=clone,
        env=environment | {"BENTOML_HOME": str(tmp_path / "bentoml")},
        capture_output=True,
        text=True,
        timeout=1_500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    demo = clone / "demo"
    for name in ("run/checkpoints", "run/samples.gif", "generator.onnx", "parity.json"):
        assert (demo / name).exists(), done.stdout
    with Image.open(demo / "grid.png") as grid:
        assert grid.size == (560, 448)
    assert "MNIST_GAN_MODEL=demo/generator.onnx make serve" in done.stdout
    assert "`make serve` without MNIST_GAN_MODEL serves mnist, the pretrained generator." in done.stdout
    assert not list(tmp_path.glob("bentoml/models/*")), "the demo must not register a model in the user's store"
    assert Generator.open(demo / "generator.onnx").card.name == "demo"
    status = subprocess.run(["git", "status", "--porcelain"], cwd=clone, capture_output=True, text=True)
    assert status.stdout == ""


def works(python: str) -> bool:
    return bool(shutil.which(python)) and not subprocess.run([python, "-c", ""], capture_output=True).returncode
