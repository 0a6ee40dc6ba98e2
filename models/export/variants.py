"""Converts an fp32 graph to fp16 or int8. Inputs, outputs, and the last steps from pixels to image stay the same."""

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
from models.onnx_file.graph_memory import measure_memory
from models.onnx_file.latents import draw_latents
from models.onnx_file.session import make_feeds, split

CALIBRATION_SEED = 2
"""Seed of the latents that the ranges of int8 are calibrated on; golden images have 0, the parity check 1."""
CALIBRATION_IMAGES = 1024
CALIBRATION_BATCH = 64
"""Number of rows that the calibration runs at a time. Both numbers are less where images are large."""


def convert(model: ModelProto, card: Card, precision: Precision) -> ModelProto:
    """Converts the precision of a graph.

    - fp16 converts all weights and activations. It is meant for GPUs, since few CPUs compute in fp16.
    - int8 quantizes weights and activations of matrix products and convolutions (static quantization, QDQ format), with
      ranges calibrated on 1,024 random latents. Transposed convolutions stay in float32.

    Args:
        model: float32 graph with the inputs of a model file and the outputs `image` (uint8) and `pixels` (float32). It
            is not changed.
        card: latent size and classes for the calibration of int8.
        precision: "fp32" returns `model` itself.

    Returns:
        A graph with the same inputs and outputs, of the same types. The nodes from `pixels` to `image` stay in float32,
        because fewer bits would lose some of the 256 levels.
    """
    if precision == "fp32":
        return model
    return _to_fp16(model) if precision == "fp16" else _to_int8(model, card)


def _to_fp16(model: ModelProto) -> ModelProto:
    """Converts the nodes that lead to `pixels`, and appends the later nodes unchanged."""
    rest = _nodes_after_pixels(model)
    inputs = [value.name for value in model.graph.input]
    converted = Extractor(model).extract_model(inputs, ["pixels"])
    with warnings.catch_warnings(action="ignore"):  # it warns of weights that are so small that they become 0
        converted = convert_float_to_float16(converted, keep_io_types=True)
    known = {tensor.name for tensor in converted.graph.initializer}
    needed = {name for node in rest for name in node.input} - known
    converted.graph.node.extend(rest)
    converted.graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in needed)
    del converted.graph.output[:]
    converted.graph.output.extend(model.graph.output)
    ordered = onnx_ir.from_proto(converted)
    TopologicalSortPass()(ordered)  # the converter puts its casts after the nodes that need them
    return onnx_ir.to_proto(ordered)


def _to_int8(model: ModelProto, card: Card) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(model)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "int8.onnx"
        with logging_disabled():  # it advises to fold constants first, which PyTorch's exporter has already done
            quantize_static(
                copy,  # it moves the weights of its argument to a file
                file,
                _Calibration(card, measure_memory(model).rows(CALIBRATION_BATCH)),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["Conv", "Gemm", "MatMul"],
                nodes_to_exclude=[node.name for node in _nodes_after_pixels(model)],
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
            )
        converted = ModelProto.FromString(file.read_bytes())
    for tensor in converted.graph.initializer:  # `models.onnx_file.graph_checks` requires raw bytes
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    # onnxruntime adds an import of its own operator domain, but no operator of it.
    standard = [entry for entry in converted.opset_import if entry.domain in ("", "ai.onnx")]
    del converted.opset_import[:]
    converted.opset_import.extend(standard)
    return converted


@contextmanager
def logging_disabled() -> Iterator[None]:
    """Suppresses log lines of libraries on stderr."""
    logging.disable()
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _nodes_after_pixels(model: ModelProto) -> list[NodeProto]:
    """Lists the nodes that depend on `pixels`: they quantize it to the image."""
    nodes, tensors = [], {"pixels"}
    for node in model.graph.node:
        if tensors & set(node.input):
            nodes.append(node)
            tensors |= set(node.output)
    return nodes


class _Calibration(CalibrationDataReader):
    """Feeds random latents, with all classes equally frequent, to onnxruntime's calibration."""

    def __init__(self, card: Card, rows: int):
        """Takes the number of rows to run at a time, from 1 to `CALIBRATION_BATCH`."""
        every_class = (1,) * len(card.class_names)
        images = CALIBRATION_IMAGES * rows // CALIBRATION_BATCH
        feeds = make_feeds(*draw_latents(CALIBRATION_SEED, 0, images, card.latent_dim, every_class))
        self.batches = split(feeds, rows)

    def get_next(self) -> dict[str, NDArray] | None:
        """Returns the next inputs by name, or None after the last."""
        return next(self.batches, None)
