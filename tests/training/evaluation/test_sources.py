"""Sources that cannot be read, and invalid options, end `evaluate` with one line that names them."""

import pickle
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

DIGITS = np.random.default_rng(0).integers(0, 256, (50, 28, 28), np.uint8)
EVALUATE = Path(sys.executable).parent / "evaluate"


def write_damaged_npz(path: Path) -> None:
    """Changes one byte in the middle of the compressed images."""
    np.savez_compressed(path, images=DIGITS)
    file = bytearray(path.read_bytes())
    file[len(file) // 2] ^= 255
    path.write_bytes(file)


def write_truncated_npz(path: Path) -> None:
    np.savez(path, images=DIGITS)
    path.write_bytes(path.read_bytes()[:-100])


def write_npy(path: Path) -> None:
    with path.open("wb") as stream:
        np.save(stream, DIGITS)


def write_zip_without_arrays(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", b"nothing that NumPy can read")


UNREADABLE = "cannot be read as an .npz file"
FILES = {
    "damaged": (write_damaged_npz, UNREADABLE),
    "truncated": (write_truncated_npz, UNREADABLE),
    "npy": (write_npy, UNREADABLE),
    "zip without arrays": (write_zip_without_arrays, "`images` has the type"),
    "empty": (Path.touch, UNREADABLE),
    "text": (lambda path: path.write_text("images"), UNREADABLE),
    "pickle": (lambda path: path.write_bytes(pickle.dumps(DIGITS)), UNREADABLE),
    "folder": (Path.mkdir, UNREADABLE),
    "missing": (lambda path: None, "no such file"),
}
ARRAYS = {
    "no images": ({"pictures": DIGITS, "labels": DIGITS}, "no array `images`; its arrays are: pictures, labels"),
    "no array": ({}, "no array `images`; its arrays are: none"),
    "objects": ({"images": np.array([DIGITS, None], object)}, UNREADABLE),
    "floats": ({"images": DIGITS / 255}, "`images` has the type float64, but must be uint8"),
    "scalar": ({"images": np.uint8(7)}, r"shape \(\), but must be \(n, height, width\)"),
    "flat images": ({"images": DIGITS.reshape(50, -1)}, r"shape \(50, 784\), but must be \(n, height, width\)"),
    "zero images": ({"images": DIGITS[:0]}, "`images` is empty"),
    "other size": ({"images": DIGITS[:, :14]}, r"shape \(1, 14, 28\), but those of uci-digits have \(1, 28, 28\)"),
    "colour": (
        {"images": np.stack([DIGITS] * 3, 3)},
        r"shape \(3, 28, 28\), but those of uci-digits have \(1, 28, 28\)",
    ),
    "too few labels": ({"images": DIGITS, "labels": np.arange(49) % 10}, r"shape \(49,\), but must be 50 integers"),
    "too many labels": ({"images": DIGITS, "labels": np.arange(51) % 10}, r"shape \(51,\), but must be 50 integers"),
    "scalar label": ({"images": DIGITS, "labels": np.int64(3)}, r"shape \(\), but must be 50 integers"),
    "float labels": ({"images": DIGITS, "labels": np.ones(50)}, "float64 .* must be 50 integers"),
    "large labels": ({"images": DIGITS, "labels": np.arange(50) % 11}, "labels must be from 0 to 9, .* from 0 to 10"),
    "negative labels": ({"images": DIGITS, "labels": np.arange(50) % 10 - 1}, "must be from 0 to 9, .* from -1 to 8"),
}


@pytest.mark.parametrize(("write", "problem"), FILES.values(), ids=FILES)
def test_an_unreadable_npz_file_is_named(error_of_evaluate, tmp_path, write, problem):
    write(tmp_path / "digits.npz")
    message = error_of_evaluate(tmp_path / "digits.npz", "--dataset", "uci-digits")
    assert f"{tmp_path / 'digits.npz'}: " in message
    assert problem in message


@pytest.mark.parametrize(("arrays", "problem"), ARRAYS.values(), ids=ARRAYS)
def test_invalid_arrays_are_described(error_of_evaluate, tmp_path, arrays, problem):
    np.savez(tmp_path / "digits.npz", **arrays)
    assert re.search(f"digits.npz: .*{problem}", error_of_evaluate(tmp_path / "digits.npz", "--dataset", "uci-digits"))


@pytest.mark.parametrize("labels", [30, 49, 51])
def test_all_labels_are_counted_even_if_fewer_images_are_evaluated(error_of_evaluate, tmp_path, labels):
    np.savez(tmp_path / "digits.npz", images=DIGITS, labels=np.arange(labels) % 10)
    message = error_of_evaluate(tmp_path / "digits.npz", "--dataset", "uci-digits", "--n", 10)
    assert "must be 50 integers" in message


@pytest.mark.parametrize("name", ["model.onnx", "checkpoint.safetensors", "run"])
def test_a_missing_source_is_named(error_of_evaluate, tmp_path, name):
    assert f"{tmp_path / name}: No such file" in error_of_evaluate(tmp_path / name)


@pytest.mark.parametrize("name", ["model.onnx", "checkpoint.safetensors"])
def test_a_file_that_is_not_a_model_is_named(error_of_evaluate, tmp_path, name):
    (tmp_path / name).write_text("no model")
    assert f"{tmp_path / name}: " in error_of_evaluate(tmp_path / name)


def test_a_folder_without_a_checkpoint_is_named(error_of_evaluate, tmp_path):
    assert f"{tmp_path}: " in error_of_evaluate(tmp_path)


@pytest.mark.parametrize(
    ("option", "value", "problem"),
    [
        ("--metrics", "fidd", "--metrics: unknown metric 'fidd'; known are fid, kid"),
        ("--n", 0, "--n: must be at least 1, got 0"),
        ("--dataset", "cifar", "--dataset: unknown data set 'cifar'; known are mnist"),
    ],
)
def test_an_invalid_option_is_named_before_any_source_is_opened(error_of_evaluate, tmp_path, option, value, problem):
    assert problem in error_of_evaluate(tmp_path / "never-opened.npz", option, value)


def test_data_without_a_classifier_names_the_option_that_trains_one(error_of_evaluate, tmp_path):
    np.savez(tmp_path / "digits.npz", images=DIGITS)
    message = error_of_evaluate(tmp_path / "digits.npz", "--dataset", "uci-digits")
    assert "--fit-classifier: there is no pinned classifier for uci-digits" in message


def test_options_without_a_source_are_an_error(error_of_evaluate):
    assert "give at least one model file, run or .npz file" in error_of_evaluate("--n", 10)


def test_an_error_exits_with_1_and_without_a_traceback(tmp_path):
    command = subprocess.run([EVALUATE, tmp_path / "digits.npz"], capture_output=True, text=True)
    assert (command.returncode, command.stdout) == (1, "")
    assert command.stderr == f"evaluate: {tmp_path / 'digits.npz'}: no such file\n"
