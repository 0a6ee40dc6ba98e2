import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets import MNIST

from training import data
from training.data import DataError, DataUnavailableError

TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def write_idx(file: Path, array: np.ndarray) -> None:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    file.write_bytes(header + array.astype(np.uint8).tobytes())


@pytest.fixture
def tiny_mnist(tmp_path) -> Path:
    """Twelve images in the format of the real ones."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split in ("train", "t10k"):
        write_idx(raw / f"{split}-images-idx3-ubyte", rng.integers(0, 256, (12, 28, 28)))
        write_idx(raw / f"{split}-labels-idx1-ubyte", np.arange(12) % 10)
    return tmp_path


def test_mnist_is_one_uint8_tensor(tiny_mnist):
    loaded = data.load("mnist", tiny_mnist)
    assert (loaded.images.shape, loaded.images.dtype) == ((12, 1, 28, 28), torch.uint8)
    assert loaded.labels.tolist() == [*range(10), 0, 1]
    assert loaded.info.class_names == tuple("0123456789")
    assert loaded.info.class_counts == (2, 2, 1, 1, 1, 1, 1, 1, 1, 1)


def test_the_hash_is_of_the_content(tiny_mnist):
    before = data.load("mnist", tiny_mnist).info.sha256
    assert data.load("mnist", tiny_mnist).info.sha256 == before
    write_idx(tiny_mnist / "MNIST" / "raw" / TRAIN_LABELS, np.arange(12)[::-1] % 10)
    assert data.load("mnist", tiny_mnist).info.sha256 != before


@pytest.mark.parametrize("size", [0, 3, 10, 16, 1_000, -1])
def test_a_truncated_file_is_named(tiny_mnist, size):
    file = tiny_mnist / "MNIST" / "raw" / TRAIN_IMAGES
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(DataError, match=TRAIN_IMAGES):
        data.load("mnist", tiny_mnist)


def test_a_file_with_something_behind_it_is_named(tiny_mnist):
    file = tiny_mnist / "MNIST" / "raw" / TRAIN_IMAGES
    file.write_bytes(file.read_bytes() + b"!")
    with pytest.raises(DataError, match=f"{TRAIN_IMAGES}: 9,425 bytes long, its header says 9,424"):
        data.load("mnist", tiny_mnist)


@pytest.mark.parametrize("content", [b"<html>not found</html>", b"\x1f\x8b\x08\x00" * 10])
def test_a_wrong_file_is_named(tiny_mnist, content):
    (tiny_mnist / "MNIST" / "raw" / TRAIN_LABELS).write_bytes(content)
    with pytest.raises(DataError, match=f"{TRAIN_LABELS}: not an IDX file"):
        data.load("mnist", tiny_mnist)


def test_images_and_labels_that_do_not_belong_together_are_told(tiny_mnist):
    write_idx(tiny_mnist / "MNIST" / "raw" / TRAIN_LABELS, np.arange(11) % 10)
    with pytest.raises(DataError, match="12 images, but 11 labels"):
        data.load("mnist", tiny_mnist)


def test_a_label_beyond_the_classes_is_told(tiny_mnist):
    write_idx(tiny_mnist / "MNIST" / "raw" / TRAIN_LABELS, np.arange(12))
    with pytest.raises(DataError, match="labels up to 11, but 10 classes"):
        data.load("mnist", tiny_mnist)


def test_what_cannot_be_downloaded_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])  # the discard port: nobody listens
    with pytest.raises(DataUnavailableError, match="uci-digits, which needs no download"):
        data.load("mnist", tmp_path)


def test_uci_digits_need_no_file(tmp_path):
    loaded = data.load("uci-digits", tmp_path)
    assert (loaded.images.shape, loaded.images.dtype) == ((1797, 1, 28, 28), torch.uint8)
    assert loaded.images.min() == 0
    assert loaded.images.max() == 255
    assert sum(loaded.info.class_counts) == 1797
    assert list(tmp_path.iterdir()) == []


def test_the_real_mnist_has_60_000_digits(mnist):
    loaded = data.load("mnist", mnist)
    assert len(loaded) == 60_000
    assert loaded.info.class_counts == (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)
