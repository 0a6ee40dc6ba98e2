import numpy as np
import pytest

from tests.training.data.examples import write_idx, write_image
from training.data import LOADERS, DataError, DataUnavailableError, load_dataset


def test_the_hash_depends_on_images_and_labels(idx_set):
    before = load_dataset(idx_set.name, idx_set.data_dir).info.sha256
    assert load_dataset(idx_set.name, idx_set.data_dir).info.sha256 == before
    assert load_dataset(idx_set.name, idx_set.data_dir, image_size=32).info.sha256 != before
    write_idx(idx_set.labels, np.arange(12)[::-1] % 10)
    assert load_dataset(idx_set.name, idx_set.data_dir).info.sha256 != before


def test_different_numbers_of_images_and_labels_are_rejected(idx_set):
    write_idx(idx_set.labels, np.arange(11) % 10)
    with pytest.raises(DataError, match="12 images, but 11 labels"):
        load_dataset(idx_set.name, idx_set.data_dir)


def test_a_label_beyond_the_classes_is_rejected(idx_set):
    write_idx(idx_set.labels, np.arange(12))
    with pytest.raises(DataError, match="labels up to 11, but 10 classes"):
        load_dataset(idx_set.name, idx_set.data_dir)


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({"image_size": 7}, "7"),
        ({"image_size": -28}, "-28"),
        ({"image_size": 257}, "257"),
        ({"image_size": (32, 7)}, "32x7"),
        ({"channels": 2}, "2"),
        ({"channels": 0}, "0"),
    ],
)
def test_a_size_or_number_of_channels_out_of_range_is_rejected(tmp_path, name, value, shown):
    with pytest.raises(DataError, match=f"got {shown}$"):
        load_dataset(name, tmp_path, **value)


@pytest.mark.parametrize("name", ["uci-digits", "folder"])
def test_a_missing_test_split_is_rejected_with_the_data_sets_that_have_one(tmp_path, name):
    with pytest.raises(DataError, match=f"{name} has no test split; these data sets have one: mnist, "):
        load_dataset(name, tmp_path, split="test")


@pytest.mark.parametrize("dataset", ["folder", "mnist"])
def test_a_file_as_the_data_folder_is_unavailable(tmp_path, dataset):
    (tmp_path / "images.zip").touch()
    with pytest.raises(DataUnavailableError, match=r"images.zip: this is a file; give --data-dir a folder"):
        load_dataset(dataset, tmp_path / "images.zip")


def test_the_summary_abbreviates_many_classes(tmp_path):
    for index in range(100):
        write_image(tmp_path / f"{index:02}" / "0.png")
    (summary,) = load_dataset("folder", tmp_path).summary
    assert "100 classes: 00 (1), 01 (1)," in summary
    assert summary.endswith("09 (1), and so on, 1 to 1 images each")
