import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from tests.training.data.examples import CLASS_NAMES, SEVEN, TORCHVISION_CLASSES, write_idx
from training.data import DataError, DataUnavailableError, load_dataset


def test_images_and_labels_are_loaded_with_class_names_and_counts(idx_set):
    loaded = load_dataset(idx_set.name, idx_set.data_dir)
    assert (loaded.images.shape, loaded.images.dtype) == ((12, 1, 28, 28), torch.uint8)
    assert loaded.summary[0].startswith(f"{idx_set.name}: 12 images of 28 x 28 pixels, grey; 10 classes: ")
    assert (loaded.labels.tolist(), loaded.labels.dtype) == ([*range(10), 0, 1], torch.int64)
    assert loaded.info.name == idx_set.name
    assert loaded.info.image_shape == (1, 28, 28)
    assert loaded.info.class_names == CLASS_NAMES[idx_set.name]
    assert loaded.info.class_counts == (2, 2, 1, 1, 1, 1, 1, 1, 1, 1)


def test_images_are_loaded_upright(idx_set):
    assert np.array_equal(load_dataset(idx_set.name, idx_set.data_dir).images[7, 0], SEVEN)


def test_the_test_split_is_read_from_its_own_files(idx_set):
    for file in (idx_set.images, idx_set.labels):
        write_idx(file, np.zeros((5, 28, 28)) if file is idx_set.images else np.zeros(5))
    assert (
        len(load_dataset(idx_set.name, idx_set.data_dir)),
        len(load_dataset(idx_set.name, idx_set.data_dir, split="test")),
    ) == (5, 12)


@pytest.mark.parametrize("size", [0, 3, 10, 16, 1_000, -1])
def test_a_truncated_file_is_rejected_with_its_name(idx_set, size):
    idx_set.images.write_bytes(idx_set.images.read_bytes()[:size])
    with pytest.raises(DataError, match=idx_set.images.name):
        load_dataset(idx_set.name, idx_set.data_dir)


def test_a_file_with_extra_bytes_is_rejected_with_its_name(idx_set):
    idx_set.images.write_bytes(idx_set.images.read_bytes() + b"!")
    with pytest.raises(DataError, match=f"{idx_set.images.name}: has 9,425 bytes, but 9,424 according to its header"):
        load_dataset(idx_set.name, idx_set.data_dir)


@pytest.mark.parametrize("content", [b"<html>not found</html>", b"\x1f\x8b\x08\x00" * 10, b"\0\0\x08\x01\0\0\0\0"])
def test_a_file_of_another_format_is_rejected_with_its_name(idx_set, content):
    idx_set.labels.write_bytes(content)
    with pytest.raises(DataError, match=f"{idx_set.labels.name}: not an IDX file"):
        load_dataset(idx_set.name, idx_set.data_dir)


def compress(file: Path) -> None:
    """Compresses a file with another level and header than the original, whose MD5 torchvision checks."""
    with gzip.GzipFile(f"{file}.gz", "wb", compresslevel=1, mtime=1) as stream:
        stream.write(file.read_bytes())
    file.unlink()


def compress_without_suffix(file: Path) -> None:
    """Stores a compressed file without .gz, as some browsers do."""
    compress(file)
    Path(f"{file}.gz").rename(file)


def add_suffix_only(file: Path) -> None:
    """Stores an uncompressed file with .gz, as other browsers do."""
    file.rename(f"{file}.gz")


def rename_with_dot(file: Path) -> None:
    """Renames a file as the original archives name it, with ".idx3"."""
    file.rename(file.with_name(file.name.replace("-idx", ".idx")))


def compress_next_to_raw(file: Path) -> None:
    """Moves a compressed file from raw/ to the folder above."""
    compress(file)
    Path(f"{file}.gz").rename(file.parent.parent / f"{file.name}.gz")


@pytest.mark.parametrize(
    "change", [compress, compress_without_suffix, add_suffix_only, rename_with_dot, compress_next_to_raw]
)
def test_files_in_any_form_are_read_from_a_read_only_folder(idx_set, change):
    expected = load_dataset(idx_set.name, idx_set.data_dir).info
    for file in idx_set.images.parent.iterdir():
        change(file)
    before = sorted(idx_set.data_dir.rglob("*"))
    for folder in (idx_set.data_dir, *idx_set.data_dir.rglob("*/")):
        folder.chmod(0o555)
    try:
        assert load_dataset(idx_set.name, idx_set.data_dir).info == expected
        assert len(load_dataset(idx_set.name, idx_set.data_dir, split="test")) == 12
        assert sorted(idx_set.data_dir.rglob("*")) == before
    finally:
        for folder in (idx_set.data_dir, *idx_set.data_dir.rglob("*/")):
            folder.chmod(0o755)


