import gzip
import io
import struct
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from training import data
from training.data import DataError, DataUnavailableError, Loaded, LoadOptions

DIGITS = tuple("0123456789")
CLASS_NAMES = {
    "mnist": DIGITS,
    "fashion-mnist": (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    "kmnist": ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    "emnist-digits": DIGITS,
}
TORCHVISION_CLASSES = {
    "mnist": "MNIST",
    "fashion-mnist": "FashionMNIST",
    "kmnist": "KMNIST",
    "emnist-digits": "EMNIST",
}
SEVEN = np.zeros((28, 28), np.uint8)
SEVEN[2:6, 4:24] = SEVEN[6:26, 16:20] = 255
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


class Tiny(NamedTuple):
    """Twelve images in the format of the real ones."""

    name: str
    data_dir: Path
    images: Path
    labels: Path


def write_idx(file: Path, array: np.ndarray) -> None:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    file.write_bytes(header + array.astype(np.uint8).tobytes())


@pytest.fixture(params=CLASS_NAMES)
def tiny(request, tmp_path) -> Tiny:
    raw = tmp_path / TORCHVISION_CLASSES[request.param] / "raw"
    raw.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (12, 28, 28))
    images[7] = SEVEN
    prefix, splits = "", ("train", "t10k")
    if request.param == "emnist-digits":
        images = images.transpose(0, 2, 1)
        prefix, splits = "emnist-digits-", ("train", "test")
    files = [
        (raw / f"{prefix}{split}-images-idx3-ubyte", raw / f"{prefix}{split}-labels-idx1-ubyte") for split in splits
    ]
    for images_file, labels_file in files:
        write_idx(images_file, images)
        write_idx(labels_file, np.arange(12) % 10)
    return Tiny(request.param, tmp_path, *files[0])


def write_images(folder: Path, **classes: list[Image.Image]) -> Path:
    for name, images in classes.items():
        (folder / name).mkdir(parents=True)
        for index, image in enumerate(images):
            image.save(folder / name / f"{index}.png")
    return folder


def test_an_idx_set_is_one_uint8_tensor(tiny):
    loaded = data.load_dataset(tiny.name, tiny.data_dir)
    assert (loaded.images.shape, loaded.images.dtype) == ((12, 1, 28, 28), torch.uint8)
    assert loaded.summary[0].startswith(f"{tiny.name}: 12 images of 28 x 28 pixels, grey; 10 classes: ")
    assert (loaded.labels.tolist(), loaded.labels.dtype) == ([*range(10), 0, 1], torch.int64)
    assert loaded.info.name == tiny.name
    assert loaded.info.image_shape == (1, 28, 28)
    assert loaded.info.class_names == CLASS_NAMES[tiny.name]
    assert loaded.info.class_counts == (2, 2, 1, 1, 1, 1, 1, 1, 1, 1)


def test_images_stand_upright(tiny):
    assert np.array_equal(data.load_dataset(tiny.name, tiny.data_dir).images[7, 0], SEVEN)


def test_the_hash_is_of_the_content(tiny):
    before = data.load_dataset(tiny.name, tiny.data_dir).info.sha256
    assert data.load_dataset(tiny.name, tiny.data_dir).info.sha256 == before
    assert data.load_dataset(tiny.name, tiny.data_dir, image_size=32).info.sha256 != before
    write_idx(tiny.labels, np.arange(12)[::-1] % 10)
    assert data.load_dataset(tiny.name, tiny.data_dir).info.sha256 != before


@pytest.mark.parametrize("size", [0, 3, 10, 16, 1_000, -1])
def test_a_truncated_file_is_named(tiny, size):
    tiny.images.write_bytes(tiny.images.read_bytes()[:size])
    with pytest.raises(DataError, match=tiny.images.name):
        data.load_dataset(tiny.name, tiny.data_dir)


def test_a_file_with_something_behind_it_is_named(tiny):
    tiny.images.write_bytes(tiny.images.read_bytes() + b"!")
    with pytest.raises(DataError, match=f"{tiny.images.name}: 9,425 bytes long, its header says 9,424"):
        data.load_dataset(tiny.name, tiny.data_dir)


@pytest.mark.parametrize("content", [b"<html>not found</html>", b"\x1f\x8b\x08\x00" * 10, b"\0\0\x08\x01\0\0\0\0"])
def test_a_wrong_file_is_named(tiny, content):
    tiny.labels.write_bytes(content)
    with pytest.raises(DataError, match=f"{tiny.labels.name}: not an IDX file"):
        data.load_dataset(tiny.name, tiny.data_dir)


