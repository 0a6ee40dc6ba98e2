"""Cost of a generator: size, parameters, multiply-adds and speed, measured on its model file."""

import math
import statistics
import time
from dataclasses import dataclass

import onnx

from models.onnx_file.generator import Generator
from models.onnx_file.latents import draw_latents

ROUNDS = 5
"""Number of speed measurements, of which the median is reported."""
ROUND_SECONDS = 0.4
"""Minimum duration of one speed measurement, in seconds."""


@dataclass(frozen=True)
class Cost:
    """Cost of generating images with a model file."""

    bytes: int
    """Size of the model file."""
    parameters: int
    """Number of weights, without constants of the graph such as scales and shapes."""
    multiply_adds: int
    """Number of multiply-adds per image in matrix products and convolutions."""
    images_per_second: float
    """Speed in onnxruntime on one CPU thread with batches of 256 images, fewer where images are large: the median of 5
    measurements."""


def measure_cost(generator: Generator) -> Cost:
    """Counts the operations in the graph of a model file, and times it for about two seconds."""
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(generator.file), data_prop=True)
    # Not weights: scalars (constants of the conversion to pixels), int64 tensors (shapes), scales and zero points.
    quantizers = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    scales = {name for node in quantizers for name in node.input[1:]}
    weights = [
        tensor
        for tensor in model.graph.initializer
        if tensor.dims and tensor.data_type != onnx.TensorProto.INT64 and tensor.name not in scales
    ]
    return Cost(
        len(generator.file),
        sum(math.prod(tensor.dims) for tensor in weights),
        _multiply_adds(model.graph),
        _images_per_second(generator),
    )


def _multiply_adds(graph: onnx.GraphProto) -> int:
    """Multiply-adds of a graph with inferred shapes, for a batch of 1: the batch is the only symbolic dimension."""
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shapes[value.name] = [d.dim_value or 1 for d in value.type.tensor_type.shape.dim]
    total = 0
    for node in graph.node:
        if node.op_type == "Conv":  # Each output value sums over one kernel.
            total += math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])
        elif node.op_type == "ConvTranspose":  # Each input value contributes through one kernel.
            total += math.prod(shapes[node.input[0]]) * math.prod(shapes[node.input[1]][1:])
        elif node.op_type in ("Gemm", "MatMul"):
            transposed = any(a.name == "transA" and a.i for a in node.attribute)
            total += math.prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if transposed else -1]
    return total


def _images_per_second(generator: Generator) -> float:
    card = generator.card
    rows = generator.rows_per_run
    latents, labels = draw_latents(0, 0, rows, card.latent_dim, card.class_weights)
    generator.decode(latents, labels)  # The first run allocates memory.
    rates = []
    for _ in range(ROUNDS):
        images, started = 0, time.perf_counter()
        while (seconds := time.perf_counter() - started) < ROUND_SECONDS:
            generator.decode(latents, labels)
            images += rows
        rates.append(images / seconds)
    return statistics.median(rates)
