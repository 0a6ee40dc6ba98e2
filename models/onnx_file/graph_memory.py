"""Computes the memory of a graph from the shapes of its tensors, before onnxruntime loads it.

Memory is counted in elements, which take 4 bytes in most tensors and at most 8.
"""

from dataclasses import dataclass

from onnx import ModelProto, NodeProto

from models.common.errors import GraphError
from models.onnx_file.shape_inference import BATCH, Shape, attribute, elements, infer_shapes

MAX_NODES = 4096
"""Maximum number of operators of a graph."""
MAX_ELEMENTS = 2**24
"""Maximum total number of elements of the tensors that a graph computes for one image."""
MAX_RUN_ELEMENTS = 2**28
"""Maximum memory of one run for all of its rows, with working memory, in elements: 1 GiB in float32."""
PREFERRED_RUN_ELEMENTS = 2**26
"""Memory of a run that further rows do not exceed, in elements: 256 MiB in float32. Each thread of the service has a
run of its own, and larger batches of large images are not faster."""

CHANNEL_BLOCK = 16
"""onnxruntime pads the channels of an image to a multiple of this number on processors with AVX-512, and to a smaller
multiple on other processors."""
_MATRIX_ELEMENTS = 32
"""Working memory of MatMul for each matrix of a stack, for offsets and the like, in elements."""
_RESIZE_ARRAYS = {b"nearest": 2, b"linear": 16}
"""Working memory of Resize for each position along each axis, by mode, in elements: positions in the input and, if
linear, weights."""
_COPIES = {
    "Gelu": 1,
    "LayerNormalization": 3,  # if it computes in float32 what is stored in fp16
    "Max": 2,
    "Min": 2,
    "ReduceL2": 4,  # positions of the elements as 8 bytes, and a transposed copy
    "ReduceMax": 4,
    "ReduceMean": 4,
    "ReduceSum": 4,
    "Softmax": 2,  # a transposed copy of the input and of the output
    "Where": 2,  # the two selections before they are merged
}
"""Number of buffers of the size of the largest input or output that an operator may allocate."""


@dataclass(frozen=True)
class GraphMemory:
    """Memory that a graph takes, in elements."""

    shapes: dict[str, Shape]
    """Shape of each tensor by name."""
    operators: int
    """Number of operators."""
    elements: int
    """Number of elements of all tensors that are computed for one image, without working memory."""
    row: int
    """Memory of a run for each of its rows, with working memory."""
    fixed: int
    """Memory of a run that does not depend on its number of rows: tensors without a batch dimension, and buffers for
    one row."""

    def rows(self, maximum: int) -> int:
        """Returns the largest number of rows, from 1 to `maximum`, whose run stays within `PREFERRED_RUN_ELEMENTS`.

        It is 1 if a single row exceeds that.

        Raises:
            GraphError: one image takes more than `MAX_ELEMENTS`, or a run of one row more than `MAX_RUN_ELEMENTS`.
        """
        if self.elements > MAX_ELEMENTS:
            raise GraphError(
                f"it computes {self.elements:,} elements for one image, at most {MAX_ELEMENTS:,} are allowed"
            )
        if self.fixed + self.row > MAX_RUN_ELEMENTS:
            raise GraphError(
                f"a run of one row takes memory for {self.fixed + self.row:,} elements, at most {MAX_RUN_ELEMENTS:,} "
                "are allowed"
            )
        limit = min(PREFERRED_RUN_ELEMENTS, MAX_RUN_ELEMENTS)
        return max(1, min(maximum, (limit - self.fixed) // max(self.row, 1)))


def measure_memory(model: ModelProto) -> GraphMemory:
    """Adds up the sizes of a graph's tensors and the working memory of its operators.

    Raises:
        GraphError: the graph has more than `MAX_NODES` operators, or the shape of a tensor cannot be inferred or is not
            allowed (see `infer_shapes`).
    """
    operators = len(model.graph.node)
    if operators > MAX_NODES:
        raise GraphError(f"it has {operators:,} operators, at most {MAX_NODES:,} are allowed")
    shapes = infer_shapes(model, MAX_ELEMENTS)
    total, row, fixed = 0, 0, 0
    for node in model.graph.node:
        for name in filter(None, node.output):
            total += elements(shapes[name])
        for shape in (*(_padded(shapes[name]) for name in node.output if name), *_working_memory(node, shapes)):
            if shape[:1] == (BATCH,):
                row += elements(shape)
            else:
                fixed += elements(shape)
    return GraphMemory(shapes, operators, total, row, fixed)


def _padded(image: Shape) -> Shape:
    """Returns the shape in onnxruntime's layout for convolutions, which the operators around them use too."""
    return (image[0], round_up(image[1]), *image[2:]) if len(image) == 4 else image


def round_up(channels: int | str) -> int:
    """Returns the number of channels that onnxruntime allocates: the next multiple of `CHANNEL_BLOCK`."""
    assert isinstance(channels, int)
    return -(-channels // CHANNEL_BLOCK) * CHANNEL_BLOCK


def _working_memory(node: NodeProto, shapes: dict[str, Shape]) -> list[Shape]:
    """Returns shapes of the buffers that onnxruntime's CPU kernel of an operator allocates, without its outputs."""
    output = shapes[node.output[0]]
    if node.op_type in ("Conv", "ConvTranspose"):
        image, kernel = shapes[node.input[0]], shapes[node.input[1]]
        if BATCH in kernel:
            raise GraphError(f"{node.op_type} takes its kernel from a tensor with a batch dimension")
        # im2col buffer of one image: one value for each kernel element at each position, including padded positions.
        columns = (elements(kernel[1:]), elements((output if node.op_type == "Conv" else image)[2:]))
        reordered = (_padded(image), _padded(output), tuple(map(round_up, kernel[:2])) + kernel[2:])
        return [columns, *reordered]
    if node.op_type == "MatMul":
        return [(*output[:-2], _MATRIX_ELEMENTS)]
    if node.op_type == "Resize":
        arrays = _RESIZE_ARRAYS[attribute(node, "mode", b"nearest")]
        return [(arrays, sum(size for size in output if isinstance(size, int)))]
    if node.op_type in _COPIES:
        largest = max((shapes[name] for name in (*node.input, *node.output) if name), key=elements)
        batch = (BATCH,) if any(shapes[name][:1] == (BATCH,) for name in node.input if name) else ()
        return [(*batch, _COPIES[node.op_type], elements(largest))]
    return []