def test_images_and_labels_that_do_not_belong_together_are_told(tiny):
    write_idx(tiny.labels, np.arange(11) % 10)
    with pytest.raises(DataError, match="12 images, but 11 labels"):
        data.load_dataset(tiny.name, tiny.data_dir)


def test_a_label_beyond_the_classes_is_told(tiny):
    write_idx(tiny.labels, np.arange(12))
    with pytest.raises(DataError, match="labels up to 11, but 10 classes"):
        data.load_dataset(tiny.name, tiny.data_dir)


@pytest.mark.parametrize("name", CLASS_NAMES)
def test_what_cannot_be_downloaded_says_what_to_do(tmp_path, monkeypatch, name):
    torchvision_class = getattr(torchvision.datasets, TORCHVISION_CLASSES[name])
    nobody = "http://127.0.0.1:9/"  # the discard port: nobody listens
    monkeypatch.setattr(torchvision_class, "mirrors", [nobody])
    monkeypatch.setattr(torchvision_class, "url", nobody, raising=False)
    with pytest.raises(DataUnavailableError, match=r"train-images-idx3-ubyte.*uci-digits, which needs no download"):
        data.load_dataset(name, tmp_path)

    assert list(tmp_path.iterdir()) == []


def compress(file: Path) -> None:
    """As another program would, with its own level and header: torchvision compares the MD5 of its download."""
    with gzip.GzipFile(f"{file}.gz", "wb", compresslevel=1, mtime=1) as stream:
        stream.write(file.read_bytes())
    file.unlink()


def swap_suffixes(file: Path) -> None:
    """Compressed without .gz, as some browsers store it."""
    compress(file)
    Path(f"{file}.gz").rename(file)


def pretend(file: Path) -> None:
    """Plain with .gz, as other browsers store it."""
    file.rename(f"{file}.gz")


def dot(file: Path) -> None:
    file.rename(file.with_name(file.name.replace("-idx", ".idx")))


def lift(file: Path) -> None:
    compress(file)
    Path(f"{file}.gz").rename(file.parent.parent / f"{file.name}.gz")


@pytest.mark.parametrize("form", [compress, swap_suffixes, pretend, dot, lift])
def test_idx_files_are_read_where_they_lie_in_every_form(tiny, form):
    expected = data.load_dataset(tiny.name, tiny.data_dir).info
    for file in tiny.images.parent.iterdir():
        form(file)
    before = sorted(tiny.data_dir.rglob("*"))
    for folder in (tiny.data_dir, *tiny.data_dir.rglob("*/")):
        folder.chmod(0o555)
    try:
        assert data.load_dataset(tiny.name, tiny.data_dir).info == expected
        assert len(data.load_dataset(tiny.name, tiny.data_dir, split="test")) == 12
        assert sorted(tiny.data_dir.rglob("*")) == before
    finally:
        for folder in (tiny.data_dir, *tiny.data_dir.rglob("*/")):
            folder.chmod(0o755)


def test_idx_files_of_no_named_data_set_are_not_guessed(tiny):
    for file in tiny.images.parent.iterdir():
        compress(file)
        Path(f"{file}.gz").rename(tiny.data_dir / f"{file.name}.gz")
    with pytest.raises(DataError, match=rf"itself holds IDX files.*move or link them to {tiny.images.parent}"):
        data.load_dataset(tiny.name, tiny.data_dir)


@pytest.mark.parametrize("damage", [lambda file: file[:-20], lambda file: file[:40] + b"!" * 40 + file[80:]])
def test_a_damaged_compressed_file_is_named(tiny, damage):
    compress(tiny.images)
    file = Path(f"{tiny.images}.gz")
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DataError, match=rf"{file}: not an IDX file: its gzip data are damaged"):
        data.load_dataset(tiny.name, tiny.data_dir)


def test_a_download_adds_what_is_missing_and_leaves_nothing_else(tmp_path, monkeypatch):
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
    assert data.load_dataset("mnist", folder).images.max() == 0
    raw = folder / "MNIST" / "raw"
    assert len(list(raw.iterdir())) == 4
    (raw / "train-labels-idx1-ubyte").unlink()
    write_idx(raw / "train-images-idx3-ubyte", np.ones((12, 28, 28)))
    assert data.load_dataset("mnist", folder).images.max() == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["new"]
    assert [entry.name for entry in folder.iterdir()] == ["MNIST"]


