"""Smaller and faster forms of an fp32 graph, with the same inputs and outputs, and the same last steps to the image."""

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx_ir
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, numpy_helper
from onnx.utils import Extractor
from onnx_ir.passes.common import TopologicalSortPass
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.transformers.float16 import convert_float_to_float16

from models.onnx_file.card import Card, Precision
from models.onnx_file.latents import draw_latents
from models.onnx_file.session import make_feeds, split

CALIBRATION_SEED = 2
CALIBRATION_IMAGES = 1024
CALIBRATION_BATCH = 64


def convert(model: ModelProto, card: Card, precision: Precision) -> ModelProto:
    """Converts a graph of float32 that yields `image` and `pixels`.

    fp16: all weights and activations; for GPUs, since few processors compute in it.
    int8: weights and activations of matrix products and convolutions by static quantisation (QDQ), which leaves
    transposed convolutions as they are. Calibrated on addressed latents.
    """
    if precision == "fp32":
        return model
    return _to_fp16(model) if precision == "fp16" else _to_int8(model, card)


def _to_fp16(model: ModelProto) -> ModelProto:
    """Converts what comes before `pixels`, and leaves what comes after it."""
    rest = _after_pixels(model)
    inputs = [value.name for value in model.graph.input]
    converted = Extractor(model).extract_model(inputs, ["pixels"])
    with warnings.catch_warnings(action="ignore"):  # of weights so small that they become 0
        converted = convert_float_to_float16(converted, keep_io_types=True)
    known = {tensor.name for tensor in converted.graph.initializer}
    needed = {name for node in rest for name in node.input} - known
    converted.graph.node.extend(rest)
    converted.graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in needed)
    del converted.graph.output[:]
    converted.graph.output.extend(model.graph.output)
    ordered = onnx_ir.from_proto(converted)
    TopologicalSortPass()(ordered)  # the converter puts its casts behind the nodes that need them
    return onnx_ir.to_proto(ordered)


def _to_int8(model: ModelProto, card: Card) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(model)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "int8.onnx"
        with _quiet():
            quantize_static(
                copy,  # from which it moves the weights to a file
                file,
                _Calibration(card),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["Conv", "Gemm", "MatMul"],
                nodes_to_exclude=[node.name for node in _after_pixels(model)],
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
            )
        converted = ModelProto.FromString(file.read_bytes())
    for tensor in converted.graph.initializer:  # as raw bytes, which is how `models.onnx_file.graph_checks` wants them
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    # It imports a domain of onnxruntime's own, and uses nothing of it.
    standard = [entry for entry in converted.opset_import if entry.domain in ("", "ai.onnx")]
    del converted.opset_import[:]
    converted.opset_import.extend(standard)
    return converted


@contextmanager
def _quiet() -> Iterator[None]:
    """onnxruntime advises a pre-processing that would fold what is folded already."""
    logging.disable()
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _after_pixels(model: ModelProto) -> list[NodeProto]:
    """The nodes that turn float pixels into levels: in fewer bits they would lose some of the 256."""
    nodes, tensors = [], {"pixels"}
    for node in model.graph.node:
        if tensors & set(node.input):
            nodes.append(node)
            tensors |= set(node.output)
    return nodes


class _Calibration(CalibrationDataReader):
    def __init__(self, card: Card):
        every_class = (1,) * len(card.class_names)
        feeds = make_feeds(*draw_latents(CALIBRATION_SEED, 0, CALIBRATION_IMAGES, card.latent_dim, every_class))
        self.batches = split(feeds, CALIBRATION_BATCH)

    def get_next(self) -> dict[str, NDArray] | None:
        return next(self.batches, None)
