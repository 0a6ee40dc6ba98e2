import pytest
import torch
from sklearn.datasets import load_digits

from tests.training.data.examples import DIGITS
from training import data
from training.data import DataError, Loaded, LoadOptions, load_dataset


def test_uci_digits_need_no_files(tmp_path):
    loaded = load_dataset("uci-digits", tmp_path)
    assert (loaded.images.shape, loaded.images.dtype) == ((1797, 1, 28, 28), torch.uint8)
    assert loaded.images.min() == 0
    assert loaded.images.max() == 255
    assert sum(loaded.info.class_counts) == 1797
    assert list(tmp_path.iterdir()) == []
    assert load_dataset("uci-digits", tmp_path, image_size=28, channels=1).info == loaded.info
    assert load_dataset("uci-digits", tmp_path, image_size=32, channels=3).info.image_shape == (3, 32, 32)
    assert load_dataset("uci-digits", tmp_path, image_size=(40, 9)).info.image_shape == (1, 9, 40)


@pytest.mark.parametrize(("size", "margin"), [(8, 0), (9, 0), (10, 1), (12, 2), (16, 2), (28, 4), (32, 5), (64, 9)])
def test_uci_digits_have_a_margin_unless_they_are_too_small_for_one(tmp_path, size, margin):
    images = load_dataset("uci-digits", tmp_path, image_size=size).images
    rows, columns = images.amax(0)[0].nonzero().T
    assert (rows.min(), rows.max()) == (columns.min(), columns.max()) == (margin, size - 1 - margin)


def test_uci_digits_of_8_pixels_are_the_originals(tmp_path):
    images = load_dataset("uci-digits", tmp_path, image_size=8).images
    assert torch.equal((images[:, 0] / 255 * 16).round(), torch.from_numpy(load_digits().images).float())


@pytest.fixture
def numbered_digits(monkeypatch) -> torch.Tensor:
    """Replaces MNIST by 200 images of one grey level each, 0 to 199. The first half is the test split.

    Returns the label of each image.
    """
    labels = torch.arange(200) * 7 % 10

    def load(options: LoadOptions) -> Loaded:
        chosen = torch.arange(100) if options.split == "test" else torch.arange(100, 200)
        return Loaded(chosen.to(torch.uint8).view(-1, 1, 1, 1).repeat(1, 1, 8, 8), labels[chosen], list(DIGITS))

    monkeypatch.setitem(data.LOADERS, "mnist", load)
    for split, n in (("train", 500), ("test", 300)):
        monkeypatch.setitem(data.STACKED_IMAGES, split, n)
    return labels


@pytest.mark.parametrize(("split", "n", "first"), [("train", 500, 100), ("test", 300, 0)])
def test_the_class_of_stacked_digits_is_the_number_they_form(numbered_digits, tmp_path, split, n, first):
    stacked = load_dataset("stacked-mnist", tmp_path, split=split)
    assert stacked.images.shape == (n, 3, 8, 8)
    levels = stacked.images[:, :, 0, 0].long()
    assert (stacked.images == levels[:, :, None, None]).all()
    assert first <= levels.min() <= levels.max() < first + 100
    assert torch.equal(stacked.labels, numbered_digits[levels] @ torch.tensor([100, 10, 1]))
    assert stacked.info.class_names == tuple(f"{number:03}" for number in range(1_000))
    assert len(set(map(tuple, levels.tolist()))) > 0.99 * n


def test_stacked_digits_are_the_same_every_time(numbered_digits, tmp_path):
    first, second = (load_dataset("stacked-mnist", tmp_path) for _ in range(2))
    assert first.info == second.info
    assert torch.equal(first.images, second.images)


def test_stacked_digits_have_three_channels(numbered_digits, tmp_path):
    assert load_dataset("stacked-mnist", tmp_path, channels=3).info.image_shape == (3, 8, 8)
    with pytest.raises(DataError, match="stacked-mnist has 3 channels, got --channels 1"):
        load_dataset("stacked-mnist", tmp_path, channels=1)
