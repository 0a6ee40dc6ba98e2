"""The scripts of examples/, run against a service."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.onnx_file.generator import Generator
from models.onnx_file.store import SHIPPED
from tools.service_process import serving

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory):
    with serving(tmp_path_factory.mktemp("service"), MNIST_GAN_MODEL=str(SHIPPED)) as (client, _):
        yield str(client.base_url).rstrip("/")


def run(folder: Path, *command: object) -> str:
    done = subprocess.run([*map(str, command)], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_curl_script_saves_its_responses(url, tmp_path):
    files = run(tmp_path, EXAMPLES / "curl.sh", url, tmp_path).split()
    names = ["grid.png", "writing.png", "interpolation.gif", "digits.npz", "card.json"]
    assert [Path(file).name for file in files] == names
    for name, size in (("grid.png", (560, 448)), ("writing.png", (616, 56)), ("interpolation.gif", (112, 112))):
        with Image.open(tmp_path / name) as image:
            assert image.size == size
    assert json.loads((tmp_path / "card.json").read_text())["file_sha256"] == Generator.open(SHIPPED).card.file_sha256


def test_the_python_client_saves_a_grid_and_prints_the_shapes_of_the_other_responses(url, tmp_path):
    output = run(tmp_path, sys.executable, EXAMPLES / "client.py", url)
    assert "/dataset: (100, 28, 28)" in output
    assert "/decode: (256, 1, 28, 28)" in output
    with Image.open(tmp_path / "grid.png") as image:
        assert image.size == (4 * 28 * 4, 4 * 28 * 4)


def test_a_training_set_requested_in_parts_equals_one_drawn_in_a_single_call(url, tmp_path):
    run(tmp_path, sys.executable, EXAMPLES / "training_set.py", url, 10_100)
    images, labels = Generator.open(SHIPPED).images(2026, 0, 10_100)
    with np.load(tmp_path / "digits.npz") as saved:
        np.testing.assert_array_equal(saved["images"], images[:, 0])
        np.testing.assert_array_equal(saved["labels"], labels)
    assert [path.name for path in tmp_path.iterdir()] == ["digits.npz"]
