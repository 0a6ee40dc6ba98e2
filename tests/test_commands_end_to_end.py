"""From training to images, with the commands that a user types."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from models.onnx_file.generator import Generator
from tools.service_process import serving

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


def run(command: str, *arguments: object) -> str:
    """Runs a command of this project, which has to succeed, and returns its standard output."""
    done = subprocess.run([BIN / command, *map(str, arguments)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_mnist_is_trained_exported_and_sampled_to_a_grid_of_digits(mnist, tmp_path):
    output = run("train", "--preset", "mlp", "--data-dir", mnist, "--out", tmp_path / "a", "--epochs", 2)
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
def test_few_coloured_pictures_that_are_not_square_go_the_whole_way(tmp_path):
    """300 pictures in several sizes, some of them transparent: trained, exported, evaluated and served at 24 x 16."""
    random = np.random.default_rng(0)
    for index in range(300):
        name, colour = [("suns", "gold"), ("lakes", "royalblue")][index % 2]
        width = int(random.choice([48, 60, 72]))
        height = width * 2 // 3
        picture = Image.new("RGBA", (width, height), (0, 0, 0, 0) if index % 5 == 0 else "darkgreen")
        x, y = random.integers(0, width // 2), random.integers(0, height // 2)
        shape = (x, y, x + width // 3, y + (height // 2 if name == "suns" else height // 4))
        ImageDraw.Draw(picture).ellipse([*map(int, shape)], fill=colour)
        (tmp_path / "pictures" / name).mkdir(parents=True, exist_ok=True)
        picture.save(tmp_path / "pictures" / name / f"{index}.png")

    options = ["--preset=fast", "--generator-widths", "16", "8", "--discriminator-widths", "8", "16", "--mirror"]
    folder = ["--dataset=folder", "--data-dir", tmp_path / "pictures", "--image-size=24x16", "--background=darkgreen"]
    output = run("train", *options, *folder, "--images=20k", "--out", tmp_path / "run")
    assert "folder: 300 images of 24 x 16 pixels, RGB; 2 classes: lakes (150), suns (150)" in output
    assert "60 of 300 images have transparency, which becomes #006400" in output
    assert "augmentation of the images: ada, because the folder has fewer than 5,000 images" in output
    run("export-onnx", tmp_path / "run", "--out", tmp_path / "pictures.onnx", "--no-register")
    model = Generator.open(tmp_path / "pictures.onnx")
    assert model.card.image_shape == (3, 16, 24)
    table = run("evaluate", tmp_path / "pictures.onnx", "--data-dir", tmp_path / "pictures", "--fit-classifier")
    assert "label agreement" in table

    with serving(tmp_path, MNIST_GAN_MODEL=str(tmp_path / "pictures.onnx")) as (client, _):
        assert client.get("/playground").status_code == 200
        assert client.get("/card").json()["image_shape"] == [3, 16, 24]
        body = {"n": 6, "columns": 3, "scale": 2, "seed": 1, "labels": ["suns"]}
        (tmp_path / "grid.png").write_bytes(client.post("/generate", json=body).raise_for_status().content)
        data = client.post("/dataset", json={"n": 200, "seed": 1}).raise_for_status().content
    with Image.open(tmp_path / "grid.png") as grid:
        assert (grid.size, grid.mode) == ((3 * 24 * 2, 2 * 16 * 2), "RGB")
    (tmp_path / "data.npz").write_bytes(data)
    with np.load(tmp_path / "data.npz") as arrays:
        images, labels = arrays["images"].astype(float), arrays["labels"]
    assert images.shape == (200, 16, 24, 3)
    lakes, suns = (images[labels == label].mean((0, 1, 2)) for label in (0, 1))
    assert lakes[2] > suns[2] + 5, "lakes should be bluer than suns"
    assert images.mean((0, 1, 2))[1] > images.mean((0, 1, 2))[0], "the background should be green"


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
