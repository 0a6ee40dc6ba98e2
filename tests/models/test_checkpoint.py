from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from models.checkpoint import (
    Checkpoint,
    CheckpointError,
    check_readable,
    find_checkpoints,
    load_checkpoint,
    save_checkpoint,
)


@pytest.fixture
def run(runs, tmp_path):
    """A run folder with two checkpoints, a copy for each test."""
    for images_seen in (64, 128):
        save_at(images_seen, load_checkpoint(runs["conditional"]), tmp_path)
    return tmp_path


def save_at(images_seen: int, checkpoint: Checkpoint, run: Path) -> None:
    save_checkpoint(replace(checkpoint, training=replace(checkpoint.training, images_seen=images_seen)), run)


def test_a_loaded_checkpoint_equals_the_saved_one(runs, tmp_path):
    loaded = load_checkpoint(runs["conditional"])
    save_checkpoint(loaded, tmp_path)
    reloaded = load_checkpoint(tmp_path)
    assert reloaded.sha256 == loaded.sha256
    assert (reloaded.generator, reloaded.dataset, reloaded.training) == (
        loaded.generator,
        loaded.dataset,
        loaded.training,
    )
    assert reloaded.tensors.keys() == loaded.tensors.keys()
    assert all(torch.equal(reloaded.tensors[name], tensor) for name, tensor in loaded.tensors.items())


def test_the_generator_is_built_in_evaluation_mode(runs):
    assert not load_checkpoint(runs["unconditional"]).build().training


def test_the_generator_is_built_with_the_ema_weights_if_there_are_any(runs):
    checkpoint = load_checkpoint(runs["unconditional"])
    raw = checkpoint.part("generator")
    checkpoint.tensors.update({f"ema.{name}": tensor + 1 for name, tensor in raw.items()})
    for name, tensor in checkpoint.build().state_dict().items():
        assert torch.equal(tensor, raw[name] + 1)


def test_a_run_keeps_its_two_newest_checkpoints(run):
    save_at(192, load_checkpoint(run), run)
    assert [int(file.stem) for file in find_checkpoints(run)] == [128, 192]


def test_the_message_for_a_run_without_checkpoints_says_how_to_make_one(tmp_path):
    with pytest.raises(CheckpointError, match="train --out"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_a_truncated_checkpoint_is_rejected_and_the_message_names_the_previous_one(run, keep):
    newest = find_checkpoints(run)[-1]
    newest.write_bytes(newest.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"damaged|truncated") as caught:
        load_checkpoint(run)
    assert "000000000128" in str(caught.value)
    assert f"the previous checkpoint, {find_checkpoints(run)[0]}" in str(caught.value)
    newest.unlink()
    assert load_checkpoint(run).training.images_seen == 64


UNREADABLE = {"class_names": ("caf\udce9",), "class_counts": (1,)}
"""A class name that is not valid Unicode. JSON can store it, but `load_checkpoint` rejects it."""


def test_a_header_that_could_not_be_loaded_is_found_before_it_is_written(runs):
    checkpoint = load_checkpoint(runs["unconditional"])
    check_readable(checkpoint)
    with pytest.raises(CheckpointError, match="checkpoints of this run could not be loaded again"):
        check_readable(replace(checkpoint, dataset=replace(checkpoint.dataset, **UNREADABLE)))


def test_a_checkpoint_is_reported_as_damaged_only_if_its_checksum_is_wrong(run):
    newest = find_checkpoints(run)[-1]
    file = bytearray(newest.read_bytes())
    file[-1] ^= 1
    newest.write_bytes(file)
    with pytest.raises(CheckpointError, match=r"damaged; .*delete this file"):
        load_checkpoint(run)

    checkpoint = load_checkpoint(find_checkpoints(run)[0])
    save_at(128, replace(checkpoint, dataset=replace(checkpoint.dataset, **UNREADABLE)), run)
    with pytest.raises(CheckpointError, match=r"the checksum is right, but .*keep the file") as caught:
        load_checkpoint(run)
    assert not any(word in str(caught.value) for word in ("damaged", "delete"))


def test_a_checkpoint_of_an_older_version_is_rejected_with_both_versions_and_advice(run, monkeypatch):
    checkpoint = load_checkpoint(run)
    monkeypatch.setattr("models.checkpoint._VERSION", 2)
    save_at(128, checkpoint, run)
    monkeypatch.undo()
    expected = (
        r"000128\.safetensors: a checkpoint of version 2, but this program reads version 3; "
        r"use the release of mnist-gan that wrote it, or train again$"
    )
    with pytest.raises(CheckpointError, match=expected):
        load_checkpoint(run)


def test_safetensors_files_of_other_programs_are_rejected(tmp_path):
    safetensors.torch.save_file({"weight": torch.zeros(3)}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="was not written by mnist-gan"):
        load_checkpoint(tmp_path / "a.safetensors")
