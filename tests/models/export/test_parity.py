"""Plants one fault for each check of an export: the command reports that check and leaves no file."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import bentoml
import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, TensorProto, numpy_helper
from PIL import Image

from models.checkpoint import load_checkpoint, save_checkpoint
from models.export import exporter
from models.export.parity import ParityError, ParityMetric, ParityReport, batch_sizes, measure_parity
from models.networks import build_generator
from models.onnx_file.generator import Generator
from tests.conftest import small_run
from tests.training.data.examples import write_image
from training import export_onnx


def a_changed_weight(model: ModelProto) -> None:
    bias = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("output.bias"))
    values = numpy_helper.to_array(bias).copy()
    values[0] += 0.02
    bias.raw_data = values.tobytes()


def a_weight_that_is_not_a_number(model: ModelProto) -> None:
    bias = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("output.bias"))
    bias.raw_data = np.full(bias.dims, np.nan, np.float32).tobytes()


def swapped_classes(model: ModelProto) -> None:
    embedding = next(tensor for tensor in model.graph.initializer if "embedding" in tensor.name)
    rows = numpy_helper.to_array(embedding).copy()
    rows[[3, 7]] = rows[[7, 3]]
    embedding.raw_data = rows.tobytes()


def a_dropped_clamp(model: ModelProto) -> None:
    clip = next(node for node in model.graph.node if node.op_type == "Clip")
    cast = next(node for node in model.graph.node if node.output[0] == "image")
    cast.input[0] = clip.input[0]


def a_leak_of_fp16(model: ModelProto) -> None:
    nodes = [onnx.helper.make_node("Cast", ["tanh_"], ["half"], to=TensorProto.FLOAT16)]
    nodes += [onnx.helper.make_node("Cast", ["half"], ["tanh__"], to=TensorProto.FLOAT)]
    tanh = next(i for i, node in enumerate(model.graph.node) if node.op_type == "Tanh")
    name = model.graph.node[tanh].output[0]
    model.graph.node[tanh].output[0] = "tanh_"
    nodes[1].output[0] = name
    for node in reversed(nodes):
        model.graph.node.insert(tanh + 1, node)


def batch_norm_in_training_mode(model: ModelProto) -> None:
    node = next(node for node in model.graph.node if node.op_type == "BatchNormalization")
    del node.attribute[:]
    node.attribute.append(onnx.helper.make_attribute("training_mode", 1))


def a_lost_dynamic_axis(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2


def another_opset(model: ModelProto) -> None:
    model.opset_import[0].version = 21


def an_operator_of_onnxruntime(model: ModelProto) -> None:
    node = next(node for node in model.graph.node if node.op_type == "Tanh")
    node.op_type, node.domain = "Gelu", "com.microsoft"


def different_bytes_each_time(model: ModelProto) -> None:
    model.graph.name = f"traced {next(_counter)}"


_counter = iter(range(10**9))

FAULTS: list[tuple[Callable[[ModelProto], None], str]] = [
    (a_changed_weight, "mean error against float64: "),
    (a_weight_that_is_not_a_number, "pixels that are not finite: "),
    (swapped_classes, "classes drawn as another class: 2"),
    (a_dropped_clamp, "quantization: "),
    (a_leak_of_fp16, "precision: "),
    (batch_norm_in_training_mode, "inference mode: "),
    (a_lost_dynamic_axis, "inputs and outputs: "),
    (another_opset, "PyTorch exported opset [21] instead of the requested 20: "),
    (an_operator_of_onnxruntime, "operators: com.microsoft.Gelu "),
    (different_bytes_each_time, "bytes that differ in a second export: "),
]


@pytest.fixture
def run_of_dcgan(runs, tmp_path: Path) -> Path:
    """A run folder with a class-conditional generator that has batch norm."""
    checkpoint = load_checkpoint(runs["conditional"])
    network = build_generator(replace(checkpoint.generator, architecture="dcgan"))
    tensors = {f"generator.{name}": weight for name, weight in network.state_dict().items()}
    save_checkpoint(replace(checkpoint, tensors=tensors, generator=network.config), tmp_path / "dcgan")
    return tmp_path / "dcgan"


trace = exporter._trace
traced: dict[str, ModelProto] = {}
"""Traced graphs by network, to trace each network only once: tracing takes most of the time of an export."""


@pytest.mark.parametrize(("plant_fault", "message"), FAULTS, ids=[plant_fault.__name__ for plant_fault, _ in FAULTS])
def test_a_planted_fault_is_reported_by_its_check_and_leaves_no_file(
    runs, run_of_dcgan, tmp_path, monkeypatch, capsys, plant_fault, message
):
    def faulty(generator, *arguments):
        if (network := str(generator)) not in traced:
            traced[network] = trace(generator, *arguments)
        model = ModelProto()
        model.CopyFrom(traced[network])
        plant_fault(model)
        return model

    monkeypatch.setattr(exporter, "_trace", faulty)
    run = run_of_dcgan if plant_fault is batch_norm_in_training_mode else runs["conditional"]
    out, before = tmp_path / "a.onnx", [model.tag for model in bentoml.models.list()]
    monkeypatch.setattr(sys, "argv", ["export-onnx", str(run), f"--out={out}", f"--report={tmp_path / 'a.json'}"])
    with pytest.raises(SystemExit, match="1"):
        export_onnx.main()
    assert capsys.readouterr().err.startswith(f"export-onnx: {message}")
    assert [path.name for path in tmp_path.iterdir()] == ["dcgan"]
    assert [model.tag for model in bentoml.models.list()] == before


def test_an_image_that_depends_on_the_rest_of_its_batch_is_reported(runs, tmp_path, monkeypatch):
    """Adds the mean of the first latent of the batch to the pixels of each image."""
    trace = exporter._trace

    def faulty(*arguments):
        model = trace(*arguments)
        model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "zero"))
        first = onnx.helper.make_node("Gather", ["latent", "zero"], ["first"], axis=0, name="first")
        mean = onnx.helper.make_node("ReduceMean", ["first"], ["mean"], keepdims=1, name="mean")
        pixels = next(node for node in model.graph.node if node.op_type == "Round")
        model.graph.initializer.append(numpy_helper.from_array(np.float32(10), "ten"))
        by_ten = onnx.helper.make_node("Mul", ["mean", "ten"], ["shift_"], name="by_ten")
        shape = numpy_helper.from_array(np.array([1, 1, 1, 1]), "ones")
        model.graph.initializer.append(shape)
        reshape = onnx.helper.make_node("Reshape", ["shift_", "ones"], ["shift"], name="reshape_shift")
        add = onnx.helper.make_node("Add", [pixels.input[0], "shift"], ["shifted"], name="add_shift")
        at = list(model.graph.node).index(pixels)
        for node in (add, reshape, by_ten, mean, first):
            model.graph.node.insert(at, node)
        model.graph.node[at + 5].input[0] = "shifted"
        return model

    monkeypatch.setattr(exporter, "_trace", faulty)
    with pytest.raises(ParityError, match="in levels against float64"):
        exporter.export(load_checkpoint(runs["unconditional"]))


def test_measuring_parity_changes_neither_the_dtype_nor_the_mode_of_the_module(runs):
    checkpoint = load_checkpoint(runs["conditional"])
    debug_graph = exporter.export(checkpoint).debug_graph.SerializeToString()
    for training in (True, False):
        generator = checkpoint.build().train(training)
        before = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
        assert all(metric.passes for metric in measure_parity(generator, debug_graph))
        assert generator.training == training
        after = generator.state_dict()
        assert all(
            after[name].dtype == tensor.dtype and torch.equal(after[name], tensor) for name, tensor in before.items()
        )


def test_images_at_the_edge_between_two_levels_may_differ_as_much_as_those_of_pytorch_in_float32(runs):
    """Scales the pixels to about 1e-8, which float32 rounds to 0 when it adds 1, and float64 does not."""
    checkpoint = load_checkpoint(runs["unconditional"])
    faint = {name: tensor * 1e-8 for name, tensor in checkpoint.tensors.items() if ".output." in name}
    exported = exporter.export(replace(checkpoint, tensors=checkpoint.tensors | faint))
    pixels_off = next(m for m in exported.parity.metrics if m.name == "pixels that differ from float64")
    assert pixels_off.passes
    assert pixels_off.value > 1_000


@pytest.mark.parametrize("rows", [1, 5, 256])
def test_every_batch_size_that_a_generator_runs_and_larger_ones_are_compared(rows):
    sizes = batch_sizes(rows)
    assert {*range(1, rows + 1)} < {*sizes}
    assert sum(size > rows for size in sizes) == 3


@pytest.mark.slow
def test_large_images_are_compared_and_stored_in_smaller_numbers(tmp_path):
    for index in range(2):
        write_image(tmp_path / "images" / "reds" / f"{index}.png", Image.new("RGB", (256, 256), "red"))
    small_run(
        tmp_path / "run",
        dataset="folder",
        data_dir=tmp_path / "images",
        batch_size=2,
        images=2,
        sample_images=1,
        generator_widths=(4,),
        discriminator_widths=(4,),
    )
    generator = exporter.export(load_checkpoint(tmp_path / "run")).generator
    assert generator.card.image_shape == (3, 256, 256)
    assert generator.card.golden.n == 1
    assert 1 < generator.rows_per_run < 16
    assert generator.golden_comparison.pixels == 3 * 256 * 256
    images, _ = generator.images(seed=0, first=0, n=2 * generator.rows_per_run + 1)
    assert len(images) == 2 * generator.rows_per_run + 1


@pytest.mark.parametrize("value", [1.1, float("nan"), float("inf")])
def test_the_first_metric_beyond_its_bound_is_reported(value):
    good = ParityMetric("good", 1.0, 1.0)
    ParityReport((), (good,)).check()
    with pytest.raises(ParityError, match=r"^bad: .*, at most 1 allowed"):
        ParityReport((), (good, ParityMetric("bad", value, 1.0), ParityMetric("worse", 9.0, 1.0))).check()


def test_the_card_contains_every_metric_with_its_bound(files):
    parity = Generator.open(files["conditional"]).card.parity
    assert json.loads(json.dumps(parity)) == parity
    assert {"inputs and outputs", "operators", "onnx.checker"} < set(parity["graph"])
    assert parity["metrics"]["pixels that differ in a batch and alone"]["value"] == 0
    for metric in parity["metrics"].values():
        assert metric["value"] <= metric["bound"]
