"""The price of a generator, read from its model file: quality is to be read beside it."""

import math
import statistics
import time
from dataclasses import dataclass

import onnx

from models.onnx_file.generator import Generator
from models.onnx_file.latents import draw_latents
from models.onnx_file.session import MAX_ROWS_PER_RUN

ROUNDS = 5
ROUND_SECONDS = 0.4


@dataclass(frozen=True)
class Cost:
    bytes: int
    parameters: int
    multiply_adds: int
    """Of an image, in the matrix products and convolutions."""
    images_per_second: float
    """Through onnxruntime, on one CPU thread, 256 at a time: the median of 5 rounds."""


def measure_cost(generator: Generator) -> Cost:
    """Counts in the model file, and times it."""
    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(generator.file), data_prop=True)
    # Not the numbers of the quantisation to pixels, which are scalars, nor scales and zero points, nor shapes.
    quantisers = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    scales = {name for node in quantisers for name in node.input[1:]}
    weights = [
        tensor
        for tensor in model.graph.initializer
        if tensor.dims and tensor.data_type != onnx.TensorProto.INT64 and tensor.name not in scales
    ]
    return Cost(
        len(generator.file),
        sum(math.prod(tensor.dims) for tensor in weights),
        _multiply_adds(model.graph),
        _speed(generator),
    )


def _multiply_adds(graph: onnx.GraphProto) -> int:
    """A batch of 1: what has no number in the shapes is the batch."""
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shapes[value.name] = [d.dim_value or 1 for d in value.type.tensor_type.shape.dim]
    total = 0
    for node in graph.node:
        if node.op_type == "Conv":  # each output is made of a kernel's worth of inputs
            total += math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])
        elif node.op_type == "ConvTranspose":  # and here each input makes a kernel's worth of outputs
            total += math.prod(shapes[node.input[0]]) * math.prod(shapes[node.input[1]][1:])
        elif node.op_type in ("Gemm", "MatMul"):
            transposed = any(a.name == "transA" and a.i for a in node.attribute)
            total += math.prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if transposed else -1]
    return total


def _speed(generator: Generator) -> float:
    card = generator.card
    latents, labels = draw_latents(0, 0, MAX_ROWS_PER_RUN, card.latent_dim, card.class_weights)
    generator.decode(latents, labels)
    rates = []
    for _ in range(ROUNDS):
        images, started = 0, time.perf_counter()
        while (seconds := time.perf_counter() - started) < ROUND_SECONDS:
            generator.decode(latents, labels)
            images += MAX_ROWS_PER_RUN
        rates.append(images / seconds)
    return statistics.median(rates)
