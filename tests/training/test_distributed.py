import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent
OPTIONS = [
    "--dataset=uci-digits",
    "--device=cpu",
    "--precision=fp32",
    "--epochs=2",
    "--batch-size=32",
    "--generator-widths=16",
    "--discriminator=residual",
    "--discriminator-widths=4",
    "8",
    "--conditional",
    "--loss=relativistic",
    "--generator-data=fresh",
    "--penalty=r1+r2",
    "--ema-half-life=500",
    "--latent-dim=8",
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[int, Path]:
    """The same run by one process and by two."""
    folder = tmp_path_factory.mktemp("distributed")
    subprocess.run([BIN / "train", *OPTIONS, "--out", folder / "1"], check=True, timeout=300)
    torchrun = [BIN / "torchrun", "--nproc-per-node=2", "--standalone", "-m", "training.train"]
    done = subprocess.run([*torchrun, *OPTIONS, "--out", folder / "2"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch   1") == 1, "one process is to tell the story"
    assert "2 processes" in done.stdout
    return {1: folder / "1", 2: folder / "2"}


def test_two_processes_train_as_one_does(runs):
    one, two = (load_checkpoint(run).tensors for run in runs.values())
    for part in ("generator.", "discriminator.", "ema."):
        for name in (name for name in one if name.startswith(part)):
            if one[name].numel() == 1:
                continue  # the bias of the logit: a relativistic loss does not feel it, and Adam follows the rounding
            torch.testing.assert_close(two[name], one[name], rtol=1e-3, atol=1e-4)


def test_two_processes_tell_the_same_figures(runs):
    one, two = ([json.loads(line) for line in (run / "metrics.jsonl").open()] for run in runs.values())
    for ours, theirs in zip(one, two, strict=True):
        assert ours["images_seen"] == theirs["images_seen"]
        for name in ("loss_discriminator", "loss_generator", "penalty", "logit_real", "gradient_generator"):
            assert theirs[name] == pytest.approx(ours[name], rel=1e-2, abs=1e-3)
