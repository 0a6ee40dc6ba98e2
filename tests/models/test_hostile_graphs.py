"""No graph that passes the checks takes more memory than was computed before it was opened."""

import random
from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from models import sizes
from models.artifact import Generator, open_session
from models.errors import GraphError, ModelFileError
from models.shapes import BATCH
from models.sizes import measure
from tests.models.hostile_graphs import LATENT, card, hostile_graph, sealed

CARD = card()


def try_graph(seed: int) -> tuple[str, float]:
    """Opens the file of a random graph and runs it with all of its tensors as outputs.

    Returns:
        What became of the file, and the elements of its tensors as a share of those computed.
    """
    model = hostile_graph(random.Random(seed))
    try:
        Generator.from_bytes(sealed(model, CARD))
    except GraphError:
        return "rejected", 0.0
    except ModelFileError as error:
        if not str(error).startswith(("onnxruntime", "golden images")):
            raise
        outcome = "refused by onnxruntime"
    else:
        outcome = "opened"
    computed = measure(model)
    share = 0.0
    try:
        session = open_session(_with_all_outputs(model))
    except ModelFileError:
        return outcome, share
    for rows in (1, 2, 3, 7):
        feeds = {"latent": np.ones((rows, LATENT), np.float32), "label": np.arange(rows) % 10}
        try:
            tensors = dict(zip((o.name for o in session.get_outputs()), session.run(None, feeds), strict=True))
        except Exception:  # onnxruntime's own exceptions share no base class but this
            continue
        for name, tensor in tensors.items():
            expected = tuple(rows if size == BATCH else size for size in computed.shapes[name])
            assert tensor.shape == expected, f"seed {seed}: {name} has {tensor.shape} at {rows} rows"
        share = max(share, sum(map(np.size, tensors.values())) / (computed.fixed + rows * computed.row))
    return outcome, share


def _with_all_outputs(model: ModelProto) -> bytes:
    copy = ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    names = [name for node in model.graph.node for name in node.output]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return copy.SerializeToString()


def try_graphs(seeds: range) -> str:
    """A line that reports what became of the graphs of those seeds."""
    outcomes, worst = Counter(), 0.0
    for seed in seeds:
        outcome, share = try_graph(seed)
        outcomes[outcome] += 1
        worst = max(worst, share)
    counted = ", ".join(f"{n:,} {outcome}" for outcome, n in sorted(outcomes.items()))
    assert outcomes["opened"] > len(seeds) / 10
    assert outcomes["rejected"] > len(seeds) / 10
    assert worst <= 1
    return f"{len(seeds):,} hostile graphs: {counted}; at most {worst:.3f} of the computed elements"


@pytest.fixture
def small_limits(monkeypatch):
    """Limits at which a test with many graphs takes seconds."""
    monkeypatch.setattr(sizes, "MAX_ELEMENTS", 2**17)
    monkeypatch.setattr(sizes, "MAX_RUN_ELEMENTS", 2**21)


def test_no_random_graph_that_is_accepted_exceeds_the_computed_size(small_limits, capsys):
    line = try_graphs(range(300))
    with capsys.disabled():
        print(f"\n{line}")


@pytest.mark.slow
def test_none_of_thousands_of_random_graphs_that_are_accepted_exceeds_the_computed_size(small_limits, capsys):
    line = try_graphs(range(1_000, 6_000))
    with capsys.disabled():
        print(f"\n{line}")