@pytest.mark.parametrize("tiny", ["emnist-digits"], indirect=True)
def test_other_splits_of_emnist_do_not_matter(tiny):
    (tiny.images.parent / "emnist-letters-train-images-idx3-ubyte").write_bytes(b"damaged")
    assert len(data.load_dataset(tiny.name, tiny.data_dir)) == 12


@pytest.mark.parametrize("size", [8, 32, 64])
def test_idx_sets_are_resampled_as_pillow_does_it(tiny, size):
    resampled = data.load_dataset(tiny.name, tiny.data_dir, image_size=size).images[7, 0]
    pillow = np.asarray(Image.fromarray(SEVEN).resize((size, size), Image.Resampling.BICUBIC))
    assert np.abs(resampled.numpy().astype(int) - pillow).max() <= 2


def test_three_channels_of_a_grey_set_are_the_same(tiny):
    grey, coloured = (data.load_dataset(tiny.name, tiny.data_dir, channels=channels) for channels in (1, 3))
    assert coloured.info.image_shape == (3, 28, 28)
    assert torch.equal(coloured.images, grey.images.repeat(1, 3, 1, 1))


def test_uci_digits_need_no_file(tmp_path):
    loaded = data.load_dataset("uci-digits", tmp_path)
    assert (loaded.images.shape, loaded.images.dtype) == ((1797, 1, 28, 28), torch.uint8)
    assert loaded.images.min() == 0
    assert loaded.images.max() == 255
    assert sum(loaded.info.class_counts) == 1797
    assert list(tmp_path.iterdir()) == []
    assert data.load_dataset("uci-digits", tmp_path, image_size=28, channels=1).info == loaded.info
    assert data.load_dataset("uci-digits", tmp_path, image_size=32, channels=3).info.image_shape == (3, 32, 32)


@pytest.mark.parametrize("name", data.LOADERS)
@pytest.mark.parametrize("value", [{"image_size": 7}, {"image_size": -28}, {"channels": 2}, {"channels": 0}])
def test_a_size_or_channels_out_of_range_are_told(tmp_path, name, value):
    with pytest.raises(DataError, match=f"got {next(iter(value.values()))}"):
        data.load_dataset(name, tmp_path, **value)


def test_a_folder_has_a_class_for_each_subfolder(tmp_path):
    black, white = Image.new("L", (28, 28), 0), Image.new("L", (28, 28), 255)
    loaded = data.load_dataset("folder", write_images(tmp_path / "secret", dogs=[white], cats=[black, black]))
    assert (loaded.images.shape, loaded.images.dtype) == ((3, 1, 28, 28), torch.uint8)
    assert (loaded.labels.tolist(), loaded.labels.dtype) == ([0, 0, 1], torch.int64)
    assert loaded.images[:, 0, 0, 0].tolist() == [0, 0, 255]
    assert loaded.info.class_names == ("cats", "dogs")
    assert loaded.info.class_counts == (2, 1)
    assert loaded.info.name == "folder"
    assert "secret" not in str(asdict(loaded.info))


def test_the_classes_of_a_folder_are_sorted(tmp_path):
    folder = write_images(tmp_path, **{name: [Image.fromarray(SEVEN)] for name in "hcAgbfZeda10"})
    assert data.load_dataset("folder", folder).info.class_names == tuple("01AZabcdefgh")


def test_the_hash_of_a_folder_is_the_same_wherever_it_lies(tmp_path):
    here, there = (write_images(tmp_path / name, seven=[Image.fromarray(SEVEN)]) for name in ("here", "there"))
    assert data.load_dataset("folder", here).info == data.load_dataset("folder", there).info


def test_images_of_a_folder_keep_their_pixels_where_the_size_fits(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28, 3), np.uint8)
    loaded = data.load_dataset("folder", write_images(tmp_path, noise=[Image.fromarray(pixels)]))
    assert np.array_equal(loaded.images[0].permute(1, 2, 0), pixels)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_a_folder_without_colours_is_grey_in_any_mode(tmp_path, mode):
    folder = write_images(tmp_path, sevens=[Image.fromarray(SEVEN).convert(mode)])
    loaded = data.load_dataset("folder", folder)
    assert loaded.info.image_shape == (1, 28, 28)
    assert np.array_equal(loaded.images[0, 0], SEVEN)
    assert data.load_dataset("folder", folder, channels=3).info.image_shape == (3, 28, 28)


