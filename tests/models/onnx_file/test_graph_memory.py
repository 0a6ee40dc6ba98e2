"""The computed memory of a graph is an upper bound of the memory that onnxruntime takes."""

import subprocess
import sys

import numpy as np
import pytest

from models.onnx_file.graph_memory import measure_memory
from tests.models.onnx_file.graph_draft import LATENT, Draft, image, new_draft, with_all_outputs


def cropped(graph: Draft) -> None:
    kernel = graph.weight(np.ones((1, 1, 128, 128), np.float32))
    graph.append("ConvTranspose", [image(graph, 1, 64, 64), kernel], "cropped", pads=[75] * 4)


def padded_channels(graph: Draft) -> None:
    kernel = graph.weight(np.ones((1, 1, 3, 3), np.float32))
    convolved = graph.append("Conv", [image(graph, 1, 256, 256), kernel], "convolved", pads=[1] * 4)
    scales = graph.weight(np.array([1, 1, 4, 4], np.float32))
    attributes = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    graph.append("Resize", [convolved, "", scales], "resized", **attributes)


def long_rows(graph: Draft) -> None:
    image(graph, 1, 2**22)


def stacked_matrices(graph: Draft) -> None:
    rows, columns = image(graph, 2**19, 1, 4), graph.weight(np.ones((2**19, 4, 1), np.float32))
    graph.append("MatMul", [rows, columns], "product")


def folded_constants(graph: Draft) -> None:
    name = graph.weight(np.ones(2**12, np.int64))
    for step in range(10):
        name = graph.append("Concat", [name, name], f"constant{step}", axis=0)
    graph.append(
        "Add", ["label", graph.append("Slice", [name, *map(graph.integers, ([0], [1], [0]))], "one")], "shifted"
    )


def reductions(graph: Draft) -> None:
    large = image(graph, 64, 64, 64)
    for operator, axes in (("ReduceSum", [2]), ("ReduceMean", [1]), ("ReduceL2", [1, 3]), ("ReduceMax", [3])):
        graph.append(operator, [large, graph.integers(axes)], operator, keepdims=1)


def normalizations(graph: Draft) -> None:
    large = image(graph, 32, 128, 64)
    ones = {size: graph.weight(np.ones(size, np.float32)) for size in (32, 64)}
    graph.append("Softmax", [large], "over_channels", axis=1)
    graph.append("LayerNormalization", [large, ones[64]], "over_columns", axis=-1)
    graph.append("InstanceNormalization", [large, ones[32], ones[32]], "over_pixels")


def elementwise(graph: Draft) -> None:
    large = image(graph, 32, 64, 64)
    for operator in ("Gelu", "Erf", "HardSwish", "Selu", "Softplus", "Sigmoid"):
        graph.append(operator, [large], operator)
    graph.append("Max", [large, "Erf", "Gelu"], "largest")
    graph.append("Where", [graph.append("Greater", [large, "Gelu"], "greater"), large, "Gelu"], "selected")


def enlarged_linearly(graph: Draft) -> None:
    scales = graph.weight(np.array([1, 1, 512, 4], np.float32))
    graph.append("Resize", [image(graph, 1, 4, 512), "", scales], "large", mode="linear")


@pytest.mark.slow
@pytest.mark.parametrize(
    "add",
    [
        cropped, padded_channels, long_rows, stacked_matrices, folded_constants, reductions, normalizations,
        elementwise, enlarged_linearly,
    ],
)  # fmt: skip
def test_onnxruntime_takes_no_more_memory_than_was_computed(add, tmp_path):
    """The graph runs in another process, of which the system reports the largest resident memory."""
    graph = new_draft()
    add(graph)
    model = graph.finish()
    computed = measure_memory(model)
    computed.rows(1)
    (tmp_path / "graph.onnx").write_bytes(with_all_outputs(model))
    code = f"""
import resource
import numpy as np
from models.onnx_file.session import open_session
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
before = peak()
session = open_session(open({str(tmp_path / "graph.onnx")!r}, "rb").read())
feeds = {{"latent": np.ones((2, {LATENT}), np.float32), "label": np.zeros(2, np.int64)}}
session.run(None, {{value.name: feeds[value.name] for value in session.get_inputs()}})
print(peak() - before)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    taken, allowed = int(run.stdout), 8 * (computed.fixed + 2 * computed.row) + (64 << 20)
    assert taken <= allowed, f"{taken >> 20:,} MiB, computed were {allowed >> 20:,}"
