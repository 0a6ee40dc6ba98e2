"""The examples, run as a user runs them beside a service."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from devtools.service_process import serving
from models.onnx_file.generator import Generator
from models.onnx_file.store import SHIPPED

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory):
    with serving(tmp_path_factory.mktemp("service"), MNIST_GAN_MODEL=str(SHIPPED)) as (client, _):
        yield str(client.base_url).rstrip("/")


def run(folder: Path, *command: object) -> str:
    done = subprocess.run([*map(str, command)], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_curl_gets_every_kind_of_answer(url, tmp_path):
    told = run(tmp_path, EXAMPLES / "curl.sh", url, tmp_path).split()
    assert [Path(name).name for name in told] == ["sheet.png", "written.png", "between.gif", "digits.npz", "card.json"]
    for name, size in (("sheet.png", (560, 448)), ("written.png", (616, 56)), ("between.gif", (112, 112))):
        with Image.open(tmp_path / name) as image:
            assert image.size == size
    assert json.loads((tmp_path / "card.json").read_text())["file_sha256"] == Generator.open(SHIPPED).card.file_sha256


def test_the_python_client_takes_typed_arguments(url, tmp_path):
    told = run(tmp_path, sys.executable, EXAMPLES / "client.py", url)
    assert "/dataset: (100, 28, 28)" in told
    assert "/decode: (256, 1, 28, 28)" in told
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.size == (4 * 28 * 4, 4 * 28 * 4)


def test_a_training_set_made_in_parts_is_the_one_made_at_once(url, tmp_path):
    run(tmp_path, sys.executable, EXAMPLES / "training_set.py", url, 10_100)
    images, labels = Generator.open(SHIPPED).images(2026, 0, 10_100)
    with np.load(tmp_path / "digits.npz") as made:
        np.testing.assert_array_equal(made["images"], images[:, 0])
        np.testing.assert_array_equal(made["labels"], labels)
    assert [path.name for path in tmp_path.iterdir()] == ["digits.npz"]
