"""The command `sample`: grids, arrays, folders, and its error messages."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.common.image_files import grid
from models.onnx_file.generator import Generator

SAMPLE = Path(sys.executable).parent / "sample"


def sample(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SAMPLE, *map(str, arguments)], capture_output=True, text=True, timeout=60)


def error_line(*arguments: object) -> str:
    """Runs `sample`, which must fail with one line on stderr, and returns this line."""
    failed = sample(*arguments)
    assert failed.returncode == 1
    assert failed.stderr.startswith("sample: ")
    assert failed.stderr.count("\n") == 1
    return failed.stderr


def test_a_grid_has_the_images_of_seed_and_indices(files, tmp_path):
    done = sample(files["unconditional"], "--n", 12, "--seed", 1, "--first", 5, "--out", tmp_path / "digits.png")
    assert done.returncode == 0, done.stderr
    images, _ = Generator.open(files["unconditional"]).images(seed=1, first=5, n=12)
    with Image.open(tmp_path / "digits.png") as written:
        np.testing.assert_array_equal(np.asarray(written), np.asarray(grid(images, scale=2)))


def test_an_npz_file_has_images_and_labels(files, tmp_path):
    assert sample(files["conditional"], "--n", 30, "--labels", "42", "--out", tmp_path / "a.npz").returncode == 0
    arrays = np.load(tmp_path / "a.npz")
    images, labels = Generator.open(files["conditional"]).images(seed=0, first=0, n=30, labels="42")
    np.testing.assert_array_equal(arrays["images"], images[:, 0])
    assert arrays["labels"].tolist() == labels.tolist() == [4, 2] * 15


def test_a_folder_gets_one_png_per_image_named_by_index_and_label(files, tmp_path):
    out = tmp_path / "new" / "folder"
    assert sample(files["conditional"], "--n", 3, "--first", 8, "--labels", "7", "--out", out).returncode == 0
    assert [file.name for file in sorted(out.iterdir())] == ["000008-7.png", "000009-7.png", "000010-7.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--n", 0], "--n: must be at least 1, got 0"),
        (["--seed", -1], "--seed: must be from 0 to 2^53 - 1, got -1"),
        (["--truncation", 2], "--truncation: must be above 0 and at most 1, got 2.0"),
        (["--labels", "x"], "--labels: 'x' is not a class; the classes are 0, 1, 2"),
        (["--columns", 0], "--columns: must be from 1 to 64, got 0"),
        (["--columns", 65], "--columns: must be from 1 to 64, got 65"),
        (["--scale", -1], "--scale: must be from 1 to 16, got -1"),
        (["--scale", 10**12], "--scale: must be from 1 to 16, got 1000000000000"),
        (["--n", 10**12], "out of memory (Unable to allocate 146. TiB"),
    ],
)
def test_a_value_out_of_range_is_reported_with_its_option(files, tmp_path, arguments, message):
    assert message in error_line(files["conditional"], *arguments, "--out", tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("out", ["a.jpg", "a.PNG.txt", "v1.0", ""])
def test_an_output_path_with_an_unknown_suffix_is_rejected(files, tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    assert error_line(files["unconditional"], "--out", out).startswith("sample: --out: must ")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_may_have_any_name(files, tmp_path):
    (tmp_path / "v1.0").mkdir()
    assert sample(files["unconditional"], "--n", 1, "--out", tmp_path / "v1.0").returncode == 0
    assert [file.name for file in (tmp_path / "v1.0").iterdir()] == ["000000.png"]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text"])
def test_a_damaged_model_file_is_rejected_with_one_line(files, tmp_path, damage):
    whole = files["unconditional"].read_bytes()
    content = {
        "cut": whole[:-100],
        "flipped": whole[:5_000] + bytes([whole[5_000] ^ 1]) + whole[5_001:],
        "empty": b"",
        "text": b"not a model",
    }
    (tmp_path / "a.onnx").write_bytes(content[damage])
    message = error_line(tmp_path / "a.onnx", "--out", tmp_path / "a.png")
    assert f"{tmp_path}/a.onnx: " in message
    assert "damaged" in message or "truncated" in message


def test_a_missing_file_or_folder_is_named_in_the_error(files, tmp_path):
    assert "nothing.onnx: No such file" in error_line(tmp_path / "nothing.onnx", "--out", tmp_path / "a.png")
    out = tmp_path / "nowhere" / "a.png"
    assert f"{out}: No such file" in error_line(files["unconditional"], "--out", out)