@pytest.mark.parametrize("mode", ["P", "RGB", "RGBA"])
def test_one_image_with_colours_makes_a_folder_coloured(tmp_path, mode):
    red = Image.new("RGB", (28, 28), RED).convert(mode)
    folder = write_images(tmp_path, things=[Image.fromarray(SEVEN), red])
    loaded = data.load_dataset("folder", folder)
    assert loaded.info.image_shape == (3, 28, 28)
    assert torch.equal(loaded.images[0], torch.from_numpy(SEVEN).expand(3, -1, -1))
    assert loaded.images[1, :, 0, 0].tolist() == list(RED)
    grey = data.load_dataset("folder", folder, channels=1)
    assert grey.info.image_shape == (1, 28, 28)
    assert grey.images[1].unique().tolist() == [76]  # the luma of red, ITU-R 601


def test_what_is_transparent_shows_white(tmp_path):
    palette = Image.new("P", (28, 28), 0)
    palette.info["transparency"] = 0
    images = [Image.new("RGBA", (28, 28), (0, 0, 0, 0)), Image.new("LA", (28, 28), (0, 0)), palette]
    loaded = data.load_dataset("folder", write_images(tmp_path, ghosts=images))
    assert loaded.images.unique().tolist() == [255]


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("size", [8, 28, 40])
def test_the_middle_square_of_an_oblong_image_is_kept(tmp_path, turned, size):
    image = Image.new("RGB", (90, 30), RED)
    image.paste(GREEN, (30, 0, 60, 30))
    image.paste(BLUE, (60, 0, 90, 30))
    loaded = data.load_dataset("folder", write_images(tmp_path, flags=[image.rotate(90 * turned, expand=True)]), size)
    assert loaded.images.shape == (1, 3, size, size)
    difference = loaded.images[0].float() - torch.tensor(GREEN).view(3, 1, 1)
    assert difference.abs().max() < 32  # not 0: at the edges the filter looks a little beyond the square


def test_large_images_are_averaged_not_picked(tmp_path):
    checkerboard = np.indices((280, 280)).sum(axis=0) % 2 * np.uint8(255)
    loaded = data.load_dataset(
        "folder", write_images(tmp_path, boards=[Image.fromarray(checkerboard.astype(np.uint8))]), 28
    )
    assert loaded.images[..., 2:-2, 2:-2].float().sub(127.5).abs().max() < 3


def test_a_photograph_is_turned_as_its_camera_says(tmp_path):
    turned = Image.fromarray(SEVEN).rotate(90)
    exif = turned.getexif()
    exif[274] = 6  # orientation: to be shown turned clockwise by 90 degrees
    (tmp_path / "sevens").mkdir()
    turned.save(tmp_path / "sevens" / "photograph.png", exif=exif)
    assert np.array_equal(data.load_dataset("folder", tmp_path).images[0, 0], SEVEN)


def test_a_folder_is_searched_in_depth_but_not_what_is_hidden(tmp_path):
    image = Image.fromarray(SEVEN)
    folder = write_images(tmp_path / ".home", sevens=[image])
    write_images(folder / "sevens", deeper=[image], **{".checkpoints": [image]})
    write_images(folder, **{".git": [image]})
    (folder / "sevens" / ".DS_Store").write_bytes(b"no image")
    (folder / "README.md").write_text("beside the classes")
    loaded = data.load_dataset("folder", folder)
    assert (len(loaded), loaded.info.class_names) == (2, ("sevens",))


def png(image: Image.Image) -> bytes:
    image.save(stream := io.BytesIO(), "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no image",
        png(Image.fromarray(SEVEN))[:-40],
        png(Image.fromarray(SEVEN)).replace(b"IDAT", b"IDAX"),
        png(Image.fromarray(SEVEN.astype(np.uint16) * 257)),
    ],
    ids=["empty", "text", "truncated", "damaged", "16 bits"],
)
def test_a_file_that_is_no_image_is_named(tmp_path, content):
    file = write_images(tmp_path, sevens=[Image.fromarray(SEVEN)]) / "sevens" / "broken.png"
    file.write_bytes(content)
    with pytest.raises(DataError, match=f"{tmp_path}: 1 file cannot be read as images: sevens/{file.name} "):
        data.load_dataset("folder", tmp_path)


def test_an_empty_class_is_named(tmp_path):
    write_images(tmp_path, dogs=[Image.fromarray(SEVEN)], cats=[])
    with pytest.raises(DataError, match=f"{tmp_path / 'cats'}: no images"):
        data.load_dataset("folder", tmp_path)


