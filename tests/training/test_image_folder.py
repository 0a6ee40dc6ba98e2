"""Folders of images as people have them: with captions, thumbnails, links, splits and names of another encoding."""

import json
import os
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import small_config
from training import data
from training.data import DataError, DataUnavailableError
from training.dry_run import dry_run
from training.errors import RunError
from training.loop import train
from training.train import main

latin1 = pytest.mark.skipif(sys.platform != "linux", reason="this file system stores names as Unicode only")


def picture(size: tuple[int, int] = (28, 28), level: int = 0, mode: str = "L") -> Image.Image:
    return Image.fromarray(np.full(size[::-1], level, np.uint8)).convert(mode)


def write(file: Path, image: Image.Image | None = None) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    (image or picture()).save(file)
    return file


@pytest.fixture
def pets(tmp_path) -> Path:
    """Two classes of one image each."""
    for name in ("cats", "dogs"):
        write(tmp_path / "pets" / name / "0.png")
    return tmp_path / "pets"


def refusal(folder: Path, **options) -> str:
    with pytest.raises(DataError) as caught:
        data.load_dataset("folder", folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def train_refusal(capsys, *arguments: object) -> str:
    """The line with which the command refuses."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train", *map(str, arguments)])
        with pytest.raises(SystemExit):
            main()
    return capsys.readouterr().err


# Names


@latin1
def test_a_class_name_that_is_not_utf8_is_refused_before_training(pets, tmp_path, capsys):
    folder = os.fsencode(pets) + b"/caf\xe9"
    os.mkdir(folder)  # noqa: PTH102
    write(Path(os.fsdecode(folder)) / "0.png")
    message = train_refusal(
        capsys, "--preset", "fast", "--dataset", "folder", "--data-dir", pets, "--out", tmp_path / "run"
    )
    assert r"not valid UTF-8 (caf\xe9); rename them" in message
    assert not (tmp_path / "run").exists()


@latin1
@pytest.mark.parametrize("run", [train, dry_run])
def test_a_path_that_the_configuration_cannot_store_is_refused_before_training(tmp_path, run):
    out = tmp_path / os.fsdecode(b"caf\xe9")
    with pytest.raises(RunError, match=r"--out .*not valid UTF-8"):
        run(small_config(out))
    assert not out.exists()


@pytest.mark.parametrize(
    ("one", "other"),
    [("caf\u00e9", "cafe\u0301"), ("cats", "cats "), ("two words", "two  words"), ("cats", "ca\u200bts")],
)
def test_two_class_names_that_look_the_same_are_refused(tmp_path, one, other):
    for name in (one, other):
        write(tmp_path / name / "0.png")
    message = refusal(tmp_path)
    assert "look the same" in message
    assert all(ascii(name) in message for name in (one, other))


def test_class_names_are_stored_composed_as_keyboards_type_them(tmp_path):
    write(tmp_path / "cafe\u0301" / "0.png")
    assert data.load_dataset("folder", tmp_path).info.class_names == ("caf\u00e9",)


# Layouts


@pytest.mark.parametrize(
    "splits", [("train", "test"), ("Training", "Validation"), ("train", "val", "test"), ("train",)]
)
def test_splits_instead_of_classes_are_refused_with_the_folder_that_was_meant(tmp_path, splits):
    for split in splits:
        for name in ("cats", "dogs"):
            write(tmp_path / split / name / "0.png")
    assert f"did you mean --data-dir {tmp_path / splits[0]}?" in refusal(tmp_path)


def test_splits_without_classes_are_refused(tmp_path):
    for split in ("train", "test"):
        write(tmp_path / split / "0.png")
    assert "its subfolders are splits (test, train), not classes" in refusal(tmp_path)


@pytest.mark.parametrize("names", [("train", "car"), ("test",)])
def test_a_class_may_have_the_name_of_a_split(tmp_path, names):
    for name in names:
        write(tmp_path / name / "0.png")
    assert data.load_dataset("folder", tmp_path).info.class_names == tuple(sorted(names))


def test_images_next_to_class_folders_are_refused(pets):
    for index in range(12):
        write(pets / f"{index:02}.jpg")
    assert "12 images next to the class folders (00.jpg, 01.jpg," in refusal(pets)
    assert "and 4 more)" in refusal(pets)


def test_classes_that_lie_one_folder_deeper_are_reported(tmp_path):
    for name in ("cats", "dogs"):
        write(tmp_path / "archive" / name / "0.png")
    assert data.load_dataset("folder", tmp_path).summary[-1] == (
        "the only class, archive, has subfolders (cats, dogs); if those are the classes, "
        f"give --data-dir {tmp_path / 'archive'}"
    )


def test_all_empty_classes_are_named_with_what_was_skipped(pets):
    for name in ("birds", "fish"):
        (pets / name).mkdir()
        (pets / name / "captions.txt").touch()
    assert f"{pets / 'birds'}, {pets / 'fish'}: no images" in refusal(pets)
    assert "(.txt: 2)" in refusal(pets)


# What is skipped


def test_files_that_are_known_not_to_be_images_are_skipped_and_counted(pets):
    names = ["Thumbs.db", "desktop.ini", "a.json", "b.TXT", "c.txt", "drawing.svg", ".hidden.png", "._0.png"]
    for name in names:
        (pets / "cats" / name).write_text("no image")
    (pets / "README.md").touch()
    for thumbnails in ("@eaDir", "#recycle", "__MACOSX"):
        write(pets / thumbnails / "cats" / "thumb.png")
        write(pets / "dogs" / thumbnails / "thumb.png")
    loaded = data.load_dataset("folder", pets)
    assert (loaded.info.class_names, loaded.info.class_counts) == (("cats", "dogs"), (1, 1))
    (skipped,) = [line for line in loaded.summary if line.startswith("skipped")]
    assert skipped.startswith("skipped 15 that are not images of a class (")
    for part in (".txt: 2", ".json: 1", "Thumbs.db: 1", "hidden: 2", "@eaDir: 2", "#recycle: 2", ".svg: 1", ".md: 1"):
        assert part in skipped


def test_all_files_that_cannot_be_read_are_reported_in_one_message(pets):
    for index in range(9):
        (pets / "cats" / f"broken{index}.png").write_bytes(b"no image")
    (pets / "dogs" / "film.mp4").write_bytes(b"no image")
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(pets / "dogs" / "deep.png")
    message = refusal(pets)
    assert f"{pets}: 11 files cannot be read as images: cats/broken0.png (its format is unknown), " in message
    assert "and 3 more; repair them, or move them elsewhere" in message


def test_nothing_but_a_regular_file_blocks_the_load(pets):
    os.mkfifo(pets / "cats" / "pipe.png")
    os.mkfifo(pets / "pipe")
    (pets / "cats" / "device.png").symlink_to("/dev/zero")
    (pets / "cats" / "gone.png").symlink_to("nowhere")
    (pets / "cats" / "itself.png").symlink_to("itself.png")
    (pets / "cats" / "parent").symlink_to(pets)
    (pets / "cats" / "here").symlink_to(".")
    (pets / "cats" / "link.png").symlink_to("0.png")
    here = Path.cwd()
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(pets)  # a socket's path is short
        try:
            server.bind("dogs/socket.png")
        finally:
            os.chdir(here)
    loaded = data.load_dataset("folder", pets)
    assert loaded.info.class_counts == (2, 1)
    assert (
        "skipped 8 that are not images of a class "
        "(not a regular file: 4, broken link: 2, link to a folder that is read already: 2)" in loaded.summary
    )


# What is altered


def test_the_summary_reports_all_that_was_altered(tmp_path):
    write(tmp_path / "a" / "wide.png", picture((32, 16)))
    write(tmp_path / "a" / "small.png", picture((8, 8)))
    write(tmp_path / "a" / "clear.png", Image.new("RGBA", (16, 16), (0, 0, 0, 0)))
    write(tmp_path / "b" / "large.png", picture((64, 64)))
    write(tmp_path / "b" / "red.png", Image.new("RGB", (16, 16), "red"))
    frames = [picture((16, 16), level) for level in (0, 255)]
    frames[0].save(tmp_path / "b" / "film.gif", save_all=True, append_images=frames[1:])
    loaded = data.load_dataset("folder", tmp_path, image_size=16, channels=1)
    assert loaded.summary == (
        "folder: 6 images of 16 x 16 pixels, grey; 2 classes: a (3), b (3)",
        "1 of 6 images cropped to the middle square",
        "1 of 6 images enlarged to 16 x 16 pixels",
        "1 of 6 images in colour, converted to grey",
        "1 of 6 images reduced to 16 x 16 pixels",
        "1 of 6 images with several frames, of which the first is used",
        "1 of 6 images with transparency, which becomes white",
    )


def test_images_that_are_used_as_they_are_need_one_line(pets):
    assert data.load_dataset("folder", pets).summary == (
        "folder: 2 images of 28 x 28 pixels, grey; 2 classes: cats (1), dogs (1)",
    )


def test_many_classes_are_summarised(tmp_path):
    for index in range(100):
        write(tmp_path / f"{index:02}" / "0.png")
    (summary,) = data.load_dataset("folder", tmp_path).summary
    assert "100 classes: 00 (1), 01 (1)," in summary
    assert summary.endswith("09 (1), and so on, 1 to 1 images each")


@pytest.mark.parametrize(("size", "refused"), [(55, False), (56, True), (300, True)])
def test_photographs_need_an_image_size(tmp_path, size, refused):
    for index in range(3):
        write(tmp_path / "a" / f"{index}.png", picture((size, 400)))
    write(tmp_path / "a" / "small.png")
    if refused:
        assert "give --image-size; half of the images are at least" in refusal(tmp_path)
    assert data.load_dataset("folder", tmp_path, image_size=28).info.image_shape == (1, 28, 28)
    assert refused or data.load_dataset("folder", tmp_path).info.image_shape == (1, 28, 28)


def test_a_run_and_a_dry_run_print_the_summary(pets, tmp_path, capsys):
    config = small_config(tmp_path / "run", dataset="folder", data_dir=pets, image_size=16, batch_size=2)
    assert "2 of 2 images reduced to 16 x 16 pixels" in dry_run(config)
    train(config)
    printed = capsys.readouterr().out
    assert "folder: 2 images of 16 x 16 pixels, grey; 2 classes: cats (1), dogs (1)" in printed
    assert "2 of 2 images reduced to 16 x 16 pixels" in printed
    assert json.loads((tmp_path / "run" / "config.json").read_text())["image_size"] == 16


# A folder of images without --dataset folder


@pytest.mark.parametrize("options", [(), ("--dry-run",)])
def test_images_without_the_option_folder_get_the_hint_and_nothing_is_written(pets, tmp_path, capsys, options):
    before = sorted(pets.rglob("*"))
    message = train_refusal(capsys, "--data-dir", pets, "--out", tmp_path / "run", *options)
    assert "does not hold MNIST, but images (cats/0.png): add --dataset folder" in message
    assert sorted(pets.rglob("*")) == before
    assert not (tmp_path / "run").exists()


def test_a_dry_run_downloads_nothing(tmp_path):
    with pytest.raises(DataUnavailableError, match="a dry run downloads nothing"):
        dry_run(small_config(tmp_path / "run", dataset="mnist", data_dir=tmp_path / "data"))
    assert list(tmp_path.iterdir()) == []
