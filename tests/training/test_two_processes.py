"""Trains small networks in two processes on the CPU, connected by Gloo."""

import multiprocessing
from pathlib import Path

import pytest
import torch

from tests.training import two_processes
from tests.training.combinations import PAIRWISE

pytestmark = pytest.mark.slow

RANKS = (0, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Returns the results of two processes, which are forked from one that has already imported PyTorch."""
    folder = tmp_path_factory.mktemp("two-processes")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([two_processes.__name__])
    processes = [context.Process(target=two_processes.run_all, args=(folder, rank)) for rank in RANKS]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join(timeout=300)
            assert process.exitcode == 0, "a process failed, see its traceback"
    finally:
        for process in processes:
            process.kill()
    return folder


@pytest.mark.parametrize("number", range(len(PAIRWISE)))
def test_all_processes_end_with_the_same_finite_weights(folder, number):
    weights, other_weights = (torch.load(folder / f"case-{number}-rank-{rank}.pt") for rank in RANKS)
    assert weights.keys() == other_weights.keys()
    assert weights["images_seen"] >= 64
    for name, weight in weights.items():
        assert weight.isfinite().all(), name
        assert torch.equal(weight, other_weights[name]), name


def test_one_process_downloads_the_data_while_the_others_wait(folder):
    assert (folder / "works.log").read_text() == "rank 0\n"
    assert (folder / "download-works" / "checkpoints").is_dir()


def test_a_failed_download_ends_every_process_with_its_message(folder):
    assert (folder / "fails.log").read_text() == "rank 0\n"
    assert [(folder / f"fails-rank-{rank}.txt").read_text() for rank in RANKS] == ["there is no network"] * 2


def test_no_thread_of_a_process_group_outlives_its_run(folder):
    for rank in RANKS:
        assert "gloo" not in (folder / f"threads-rank-{rank}.txt").read_text()
