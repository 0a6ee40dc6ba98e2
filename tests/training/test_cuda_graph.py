"""Runs the CUDA graph step on a machine without a GPU, with fakes that record the use of graphs and streams.

tests/gpu checks on a GPU that replays compute the same as eager steps.
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


class FakeStream:
    def wait_stream(self, other: "FakeStream") -> None:
        pass


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """Replaces CUDA graphs and streams by fakes. Returns the list into which they write their calls."""
    recorded: list[str] = []

    class FakeGraph:
        def replay(self) -> None:
            recorded.append("replay")

    @contextmanager
    def capture(graph):
        recorded.append("capture")
        yield

    @contextmanager
    def use_stream(stream):
        recorded.append("eager")
        yield

    monkeypatch.setattr(torch.cuda, "Stream", FakeStream)
    monkeypatch.setattr(torch.cuda, "current_stream", FakeStream)
    monkeypatch.setattr(torch.cuda, "stream", use_stream)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    return recorded


@pytest.mark.parametrize("burn_in_steps", [0, 5])
def test_a_step_is_captured_after_the_eager_steps_and_the_burn_in(calls, tmp_path, burn_in_steps):
    """Adam's beta2 is a constant in the graph, so the step is not captured while beta2 changes."""
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
    assert all(map(torch.equal, step.inputs.tensors(), batch.tensors()))


def test_benchmarks_wait_for_the_device_and_describe_it(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: calls.append(1))
    assert best_seconds(lambda: None, "cuda", times=2) >= 0
    assert len(calls) == 3

    class FakeProperties:
        total_memory = 80 * 2**30

    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: FakeProperties)
    assert machine("cuda") | {"device": "a GPU", "memory": "80 GiB"} == machine("cuda")
