"""A run stores its number of CPU threads, reuses it on resume, and warns when the threads block each other."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from models.checkpoint import load_checkpoint
from tests.conftest import small_run
from training.throughput import Throughput
from training.train import main


@pytest.fixture(autouse=True)
def restore_threads(monkeypatch) -> Iterator[None]:
    """Clears OMP_NUM_THREADS for a test, and restores the number of threads of this process afterwards."""
    number = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    yield
    torch.set_num_threads(number)


def run_train_command(monkeypatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["train", *map(str, arguments)])
    main()


def stored_threads(run: Path) -> int:
    return json.loads((run / "config.json").read_text())["threads"]


def test_a_run_stores_its_number_of_threads_and_a_resume_reports_a_different_one(tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    options = ["--dataset", "uci-digits", "--images", 640, "--generator-widths", 16, "--discriminator-widths", 16]
    run_train_command(monkeypatch, *options, "--out", run, "--threads", 1)
    assert "CPU threads: 1 (--threads)\n" in capsys.readouterr().out
    assert stored_threads(run) == load_checkpoint(run).training.config["threads"] == 1

    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    run_train_command(monkeypatch, "--resume", run)
    output = capsys.readouterr().out
    assert "CPU threads: 1 (the same as at the start of the run)\n" in output
    assert "last bits" not in output

    run_train_command(monkeypatch, "--resume", run, "--threads", 2)
    output = capsys.readouterr().out
    assert "CPU threads: 2 (--threads)\n" in output
    assert "So far the run used --threads 1. With another number, its results will differ in the last bits" in output

    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    run_train_command(monkeypatch, "--resume", run)
    output = capsys.readouterr().out
    assert "CPU threads: 3 (OMP_NUM_THREADS)\n" in output
    assert "So far the run used --threads 2." in output


@pytest.mark.parametrize(("threads", "warnings"), [(1, 0), (2, 1)])
def test_a_slowdown_on_several_threads_prints_a_warning_with_a_remedy(tmp_path, monkeypatch, capsys, threads, warnings):
    rates = iter([None, 5.0])
    monkeypatch.setattr(Throughput, "step", lambda *_: next(rates, None))
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    small_run(tmp_path / "run", images=5 * 64)
    output = capsys.readouterr().out
    assert output.count("Warning: training has slowed down from 0 to 5 images/s.") == warnings
    assert output.count(f"OMP_NUM_THREADS=1 train --resume {tmp_path / 'run'}") == warnings


def test_a_drop_of_the_throughput_below_a_quarter_is_reported_once():
    throughput, now, reported = Throughput(0.0), 0.0, []
    for seconds in (*[1.0] * 30, *[3.0] * 10, *[5.0] * 10, *[1.0] * 10, *[5.0] * 10):
        now += seconds
        reported.append(throughput.step(64, now))
    assert [rate for rate in reported if rate is not None] == [pytest.approx(64 / 5)]
    assert 40 <= reported.index(64 / 5) < 50


def test_time_between_steps_does_not_count_as_a_slowdown():
    throughput, now = Throughput(0.0), 0.0
    for _ in range(100):
        now += 1.0
        assert throughput.step(64, now) is None
        now += 1_000.0  # end of an epoch: a checkpoint is saved and images are evaluated
        throughput.skip_to(now)
    assert throughput.best == 64
