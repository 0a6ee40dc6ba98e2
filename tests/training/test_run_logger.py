"""Logs that cannot be written do not end a run. A checkpoint that cannot be written ends it with one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from models.checkpoint import load_checkpoint
from models.common.lock import LockedError, lock_folder
from tests.conftest import file_limit, small_config, small_run
from training import run_logger
from training.loop import train
from training.train import main

BIN = Path(sys.executable).parent
SMALL = "--dataset uci-digits --device cpu --precision fp32 --latent-dim 16 --generator-widths 32 64"
OPTIONS = [*SMALL.split(), "--discriminator-widths", "64", "32"]


def test_training_continues_without_the_logs_that_cannot_be_written(runs, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("samples", "tensorboard"):
        (run / name).write_text("a file instead of a folder")
    (run / "metrics.jsonl").symlink_to(tmp_path / "nowhere" / "metrics.jsonl")
    small_run(run)
    assert load_checkpoint(run).sha256 == load_checkpoint(runs["unconditional"]).sha256
    output = " ".join(capsys.readouterr().out.split())
    for name in ("samples", "metrics.jsonl", "tensorboard/events"):
        assert output.count(f"{run}/{name}") == 1
    assert "cannot be written (No such file or directory); this does not stop the run" in output
    assert not list(run.rglob(".*"))


def test_an_entry_that_could_not_be_written_is_written_with_the_next_one(tmp_path, monkeypatch):
    failures = iter([OSError(28, "No space left on device")])

    def append(path, data):
        if path.name == "metrics.jsonl" and (failure := next(failures, None)):
            raise failure
        original(path, data)

    original = run_logger.append
    monkeypatch.setattr(run_logger, "append", append)
    small_run(tmp_path / "run")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]


def test_a_damaged_sample_grid_only_prevents_the_gif(tmp_path, capsys):
    small_run(tmp_path / "run", images=128)
    (tmp_path / "run" / "samples" / "epoch-0000.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    train(small_config(tmp_path / "run", images=256), resume=True)
    assert "samples.gif cannot be written" in " ".join(capsys.readouterr().out.split())


def test_a_full_disk_ends_training_with_one_line_and_leaves_no_partial_file(tmp_path, monkeypatch, capsys):
    arguments = ["train", *OPTIONS, "--images", "128", "--out", str(tmp_path / "run")]
    monkeypatch.setattr("sys.argv", arguments)
    with file_limit(100_000), pytest.raises(SystemExit, match="1"):
        main()
    path = tmp_path / "run" / "checkpoints" / "000000000128.safetensors"
    assert capsys.readouterr().err == f"train: {path}: File too large\n"
    assert sorted(path.name for path in (tmp_path / "run").rglob("*") if path.is_file()) == ["config.json"]


def test_a_second_run_into_a_folder_in_use_is_rejected_and_changes_nothing(runs, tmp_path):
    with lock_folder(tmp_path / "run"):
        for resume in (False, True):
            with pytest.raises(LockedError, match=f"in use by process {os.getpid()} on"):
                train(small_config(tmp_path / "run"), resume)
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
    small_run(tmp_path / "run")
    assert not (tmp_path / "run" / ".lock").exists()


@pytest.mark.slow
def test_all_processes_of_a_second_run_end_with_the_same_message(tmp_path):
    torchrun = [BIN / "torchrun", "--nproc-per-node=2", "--standalone", "-m", "training.train"]
    with lock_folder(tmp_path / "run"):
        failed = subprocess.run(
            [*torchrun, *OPTIONS, "--out", tmp_path / "run"], capture_output=True, text=True, timeout=300
        )
    assert failed.returncode != 0
    assert failed.stderr.count(f"train: {tmp_path}/run is in use by process {os.getpid()}") == 2
