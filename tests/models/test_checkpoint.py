import pytest
import safetensors.torch
import torch

from models import checkpoint as checkpoints
from models.checkpoint import CheckpointError


def test_a_checkpoint_comes_back_as_it_was_saved(runs, tmp_path):
    loaded = checkpoints.load(runs["conditional"])
    checkpoints.save(loaded, tmp_path)
    again = checkpoints.load(tmp_path)
    assert again.sha256 == loaded.sha256
    assert (again.dataset, again.training) == (loaded.dataset, loaded.training)
    for name, weight in loaded.generator.state_dict().items():
        torch.testing.assert_close(again.generator.state_dict()[name], weight, rtol=0, atol=0)


def test_a_checkpoint_is_ready_for_inference(runs):
    assert not checkpoints.load(runs["unconditional"]).generator.training


def test_saving_leaves_nothing_beside_the_checkpoint(runs, tmp_path):
    checkpoints.save(checkpoints.load(runs["unconditional"]), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["generator.safetensors"]


def test_a_missing_checkpoint_says_how_to_make_one(tmp_path):
    with pytest.raises(CheckpointError, match="train --out"):
        checkpoints.load(tmp_path)


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_a_checkpoint_cut_short_is_refused(runs, tmp_path, keep):
    whole = (runs["unconditional"] / "generator.safetensors").read_bytes()
    (tmp_path / "generator.safetensors").write_bytes(whole[:keep])
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoints.load(tmp_path)


def test_safetensors_of_others_are_refused(tmp_path):
    safetensors.torch.save_file({"weight": torch.zeros(3)}, tmp_path / "generator.safetensors")
    with pytest.raises(CheckpointError, match="not a checkpoint of mnist-gan"):
        checkpoints.load(tmp_path)
