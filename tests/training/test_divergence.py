"""A diverged run stops and keeps its last good checkpoint. Steps that fp16 skips are not divergence."""

import json
import math
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.checkpoint import load_checkpoint, save_checkpoint
from tests.conftest import small_run
from training.config import Config
from training.errors import RunError
from training.loop import train
from training.step import Step

EPOCH_STEPS = 28
BATCH = 64


def at_step(number: int, patch: pytest.MonkeyPatch, before: Callable[[Step], None], after: Callable[[Step], None]):
    """Makes the step with this number, from 1, call functions before and after it."""
    step, calls = Step.__call__, []

    def counting_step(self, batch):
        calls.append(1)
        if len(calls) == number:
            before(self)
        step(self, batch)
        if len(calls) == number:
            after(self)

    patch.setattr(Step, "__call__", counting_step)


@torch.no_grad()
def diverge(step: Step) -> None:
    for weight in step.state.generator.parameters():
        weight.fill_(1e30)


def nothing(_: Step) -> None:
    pass


def terminate(_: Step) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
    ("number", "before", "after"),
    [
        (EPOCH_STEPS + 5, diverge, terminate),  # the losses of this step are infinite
        (EPOCH_STEPS + 5, nothing, lambda step: (diverge(step), terminate(step))),  # only the weights are affected
        (2 * EPOCH_STEPS, nothing, diverge),  # only the weights are affected, at the end of an epoch
    ],
)
def test_diverged_weights_are_never_saved(tmp_path, monkeypatch, number, before, after):
    at_step(number, monkeypatch, before, after)
    with pytest.raises(RunError, match=r"diverged after .* the last good checkpoint is"):
        small_run(tmp_path / "run", epochs=3)
    assert load_checkpoint(tmp_path / "run").training.images_seen == EPOCH_STEPS * BATCH


@pytest.mark.parametrize("penalty", ["r1+r2", "wgan-gp"])
def test_steps_that_fp16_skips_do_not_affect_the_metrics(tmp_path, penalty):
    """Resumes with a loss scale that is far too large, so that gradients overflow and the first steps are skipped."""
    run = tmp_path / "run"
    small_run(run, precision="fp16", penalty=penalty, epochs=1)
    checkpoint = load_checkpoint(run)
    scale = torch.tensor(2.0**30, dtype=torch.float64)
    save_checkpoint(replace(checkpoint, tensors=checkpoint.tensors | {"scaler.scale": scale}), run)
    train(replace(Config.load(run), images=2 * EPOCH_STEPS * BATCH), resume=True)
    first, second = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    assert second["skipped_updates"] > first["skipped_updates"] + 5
    assert all(math.isfinite(value) for value in second.values())
    assert second["loss_discriminator"] == pytest.approx(first["loss_discriminator"], rel=0.5)
    assert load_checkpoint(run).training.images_seen == 2 * EPOCH_STEPS * BATCH


@pytest.mark.parametrize("images", [3 * BATCH, 3 * EPOCH_STEPS * BATCH])
def test_a_run_in_which_fp16_skips_every_step_has_diverged(tmp_path: Path, images):
    with pytest.raises(RunError, match=r"diverged after .* fp16 skips every step; no checkpoint was saved yet"):
        small_run(tmp_path / "run", precision="fp16", penalty="r1+r2", gamma=1e30, images=images)
