"""Continues runs beyond their first total and with moved data, and checks that other data is rejected."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.checkpoint import load_checkpoint
from tests.conftest import small_config
from training.command_line import parse
from training.config import Config
from training.dry_run import dry_run
from training.loop import train
from training.resume import ResumeError

SMALL = {"dataset": "folder", "image_size": 8, "batch_size": 8, "generator_widths": (8,), "discriminator_widths": (8,)}


def draw_folder(folder: Path) -> Path:
    """Writes a data set of two classes with 12 random images each."""
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for i in range(12):
            Image.fromarray(random.integers(0, 256, (8, 8), np.uint8)).save(folder / name / f"{i:02}.png")
    return folder


def folder_config(tmp_path: Path, **differences) -> Config:
    data = tmp_path / "data"
    if not data.exists():
        draw_folder(data)
    return replace(small_config(tmp_path / "run", **SMALL, data_dir=data), **differences)


def resume(run: Path, *options: str) -> None:
    command = parse(["--resume", str(run), *options])
    train(command.config, command.resume)


def tensors(run: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(run).tensors


def assert_same(run: Path, whole: Path) -> None:
    actual, expected = tensors(run), tensors(whole)
    assert [name for name in expected if not torch.equal(actual[name], expected[name])] == []


def test_a_run_of_two_epochs_extended_to_four_equals_a_run_of_four_bit_for_bit(tmp_path):
    for name, epochs in (("extended", 2.0), ("whole", 4.0)):
        train(small_config(tmp_path / name, epochs=epochs, ema_half_life=500, conditional=True))
    resume(tmp_path / "extended", "--epochs", "4")
    assert_same(tmp_path / "extended", tmp_path / "whole")
    assert load_checkpoint(tmp_path / "extended").sha256 == load_checkpoint(tmp_path / "whole").sha256
    entries = [json.loads(line) for line in (tmp_path / "extended" / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in entries] == [1, 2, 3, 4]


def test_a_run_that_ended_within_an_epoch_can_be_extended_to_the_same_bits(tmp_path):
    train(folder_config(tmp_path, images=40))
    resume(tmp_path / "run", "--images", "96")
    train(folder_config(tmp_path, out=tmp_path / "whole", images=96))
    assert_same(tmp_path / "run", tmp_path / "whole")


def test_minutes_of_a_resumed_run_are_additional(tmp_path):
    train(folder_config(tmp_path, images=48))
    resume(tmp_path / "run", "--minutes", "0.002")
    config = Config.load(tmp_path / "run")
    assert config.images > 48
    assert config.minutes is None
    assert load_checkpoint(tmp_path / "run").training.images_seen >= config.images


def test_a_schedule_that_depends_on_the_total_is_reported(tmp_path, capsys):
    train(folder_config(tmp_path, images=48, lr_schedule="linear", lr_end=0.5))
    resume(tmp_path / "run", "--images", "96")
    output = " ".join(capsys.readouterr().out.split())
    assert "the total changes from 48 to 96 images" in output
    assert "--lr-schedule linear depends on the total: after 48 images the learning rate changes from 0.0001" in output
    assert "to 0.00015, and then falls to 0.0001 at the new total" in output


def test_a_total_below_the_images_seen_is_rejected_and_changes_nothing(tmp_path):
    train(folder_config(tmp_path, images=48))
    before = (tmp_path / "run" / "config.json").read_bytes()
    with pytest.raises(ResumeError, match="has already seen 48 images, more than the new total of 16"):
        resume(tmp_path / "run", "--images", "16")
    assert (tmp_path / "run" / "config.json").read_bytes() == before


def test_a_run_can_continue_after_its_data_moved(tmp_path):
    train(folder_config(tmp_path, images=48))
    (tmp_path / "data").rename(tmp_path / "moved")
    resume(tmp_path / "run", "--data-dir", str(tmp_path / "moved"), "--images", "96")
    assert Config.load(tmp_path / "run").data_dir == tmp_path / "moved"
    draw_folder(tmp_path / "data")
    train(folder_config(tmp_path, out=tmp_path / "whole", images=96))
    assert_same(tmp_path / "run", tmp_path / "whole")


def add_class(data: Path) -> None:
    shutil.copytree(data / "cat", data / "fox")


def remove_class(data: Path) -> None:
    shutil.rmtree(data / "dog")


def rename_class(data: Path) -> None:
    (data / "dog").rename(data / "hound")


def add_image(data: Path) -> None:
    shutil.copy(data / "cat" / "00.png", data / "cat" / "12.png")


def alter_image(data: Path) -> None:
    shutil.copy(data / "cat" / "00.png", data / "cat" / "01.png")


def colour_image(data: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(data / "cat" / "00.png")


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (add_class, "class 'fox' with 12 images was added"),
        (remove_class, "class 'dog' with 12 images was removed"),
        (rename_class, "class 'dog' is now called 'hound'"),
        (add_image, "class 'cat' has 13 images and had 12"),
        (alter_image, "images were altered"),
        (colour_image, "its images have the shape 3x8x8 and had 1x8x8"),
    ],
)
def test_changed_data_is_rejected_with_a_description_of_the_change(tmp_path, change, difference):
    train(folder_config(tmp_path, images=48))
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    change(tmp_path / "data")
    with pytest.raises(ResumeError, match="this is not the data that") as caught:
        resume(tmp_path / "run", "--images", "96")
    assert difference in str(caught.value)
    assert "--init" in str(caught.value)
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_a_run_can_continue_without_the_run_that_its_weights_came_from(tmp_path):
    train(folder_config(tmp_path, out=tmp_path / "first", images=48))
    train(folder_config(tmp_path, images=48, init=tmp_path / "first"))
    shutil.rmtree(tmp_path / "first")
    resume(tmp_path / "run", "--images", "96")
    assert load_checkpoint(tmp_path / "run").training.images_seen == 96


def test_a_dry_run_of_a_resume_makes_the_same_checks_and_writes_nothing(tmp_path):
    train(folder_config(tmp_path, images=48))
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    config = replace(Config.load(tmp_path / "run"), images=96)
    assert '"images": 96' in dry_run(config, resume=True)
    rename_class(tmp_path / "data")
    with pytest.raises(ResumeError, match="'hound'"):
        dry_run(config, resume=True)
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before
