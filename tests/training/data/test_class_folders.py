import os
import sys
from pathlib import Path

import pytest

from tests.training.data.examples import error_message, write_image
from training.data import load_dataset

needs_byte_names = pytest.mark.skipif(sys.platform != "linux", reason="this file system stores names as Unicode only")


@needs_byte_names
def test_a_class_name_that_is_not_utf8_is_rejected(pets):
    folder = os.fsencode(pets) + b"/caf\xe9"
    os.mkdir(folder)  # noqa: PTH102
    write_image(Path(os.fsdecode(folder)) / "0.png")
    assert r"not valid UTF-8 (caf\xe9); rename them" in error_message(pets)


@pytest.mark.parametrize(
    ("a", "b"),
    [("caf\u00e9", "cafe\u0301"), ("cats", "cats "), ("two words", "two  words"), ("cats", "ca\u200bts")],
)
def test_two_class_names_that_look_the_same_are_rejected(tmp_path, a, b):
    for name in (a, b):
        write_image(tmp_path / name / "0.png")
    message = error_message(tmp_path)
    assert "look the same" in message
    assert all(ascii(name) in message for name in (a, b))


def test_class_names_are_stored_with_composed_accents(tmp_path):
    write_image(tmp_path / "cafe\u0301" / "0.png")
    assert load_dataset("folder", tmp_path).info.class_names == ("caf\u00e9",)


def test_classes_are_sorted_by_name(tmp_path):
    for name in "hcAgbfZeda10":
        write_image(tmp_path / name / "0.png")
    assert load_dataset("folder", tmp_path).info.class_names == tuple("01AZabcdefgh")


def test_a_folder_without_subfolders_is_rejected(tmp_path):
    write_image(tmp_path / "seven.png")
    assert f"{tmp_path}: no subfolders; put the images" in error_message(tmp_path)


@pytest.mark.parametrize(
    "splits", [("train", "test"), ("Training", "Validation"), ("train", "val", "test"), ("train",)]
)
def test_splits_instead_of_classes_are_rejected_with_a_folder_to_use(tmp_path, splits):
    for split in splits:
        for name in ("cats", "dogs"):
            write_image(tmp_path / split / name / "0.png")
    assert f"did you mean --data-dir {tmp_path / splits[0]}?" in error_message(tmp_path)


def test_splits_without_classes_are_rejected(tmp_path):
    for split in ("train", "test"):
        write_image(tmp_path / split / "0.png")
    assert "its subfolders are splits (test, train), not classes" in error_message(tmp_path)


@pytest.mark.parametrize("names", [("train", "car"), ("test",)])
def test_a_class_may_have_the_name_of_a_split(tmp_path, names):
    for name in names:
        write_image(tmp_path / name / "0.png")
    assert load_dataset("folder", tmp_path).info.class_names == tuple(sorted(names))


def test_images_next_to_the_class_folders_are_rejected(pets):
    for index in range(12):
        write_image(pets / f"{index:02}.jpg")
    assert "12 images next to the class folders (00.jpg, 01.jpg," in error_message(pets)
    assert "and 4 more)" in error_message(pets)
