"""Compares a run of the train command in one process with the same run in two processes."""

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
    "--augment=ada",
    "--mirror",
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[int, Path]:
    """Returns the folders of the same run by one and by two processes."""
    folder = tmp_path_factory.mktemp("distributed")
    subprocess.run([BIN / "train", *OPTIONS, "--out", folder / "1"], check=True, timeout=300)
    torchrun = [BIN / "torchrun", "--nproc-per-node=2", "--standalone", "-m", "training.train"]
    done = subprocess.run([*torchrun, *OPTIONS, "--out", folder / "2"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch   1") == 1, "only the main process should print"
    assert "2 processes" in done.stdout
    return {1: folder / "1", 2: folder / "2"}


def test_two_processes_train_the_same_weights_as_one(runs):
    single, double = (load_checkpoint(run).tensors for run in runs.values())
    for part in ("generator.", "discriminator.", "ema."):
        for name in (name for name in single if name.startswith(part)):
            if single[name].numel() == 1:
                # The bias of the logit has no effect on a relativistic loss, so Adam amplifies rounding errors.
                continue
            torch.testing.assert_close(double[name], single[name], rtol=1e-3, atol=1e-4)


def test_two_processes_log_the_same_metrics_as_one(runs):
    single, double = ([json.loads(line) for line in (run / "metrics.jsonl").open()] for run in runs.values())
    for expected, actual in zip(single, double, strict=True):
        assert actual["images_seen"] == expected["images_seen"]
        for name in ("loss_discriminator", "loss_generator", "penalty", "logit_real", "gradient_generator"):
            assert actual[name] == pytest.approx(expected[name], rel=1e-2, abs=1e-3)
