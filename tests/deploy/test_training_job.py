"""The command of the Kubernetes training Job with two CPU processes: started, killed, resumed and started again."""

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
    """Starts the command of the Job's pod, with options for a small network and a small data set."""
    (container,) = yaml.safe_load(JOB.read_text())["spec"]["template"]["spec"]["containers"]
    assert container["args"], "the Job passes the options of the run as args"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "RUN": str(run), "PET_NPROC_PER_NODE": "2"}
    command = [*container["command"], *OPTIONS]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(run: Path) -> str:
    """Runs the command to its end and returns its output."""
    pod = start(run)
    output, _ = pod.communicate(timeout=300)
    assert pod.returncode == 0, output
    return output


def wait_for_an_epoch(run: Path, pod: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not ((run / "metrics.jsonl").exists() and (run / "metrics.jsonl").read_text().count("\n") >= 2):
        assert pod.poll() is None, pod.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def kill(pod: subprocess.Popen) -> None:
    """Kills all processes of the pod, like a node failure."""
    for process in [psutil.Process(pod.pid), *psutil.Process(pod.pid).children(recursive=True)]:
        process.kill()
    pod.communicate(timeout=30)


def evict(pod: subprocess.Popen) -> None:
    """Sends SIGTERM to the first process of the container, like an eviction."""
    pod.terminate()
    output, _ = pod.communicate(timeout=60)
    assert "SIGTERM: saved" in output
    assert pod.returncode != 0, "Kubernetes would regard the Job as finished"


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> dict[str, torch.Tensor]:
    """Checkpoint tensors of a run that was never interrupted."""
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert "2 processes" in finish(run)
    return load_checkpoint(run).tensors


@pytest.mark.parametrize("end", [kill, evict])
def test_a_new_pod_finishes_an_interrupted_run_with_identical_tensors(uninterrupted, tmp_path, end):
    run = tmp_path / "run"
    pod = start(run)
    wait_for_an_epoch(run, pod)
    end(pod)
    assert "resuming after" in finish(run)
    tensors = load_checkpoint(run).tensors
    assert [name for name, tensor in uninterrupted.items() if not torch.equal(tensor, tensors[name])] == []
    assert "the run is already complete" in finish(run)