def test_a_folder_without_subfolders_is_named(tmp_path):
    Image.fromarray(SEVEN).save(tmp_path / "seven.png")
    with pytest.raises(DataError, match=f"{tmp_path}: no subfolders"):
        data.load_dataset("folder", tmp_path)


@pytest.mark.parametrize("dataset", ["folder", "mnist"])
def test_a_file_instead_of_a_folder_is_reported_as_a_file(tmp_path, dataset):
    (tmp_path / "images.zip").touch()
    with pytest.raises(DataUnavailableError, match=r"images.zip: this is a file; give --data-dir a folder"):
        data.load_dataset(dataset, tmp_path / "images.zip")


def test_a_folder_that_does_not_exist_is_unavailable(tmp_path):
    with pytest.raises(DataUnavailableError, match=f"{tmp_path / 'missing'}: no such folder; check --data-dir"):
        data.load_dataset("folder", tmp_path / "missing")


def test_the_real_mnist_has_60_000_digits(mnist):
    loaded = data.load_dataset("mnist", mnist)
    assert len(loaded) == 60_000
    assert loaded.info.class_counts == (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)


def test_the_test_split_of_the_real_mnist_is_none_of_the_training_images(mnist):
    train, test = (data.load_dataset("mnist", mnist, split=split) for split in ("train", "test"))
    assert len(test) == 10_000
    assert test.info.class_names == train.info.class_names
    seen = {image.tobytes() for image in train.images.numpy()}
    assert not any(image.tobytes() in seen for image in test.images.numpy())


def test_a_test_split_comes_from_files_of_its_own(tiny):
    for file in (tiny.images, tiny.labels):
        write_idx(file, np.zeros((5, 28, 28)) if file is tiny.images else np.zeros(5))
    assert (
        len(data.load_dataset(tiny.name, tiny.data_dir)),
        len(data.load_dataset(tiny.name, tiny.data_dir, split="test")),
    ) == (5, 12)


@pytest.mark.parametrize("name", ["uci-digits", "folder"])
def test_a_set_without_a_test_split_says_so(tmp_path, name):
    with pytest.raises(DataError, match=f"{name} has no test split"):
        data.load_dataset(name, tmp_path, split="test")


@pytest.fixture
def numbered_digits(monkeypatch) -> torch.Tensor:
    """In the place of MNIST: 200 images, each of one grey level, and their labels; the first half is for testing."""
    labels = torch.arange(200) * 7 % 10

    def load(request: LoadOptions) -> Loaded:
        chosen = torch.arange(100) if request.split == "test" else torch.arange(100, 200)
        return Loaded(chosen.to(torch.uint8).view(-1, 1, 1, 1).repeat(1, 1, 8, 8), labels[chosen], list(DIGITS))

    monkeypatch.setitem(data.LOADERS, "mnist", load)
    for split, n in (("train", 500), ("test", 300)):
        monkeypatch.setitem(data.STACKED_IMAGES, split, n)
    return labels


@pytest.mark.parametrize(("split", "n", "first"), [("train", 500, 100), ("test", 300, 0)])
def test_stacked_digits_are_the_channels_of_one_class(numbered_digits, tmp_path, split, n, first):
    stacked = data.load_dataset("stacked-mnist", tmp_path, split=split)
    assert stacked.images.shape == (n, 3, 8, 8)
    levels = stacked.images[:, :, 0, 0].long()
    assert (stacked.images == levels[:, :, None, None]).all()
    assert first <= levels.min() <= levels.max() < first + 100
    assert torch.equal(stacked.labels, numbered_digits[levels] @ torch.tensor([100, 10, 1]))
    assert stacked.info.class_names == tuple(f"{number:03}" for number in range(1_000))
    assert len(set(map(tuple, levels.tolist()))) > 0.99 * n


def test_stacked_digits_are_the_same_each_time(numbered_digits, tmp_path):
    first, second = (data.load_dataset("stacked-mnist", tmp_path) for _ in range(2))
    assert first.info == second.info
    assert torch.equal(first.images, second.images)


def test_stacked_digits_have_three_channels(numbered_digits, tmp_path):
    assert data.load_dataset("stacked-mnist", tmp_path, channels=3).info.image_shape == (3, 8, 8)
    with pytest.raises(DataError, match="stacked-mnist has 3 channels, got 1"):
        data.load_dataset("stacked-mnist", tmp_path, channels=1)