def test_files_directly_in_the_data_folder_are_rejected_with_the_folder_they_belong_in(idx_set):
    for file in idx_set.images.parent.iterdir():
        compress(file)
        Path(f"{file}.gz").rename(idx_set.data_dir / f"{file.name}.gz")
    with pytest.raises(DataError, match=rf"contains IDX files directly.*move or link them to {idx_set.images.parent}"):
        load_dataset(idx_set.name, idx_set.data_dir)


@pytest.mark.parametrize("damage", [lambda file: file[:-20], lambda file: file[:40] + b"!" * 40 + file[80:]])
def test_a_damaged_gzip_file_is_rejected_with_its_name(idx_set, damage):
    compress(idx_set.images)
    file = Path(f"{idx_set.images}.gz")
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DataError, match=rf"{file}: not an IDX file, its gzip data is damaged"):
        load_dataset(idx_set.name, idx_set.data_dir)


@pytest.mark.parametrize("idx_set", ["emnist-digits"], indirect=True)
def test_files_of_other_subsets_of_emnist_are_ignored(idx_set):
    (idx_set.images.parent / "emnist-letters-train-images-idx3-ubyte").write_bytes(b"damaged")
    assert len(load_dataset(idx_set.name, idx_set.data_dir)) == 12


@pytest.mark.parametrize("name", CLASS_NAMES)
def test_a_failed_download_suggests_what_to_do_in_one_line_and_leaves_no_files(tmp_path, monkeypatch, name):
    torchvision_class = getattr(torchvision.datasets, TORCHVISION_CLASSES[name])
    unreachable = "http://127.0.0.1:9/"  # no server listens on the discard port
    monkeypatch.setattr(torchvision_class, "mirrors", [unreachable])
    monkeypatch.setattr(torchvision_class, "url", unreachable, raising=False)
    with pytest.raises(DataUnavailableError, match=r"^.*train-images-idx3-ubyte.*which needs no download$") as error:
        load_dataset(name, tmp_path)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_download_adds_only_the_missing_files(tmp_path, monkeypatch):
    class Download:
        def __init__(self, root: str, train: bool, download: bool):
            raw = Path(root) / "MNIST" / "raw"
            raw.mkdir(parents=True)
            for split in ("train", "t10k"):
                write_idx(raw / f"{split}-images-idx3-ubyte", np.zeros((12, 28, 28)))
                write_idx(raw / f"{split}-labels-idx1-ubyte", np.arange(12) % 10)
                (raw / f"{split}-labels-idx1-ubyte.gz").touch()

    monkeypatch.setattr(torchvision.datasets, "MNIST", Download)
    folder = tmp_path / "new" / "data"
    assert load_dataset("mnist", folder).images.max() == 0
    raw = folder / "MNIST" / "raw"
    assert len(list(raw.iterdir())) == 4
    (raw / "train-labels-idx1-ubyte").unlink()
    write_idx(raw / "train-images-idx3-ubyte", np.ones((12, 28, 28)))
    assert load_dataset("mnist", folder).images.max() == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["new"]
    assert [entry.name for entry in folder.iterdir()] == ["MNIST"]


def test_a_folder_of_images_is_rejected_with_the_option_to_use(pets):
    with pytest.raises(DataError, match=r"contains images \(cats/0.png\) instead of MNIST: add --dataset folder"):
        load_dataset("mnist", pets)


def test_the_real_mnist_has_60_000_digits(mnist):
    loaded = load_dataset("mnist", mnist)
    assert len(loaded) == 60_000
    assert loaded.info.class_counts == (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)


def test_the_splits_of_the_real_mnist_have_no_image_in_common(mnist):
    train, test = (load_dataset("mnist", mnist, split=split) for split in ("train", "test"))
    assert len(test) == 10_000
    assert test.info.class_names == train.info.class_names
    seen = {image.tobytes() for image in train.images.numpy()}
    assert not any(image.tobytes() in seen for image in test.images.numpy())
