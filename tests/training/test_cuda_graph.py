"""The CUDA-graph step on a machine without a GPU: recording stand-ins take the place of graphs and streams.

They run each line of `training/cuda_graph.py` once. What they cannot show, that replays compute what the eager steps
compute, is shown by tests/gpu on a GPU.
"""

from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from benchmarks.machine import machine
from benchmarks.training_loops import best_seconds
from tests.conftest import small_config
from training.batches import Batches
from training.cuda_graph import EAGER_STEPS, CudaGraphStep
from training.data import load_dataset
from training.distributed import Group
from training.state import State
from training.step import Step


class Stream:
    def wait_stream(self, other: "Stream") -> None:
        pass


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """Replaces CUDA's graphs and streams; returns the list of what was called."""
    made: list[str] = []

    class Graph:
        def replay(self) -> None:
            made.append("replay")

    @contextmanager
    def capturing(graph):
        made.append("capture")
        yield

    @contextmanager
    def on_stream(stream):
        made.append("eager")
        yield

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", on_stream)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", capturing)
    return made


@pytest.mark.parametrize("burn_in_steps", [0, 5])
def test_a_step_is_captured_after_its_eager_steps_and_the_burn_in(calls, tmp_path, burn_in_steps):
    """Adam's second moment is a number in the graph, so nothing is captured while it changes."""
    config = small_config(tmp_path, burn_in=burn_in_steps * 64, beta2_start=0.9 if burn_in_steps else None)
    data = load_dataset("uci-digits", Path())
    state = State(config, data.info)
    step, batches = CudaGraphStep(Step(state, config)), Batches(data, config, Group())
    for _ in range(8):
        batch = batches.at(state.images_seen)
        step.step.schedule(total_images=10_000)
        step(batch)
        state.images_seen += config.batch_size
    eager = max(EAGER_STEPS, burn_in_steps)
    assert calls == ["eager"] * eager + ["capture"] + ["replay"] * (8 - eager)
    assert all(torch.equal(step.inputs[name], batch[name]) for name in batch)


def test_benchmarks_wait_for_the_device_and_describe_it(monkeypatch):
    waits = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waits.append(1))
    assert best_seconds(lambda: None, "cuda", times=2) >= 0
    assert len(waits) == 3

    class Properties:
        total_memory = 80 * 2**30

    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: Properties)
    assert machine("cuda") | {"device": "a GPU", "memory": "80 GiB"} == machine("cuda")
