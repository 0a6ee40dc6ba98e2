"""Smaller and faster forms of an fp32 graph, with the same inputs and outputs, and the same last steps to the image."""

import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.transformers.float16 import convert_float_to_float16

from models import latents as addresses
from models.artifact import make_feeds
from models.card import Card, Precision

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
    with warnings.catch_warnings(action="ignore"):  # of weights so small that they become 0
        return convert_float_to_float16(model, keep_io_types=True, node_block_list=_after_pixels(model))


def _to_int8(model: ModelProto, card: Card) -> ModelProto:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "int8.onnx"
        quantize_static(
            model,
            file,
            _Calibration(card),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Gemm", "MatMul"],
            nodes_to_exclude=_after_pixels(model),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        converted = ModelProto.FromString(file.read_bytes())
    del converted.metadata_props[:]
    # It imports a domain of onnxruntime's own, and uses nothing of it.
    standard = [entry for entry in converted.opset_import if entry.domain in ("", "ai.onnx")]
    del converted.opset_import[:]
    converted.opset_import.extend(standard)
    return converted


def _after_pixels(model: ModelProto) -> list[str]:
    """Names of the nodes that turn float pixels into levels: in fewer bits they would lose some of the 256."""
    names, tensors = [], {"pixels"}
    for node in model.graph.node:
        if tensors & set(node.input):
            names.append(node.name)
            tensors |= set(node.output)
    return names


class _Calibration(CalibrationDataReader):
    def __init__(self, card: Card):
        latents, labels = addresses.draw(
            CALIBRATION_SEED, 0, CALIBRATION_IMAGES, card.latent_dim, (1,) * len(card.class_names)
        )
        self.batches: Iterator[dict[str, NDArray]] = (
            make_feeds(
                latents[i : i + CALIBRATION_BATCH], None if labels is None else labels[i : i + CALIBRATION_BATCH]
            )
            for i in range(0, CALIBRATION_IMAGES, CALIBRATION_BATCH)
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)
