"""An interrupted and resumed run equals an uninterrupted one bit for bit.

The options of `EVERYTHING` cover all state that a step can change.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from models.checkpoint import CheckpointError, find_checkpoints, load_checkpoint
from models.export.exporter import export
from tests.conftest import small_config, small_run
from training.config import Config
from training.loop import train
from training.step import Step

TRAIN = Path(sys.executable).parent / "train"
EVERYTHING = {
    "conditional": True,
    "loss": "relativistic",
    "generator_data": "fresh",
    "penalty": "r1+r2",
    "gamma_start": 5.0,
    "beta2_start": 0.9,
    "burn_in": 3_000,
    "lr_schedule": "cosine",
    "lr_warmup": 500,
    "ema_half_life": 400,
    "epochs": 4,
    "batch_size": 16,
    "augment": "ada",
    "mirror": True,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Returns the folder of an uninterrupted run of four epochs."""
    run = tmp_path_factory.mktemp("whole") / "run"
    small_run(run, **EVERYTHING)
    return run


def make_run_without_checkpoint(run: Path, **differences) -> None:
    """Writes the folder of a run that was killed before its first checkpoint."""
    run.mkdir()
    config = small_config(run, **EVERYTHING | differences, threads=torch.get_num_threads())
    (run / "config.json").write_text(json.dumps(config.to_dict()))


def entries(run: Path) -> list[dict]:
    """Returns the entries of metrics.jsonl without the measured times."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if "second" not in name} for line in lines]


def assert_same(run: Path, whole: Path) -> None:
    resumed, expected = load_checkpoint(run).tensors, load_checkpoint(whole).tensors
    assert resumed.keys() == expected.keys()
    assert [name for name, tensor in expected.items() if not torch.equal(resumed[name], tensor)] == []
    assert find_checkpoints(run)[-1].read_bytes() == find_checkpoints(whole)[-1].read_bytes()
    assert entries(run) == entries(whole)


@pytest.mark.slow
def test_a_run_killed_in_the_third_epoch_and_resumed_is_the_same_bit_for_bit(whole, tmp_path):
    make_run_without_checkpoint(tmp_path / "run")
    with subprocess.Popen([TRAIN, "--resume", tmp_path / "run"], stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not (tmp_path / "run" / "metrics.jsonl").exists() or len(entries(tmp_path / "run")) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.1)
        process.kill()
    assert len(entries(tmp_path / "run")) == 2, "the run should be killed in the third epoch"
    subprocess.run([TRAIN, "--resume", tmp_path / "run"], check=True, stdout=subprocess.DEVNULL)
    assert_same(tmp_path / "run", whole)


@pytest.mark.parametrize("steps", [1, 112, *(pytest.param(steps, marks=pytest.mark.slow) for steps in (50, 113, 300))])
def test_a_run_stopped_after_any_step_and_resumed_is_the_same_bit_for_bit(whole, tmp_path, monkeypatch, steps):
    run = tmp_path / "run"
    make_run_without_checkpoint(run)
    with monkeypatch.context() as patch:
        stop_after(steps, patch)
        train(Config.load(run), resume=True)
    assert load_checkpoint(run).training.images_seen == steps * 16
    train(Config.load(run), resume=True)
    assert_same(run, whole)


def test_a_resumed_run_has_the_same_files_as_an_uninterrupted_one(whole, tmp_path, monkeypatch):
    """The configuration has ints and lists where floats and tuples are declared, as Python code may pass them."""
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_after(150, patch)
        small_run(run, **EVERYTHING | {"gamma": 1, "gamma_start": 5, "betas": [0.9, 0.999], "lr_end": 0})
    before = (run / "config.json").read_bytes()
    train(Config.load(run), resume=True)
    assert (run / "config.json").read_bytes() == before
    assert_same(run, whole)
    resumed, expected = (export(load_checkpoint(folder)).generator.file for folder in (run, whole))
    assert resumed == expected


def test_the_speed_after_a_resume_counts_only_the_steps_since_then(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(20, patch)
        small_run(tmp_path / "run", epochs=1)
    train(Config.load(tmp_path / "run"), resume=True)
    (line,) = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert line["images_per_second"] * line["seconds"] == pytest.approx((28 - 20) * 64)


def stop_after(steps: int, patch: pytest.MonkeyPatch) -> None:
    """Sends this process a SIGTERM after the given number of steps."""
    step, calls = Step.__call__, []

    def counting_step(self, batch):
        step(self, batch)
        calls.append(1)
        if len(calls) == steps:
            os.kill(os.getpid(), signal.SIGTERM)

    patch.setattr(Step, "__call__", counting_step)


def test_a_run_killed_between_a_checkpoint_and_its_log_entry_logs_it_on_resume(whole, tmp_path):
    make_run_without_checkpoint(tmp_path / "run", epochs=2)
    train(Config.load(tmp_path / "run"), resume=True)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "run" / "metrics.jsonl").write_text(lines[0] + lines[1][:20])
    train(Config.load(tmp_path / "run"), resume=True)
    assert [line["epoch"] for line in entries(tmp_path / "run")] == [1, 2]


def test_resuming_a_complete_run_reports_it_and_changes_nothing(whole, capsys):
    before = load_checkpoint(whole).sha256
    train(Config.load(whole), resume=True)
    assert "the run is already complete" in capsys.readouterr().out
    assert load_checkpoint(whole).sha256 == before


def test_a_damaged_checkpoint_is_an_error_and_the_one_before_it_can_be_resumed_in_another_folder(whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    newest = find_checkpoints(run)[-1]
    newest.write_bytes(newest.read_bytes()[:1_000])
    with pytest.raises(CheckpointError, match="the previous checkpoint, "):
        train(Config.load(run), resume=True)
    newest.unlink()
    train(Config.load(run), resume=True)
    assert_same(run, whole)
