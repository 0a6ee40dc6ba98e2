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
    """A run with two checkpoints, which a test may damage."""
    for images_seen in (64, 128):
        save_at(images_seen, load_checkpoint(runs["conditional"]), tmp_path)
    return tmp_path


def save_at(images_seen: int, checkpoint: Checkpoint, run: Path) -> None:
    save_checkpoint(replace(checkpoint, training=replace(checkpoint.training, images_seen=images_seen)), run)


def test_a_checkpoint_comes_back_as_it_was_saved(runs, tmp_path):
    loaded = load_checkpoint(runs["conditional"])
    save_checkpoint(loaded, tmp_path)
    again = load_checkpoint(tmp_path)
    assert again.sha256 == loaded.sha256
    assert (again.generator, again.dataset, again.training) == (loaded.generator, loaded.dataset, loaded.training)
    assert again.tensors.keys() == loaded.tensors.keys()
    assert all(torch.equal(again.tensors[name], tensor) for name, tensor in loaded.tensors.items())


def test_the_generator_is_built_ready_for_inference(runs):
    assert not load_checkpoint(runs["unconditional"]).build().training


def test_the_average_of_the_weights_is_preferred(runs):
    checkpoint = load_checkpoint(runs["unconditional"])
    raw = checkpoint.part("generator")
    checkpoint.tensors.update({f"ema.{name}": tensor + 1 for name, tensor in raw.items()})
    for name, tensor in checkpoint.build().state_dict().items():
        assert torch.equal(tensor, raw[name] + 1)


def test_the_last_two_are_kept(run):
    save_at(192, load_checkpoint(run), run)
    assert [int(file.stem) for file in find_checkpoints(run)] == [128, 192]


def test_a_missing_checkpoint_says_how_to_make_one(tmp_path):
    with pytest.raises(CheckpointError, match="train --out"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_a_checkpoint_cut_short_is_refused_and_the_one_before_it_named(run, keep):
    newest = find_checkpoints(run)[-1]
    newest.write_bytes(newest.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"damaged|cut short") as caught:
        load_checkpoint(run)
    assert "000000000128" in str(caught.value)
    assert f"the one before it is {find_checkpoints(run)[0]}" in str(caught.value)
    newest.unlink()
    assert load_checkpoint(run).training.images_seen == 64


UNREADABLE = {"class_names": ("caf\udce9",), "class_counts": (1,)}
"""A class name that is not valid Unicode: JSON can write it, and no reader accepts it."""


def test_a_checkpoint_that_could_not_be_read_again_is_found_before_it_is_written(runs):
    checkpoint = load_checkpoint(runs["unconditional"])
    check_readable(checkpoint)
    with pytest.raises(CheckpointError, match="a checkpoint of this run could not be read again"):
        check_readable(replace(checkpoint, dataset=replace(checkpoint.dataset, **UNREADABLE)))


def test_only_a_wrong_checksum_is_called_damage(run):
    newest = find_checkpoints(run)[-1]
    file = bytearray(newest.read_bytes())
    file[-1] ^= 1
    newest.write_bytes(file)
    with pytest.raises(CheckpointError, match=r"damaged .*delete the damaged one"):
        load_checkpoint(run)

    checkpoint = load_checkpoint(find_checkpoints(run)[0])
    save_at(128, replace(checkpoint, dataset=replace(checkpoint.dataset, **UNREADABLE)), run)
    with pytest.raises(CheckpointError, match=r"its checksum is right, but .*keep it") as caught:
        load_checkpoint(run)
    assert not any(word in str(caught.value) for word in ("damaged", "delete"))


def test_safetensors_of_others_are_refused(tmp_path):
    safetensors.torch.save_file({"weight": torch.zeros(3)}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="not a checkpoint of mnist-gan"):
        load_checkpoint(tmp_path / "a.safetensors")
