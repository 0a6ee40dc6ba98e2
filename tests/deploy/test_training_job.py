"""The training Job's own command, on two processes of the CPU: begun, killed, gone on with, asked once more."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
import yaml

from models.checkpoint import load_checkpoint

JOB = Path(__file__).parents[2] / "deploy/kubernetes/training/job.yaml"
OPTIONS = ["--dataset=uci-digits", "--device=cpu", "--epochs=12", "--batch-size=64", "--ema-half-life=500"]
OPTIONS += ["--generator-widths=16", "--discriminator-widths=16"]

pytestmark = pytest.mark.slow


def start(run: Path) -> subprocess.Popen:
    """What a pod runs, with other options and where the images are few."""
    (container,) = yaml.safe_load(JOB.read_text())["spec"]["template"]["spec"]["containers"]
    assert container["args"], "the options of the run"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "RUN": str(run), "PET_NPROC_PER_NODE": "2"}
    command = [*container["command"], *OPTIONS]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(run: Path) -> str:
    pod = start(run)
    told, _ = pod.communicate(timeout=300)
    assert pod.returncode == 0, told
    return told


def wait_for_an_epoch(run: Path, pod: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not ((run / "metrics.jsonl").exists() and (run / "metrics.jsonl").read_text().count("\n") >= 2):
        assert pod.poll() is None, pod.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def kill(pod: subprocess.Popen) -> None:
    """As a node that fails takes all the processes of a pod with it."""
    for process in [psutil.Process(pod.pid), *psutil.Process(pod.pid).children(recursive=True)]:
        process.kill()
    pod.communicate(timeout=30)


def evict(pod: subprocess.Popen) -> None:
    """SIGTERM to the container's first process."""
    pod.terminate()
    told, _ = pod.communicate(timeout=60)
    assert "SIGTERM: saved" in told
    assert pod.returncode != 0, "the Job would take it for finished"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, torch.Tensor]:
    run = tmp_path_factory.mktemp("whole") / "run"
    assert "2 processes" in finish(run)
    return load_checkpoint(run).tensors


@pytest.mark.parametrize("end", [kill, evict])
def test_a_run_whose_pod_goes_is_finished_by_the_next_to_the_same_bits(whole, tmp_path, end):
    run = tmp_path / "run"
    pod = start(run)
    wait_for_an_epoch(run, pod)
    end(pod)
    assert "resuming after" in finish(run)
    tensors = load_checkpoint(run).tensors
    assert [name for name, tensor in whole.items() if not torch.equal(tensor, tensors[name])] == []
    assert "the run is already complete" in finish(run)
