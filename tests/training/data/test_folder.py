"""Folders of images as users have them: with captions, thumbnails, damaged files and names in other encodings."""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import small_config
from tests.training.data.examples import SEVEN, error_message, plain_image, write_image, write_images
from training.data import DataError, DataUnavailableError, load_dataset
from training.dry_run import dry_run
from training.errors import RunError
from training.loop import train
from training.train import main

needs_byte_names = pytest.mark.skipif(sys.platform != "linux", reason="this file system stores names as Unicode only")


def train_error(capsys, *arguments: object) -> str:
    """Runs the command `train`, which must fail, and returns its error message."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train", *map(str, arguments)])
        with pytest.raises(SystemExit):
            main()
    return capsys.readouterr().err


def test_each_subfolder_is_a_class(tmp_path):
    black, white = Image.new("L", (28, 28), 0), Image.new("L", (28, 28), 255)
    loaded = load_dataset("folder", write_images(tmp_path / "secret", dogs=[white], cats=[black, black]))
    assert (loaded.images.shape, loaded.images.dtype) == ((3, 1, 28, 28), torch.uint8)
    assert (loaded.labels.tolist(), loaded.labels.dtype) == ([0, 0, 1], torch.int64)
    assert loaded.images[:, 0, 0, 0].tolist() == [0, 0, 255]
    assert loaded.info.class_names == ("cats", "dogs")
    assert loaded.info.class_counts == (2, 1)
    assert loaded.info.name == "folder"
    assert "secret" not in str(asdict(loaded.info))


def test_the_hash_does_not_depend_on_the_path_of_the_folder(tmp_path):
    folder, other_folder = (write_images(tmp_path / name, seven=[Image.fromarray(SEVEN)]) for name in ("a", "b"))
    assert load_dataset("folder", folder).info == load_dataset("folder", other_folder).info


def test_an_empty_class_is_rejected_with_its_name(tmp_path):
    write_images(tmp_path, dogs=[Image.fromarray(SEVEN)], cats=[])
    with pytest.raises(DataError, match=f"{tmp_path / 'cats'}: no images"):
        load_dataset("folder", tmp_path)


def test_all_empty_classes_are_reported_with_the_skipped_files(pets):
    for name in ("birds", "fish"):
        (pets / name).mkdir()
        (pets / name / "captions.txt").touch()
    assert f"{pets / 'birds'}, {pets / 'fish'}: no images" in error_message(pets)
    assert "(skipped: .txt: 2)" in error_message(pets)


def test_all_files_that_cannot_be_read_are_reported_in_one_message(pets):
    for index in range(9):
        (pets / "cats" / f"broken{index}.png").write_bytes(b"no image")
    (pets / "dogs" / "film.mp4").write_bytes(b"no image")
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(pets / "dogs" / "deep.png")
    message = error_message(pets)
    assert f"{pets}: 11 files cannot be read as images: cats/broken0.png (its format is unknown), " in message
    assert "and 3 more; repair them, or move them elsewhere" in message


def test_a_missing_folder_is_unavailable(tmp_path):
    with pytest.raises(DataUnavailableError, match=f"{tmp_path / 'missing'}: no such folder; check --data-dir"):
        load_dataset("folder", tmp_path / "missing")


@pytest.mark.parametrize(("size", "rejected"), [(55, False), (56, True), (300, True)])
def test_large_images_need_an_image_size(tmp_path, size, rejected):
    for index in range(3):
        write_image(tmp_path / "a" / f"{index}.png", plain_image((size, 400)))
    write_image(tmp_path / "a" / "small.png")
    if rejected:
        assert "give --image-size; half of the images are at least" in error_message(tmp_path)
    assert load_dataset("folder", tmp_path, image_size=28).info.image_shape == (1, 28, 28)
    assert rejected or load_dataset("folder", tmp_path).info.image_shape == (1, 28, 28)


def test_a_single_class_with_subfolders_is_reported_with_the_folder_to_use(tmp_path):
    for name in ("cats", "dogs"):
        write_image(tmp_path / "archive" / name / "0.png")
    assert load_dataset("folder", tmp_path).summary[-1] == (
        "the only class, archive, has subfolders (cats, dogs); if those are the classes, "
        f"give --data-dir {tmp_path / 'archive'}"
    )


def test_the_summary_reports_every_change(tmp_path):
    write_image(tmp_path / "a" / "wide.png", plain_image((32, 16)))
    write_image(tmp_path / "a" / "small.png", plain_image((8, 8)))
    write_image(tmp_path / "a" / "clear.png", Image.new("RGBA", (16, 16), (0, 0, 0, 0)))
    write_image(tmp_path / "b" / "large.png", plain_image((64, 64)))
    write_image(tmp_path / "b" / "red.png", Image.new("RGB", (16, 16), "red"))
    frames = [plain_image((16, 16), level) for level in (0, 255)]
    frames[0].save(tmp_path / "b" / "film.gif", save_all=True, append_images=frames[1:])
    loaded = load_dataset("folder", tmp_path, image_size=16, channels=1)
    assert loaded.summary == (
        "folder: 6 images of 16 x 16 pixels, grey; 2 classes: a (3), b (3)",
        "1 of 6 images are in colour and were converted to grey",
        "1 of 6 images have several frames, of which the first is used",
        "1 of 6 images have transparency, which becomes white",
        "1 of 6 images were cropped to the middle",
        "1 of 6 images were enlarged to 16 x 16 pixels",
        "1 of 6 images were reduced to 16 x 16 pixels",
    )


def test_unchanged_images_are_summarized_in_one_line(pets):
    assert load_dataset("folder", pets).summary == (
        "folder: 2 images of 28 x 28 pixels, grey; 2 classes: cats (1), dogs (1)",
    )


def test_runs_and_dry_runs_print_the_summary(pets, tmp_path, capsys):
    config = small_config(tmp_path / "run", dataset="folder", data_dir=pets, image_size=16, batch_size=2)
    assert "2 of 2 images were reduced to 16 x 16 pixels" in dry_run(config)
    train(config)
    printed = capsys.readouterr().out
    assert "folder: 2 images of 16 x 16 pixels, grey; 2 classes: cats (1), dogs (1)" in printed
    assert "2 of 2 images were reduced to 16 x 16 pixels" in printed
    assert json.loads((tmp_path / "run" / "config.json").read_text())["image_size"] == 16


@needs_byte_names
def test_a_class_name_that_is_not_utf8_ends_the_command_before_training(pets, tmp_path, capsys):
    folder = os.fsencode(pets) + b"/caf\xe9"
    os.mkdir(folder)  # noqa: PTH102
    write_image(Path(os.fsdecode(folder)) / "0.png")
    message = train_error(
        capsys, "--preset", "fast", "--dataset", "folder", "--data-dir", pets, "--out", tmp_path / "run"
    )
    assert r"not valid UTF-8 (caf\xe9); rename them" in message
    assert not (tmp_path / "run").exists()


@needs_byte_names
@pytest.mark.parametrize("run", [train, dry_run])
def test_a_path_that_is_not_utf8_is_rejected_before_training(tmp_path, run):
    out = tmp_path / os.fsdecode(b"caf\xe9")
    with pytest.raises(RunError, match=r"--out .*not valid UTF-8"):
        run(small_config(out))
    assert not out.exists()


@pytest.mark.parametrize("options", [(), ("--dry-run",)])
def test_a_folder_of_images_without_the_option_gets_a_hint_and_is_left_unchanged(pets, tmp_path, capsys, options):
    before = sorted(pets.rglob("*"))
    message = train_error(capsys, "--data-dir", pets, "--out", tmp_path / "run", *options)
    assert "contains images (cats/0.png) instead of MNIST: add --dataset folder" in message
    assert sorted(pets.rglob("*")) == before
    assert not (tmp_path / "run").exists()


def test_a_dry_run_downloads_nothing(tmp_path):
    with pytest.raises(DataUnavailableError, match="a dry run downloads nothing"):
        dry_run(small_config(tmp_path / "run", dataset="mnist", data_dir=tmp_path / "data"))
    assert list(tmp_path.iterdir()) == []
