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


def damaged(path: Path) -> None:
    """One byte in the middle of the compressed images."""
    np.savez_compressed(path, images=DIGITS)
    file = bytearray(path.read_bytes())
    file[len(file) // 2] ^= 255
    path.write_bytes(file)


def cut(path: Path) -> None:
    np.savez(path, images=DIGITS)
    path.write_bytes(path.read_bytes()[:-100])


def lone(path: Path) -> None:
    with path.open("wb") as stream:
        np.save(stream, DIGITS)


def no_array(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", b"nothing that NumPy knows")


FILES = {
    "damaged": (damaged, "not an .npz that can be read"),
    "cut": (cut, "not an .npz that can be read"),
    "lone array": (lone, "not an .npz that can be read"),
    "no array": (no_array, "`images` are"),
    "empty": (Path.touch, "not an .npz that can be read"),
    "text": (lambda path: path.write_text("images"), "not an .npz that can be read"),
    "pickle": (lambda path: path.write_bytes(pickle.dumps(DIGITS)), "not an .npz that can be read"),
    "folder": (Path.mkdir, "not an .npz that can be read"),
    "missing": (lambda path: None, "no such file"),
}
ARRAYS = {
    "no images": ({"pictures": DIGITS, "labels": DIGITS}, "no array `images`, but pictures, labels"),
    "no array": ({}, "no array `images`, but none"),
    "objects": ({"images": np.array([DIGITS, None], object)}, "not an .npz that can be read"),
    "floats": ({"images": DIGITS / 255}, "`images` are float64, give uint8"),
    "a number": ({"images": np.uint8(7)}, r"shape \(\), give \(n, height, width\)"),
    "flat": ({"images": DIGITS.reshape(50, -1)}, r"shape \(50, 784\), give \(n, height, width\)"),
    "none": ({"images": DIGITS[:0]}, "`images` are none"),
    "other size": ({"images": DIGITS[:, :14]}, r"shape \(1, 14, 28\), those of uci-digits \(1, 28, 28\)"),
    "colours": ({"images": np.stack([DIGITS] * 3, 3)}, r"shape \(3, 28, 28\), those of uci-digits \(1, 28, 28\)"),
    "too few labels": ({"images": DIGITS, "labels": np.arange(49) % 10}, r"shape \(49,\), give 50 whole numbers"),
    "too many labels": ({"images": DIGITS, "labels": np.arange(51) % 10}, r"shape \(51,\), give 50 whole numbers"),
    "one label": ({"images": DIGITS, "labels": np.int64(3)}, r"shape \(\), give 50 whole numbers"),
    "fractions": ({"images": DIGITS, "labels": np.ones(50)}, "float64 .* give 50 whole numbers"),
    "above": ({"images": DIGITS, "labels": np.arange(50) % 11}, "labels must be from 0 to 9"),
    "below": ({"images": DIGITS, "labels": np.arange(50) % 10 - 1}, "labels must be from 0 to 9"),
}


@pytest.mark.parametrize(("write", "problem"), FILES.values(), ids=FILES)
def test_a_file_that_is_no_npz_is_named(refusal, tmp_path, write, problem):
    write(tmp_path / "digits.npz")
    message = refusal(tmp_path / "digits.npz", "--dataset", "uci-digits")
    assert f"{tmp_path / 'digits.npz'}: " in message
    assert problem in message


@pytest.mark.parametrize(("arrays", "problem"), ARRAYS.values(), ids=ARRAYS)
def test_arrays_that_are_no_images_are_told(refusal, tmp_path, arrays, problem):
    np.savez(tmp_path / "digits.npz", **arrays)
    assert re.search(f"digits.npz: .*{problem}", refusal(tmp_path / "digits.npz", "--dataset", "uci-digits"))


@pytest.mark.parametrize("labels", [30, 49, 51])
def test_labels_of_another_number_are_told_even_where_fewer_are_asked_for(refusal, tmp_path, labels):
    np.savez(tmp_path / "digits.npz", images=DIGITS, labels=np.arange(labels) % 10)
    assert "give 50 whole numbers" in refusal(tmp_path / "digits.npz", "--dataset", "uci-digits", "--n", 10)


@pytest.mark.parametrize("name", ["model.onnx", "checkpoint.safetensors", "run"])
def test_a_source_that_is_not_there_is_named(refusal, tmp_path, name):
    assert f"{tmp_path / name}: No such file" in refusal(tmp_path / name)


@pytest.mark.parametrize("name", ["model.onnx", "checkpoint.safetensors"])
def test_a_file_that_is_no_model_is_named(refusal, tmp_path, name):
    (tmp_path / name).write_text("no model")
    assert f"{tmp_path / name}: " in refusal(tmp_path / name)


def test_a_folder_without_a_checkpoint_is_named(refusal, tmp_path):
    assert f"{tmp_path}: contains no checkpoint" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("option", "value", "problem"),
    [
        ("--metrics", "fidd", "--metrics: there is no 'fidd'; there are fid, kid"),
        ("--n", 0, "--n: must be at least 1, got 0"),
        ("--dataset", "cifar", "--dataset: there is no 'cifar'; there are mnist"),
    ],
)
def test_an_option_that_cannot_be_answered_is_named(refusal, tmp_path, option, value, problem):
    assert problem in refusal(tmp_path / "never-opened.npz", option, value)


def test_data_without_a_classifier_names_the_option_that_trains_one(refusal, tmp_path):
    np.savez(tmp_path / "digits.npz", images=DIGITS)
    assert "no pinned classifier of uci-digits" in refusal(tmp_path / "digits.npz", "--dataset", "uci-digits")


def test_a_refusal_exits_with_1_and_without_a_traceback(tmp_path):
    command = subprocess.run([EVALUATE, tmp_path / "digits.npz"], capture_output=True, text=True)
    assert (command.returncode, command.stdout) == (1, "")
    assert command.stderr == f"evaluate: {tmp_path / 'digits.npz'}: no such file\n"
