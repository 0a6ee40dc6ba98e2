"""Computes how much memory a graph takes, from the shapes of its tensors: before it is opened.

Memory is counted in elements of at most 8 bytes, 4 in most tensors.
"""

from dataclasses import dataclass

from onnx import ModelProto, NodeProto

from models.common.errors import GraphError
from models.onnx_file.shape_inference import BATCH, Shape, elements, infer_shapes

MAX_NODES = 4096
"""Maximum number of operators of a graph."""
MAX_ELEMENTS = 2**24
"""Maximum number of elements that a graph makes for one image, in all of its tensors together."""
MAX_RUN_ELEMENTS = 2**28
"""Maximum number of elements that a run takes for all of its rows, working memory included: 1 GiB in float32."""

CHANNEL_BLOCK = 16
"""onnxruntime pads the channels of an image to a multiple of this on processors with AVX-512, elsewhere of less."""
_MATRIX_ELEMENTS = 32
"""Working memory of MatMul for each matrix of a stack, such as its offsets."""


@dataclass(frozen=True)
class GraphMemory:
    """Number of elements of a graph's tensors."""

    shapes: dict[str, Shape]
    operators: int
    elements: int
    """For one image, without working memory."""
    row: int
    """Memory of a run for each row, with working memory."""
    fixed: int
    """Memory of a run for any number of rows: tensors without a batch dimension, and buffers for one row at a time."""

    def rows(self, most: int) -> int:
        """Number of rows of a run that stays within `MAX_RUN_ELEMENTS`, from 1 to `most`.

        Raises:
            GraphError: the graph is beyond a limit.
        """
        if self.elements > MAX_ELEMENTS:
            raise GraphError(f"it makes {self.elements:,} numbers of one latent, at most {MAX_ELEMENTS:,} are allowed")
        if self.fixed + self.row > MAX_RUN_ELEMENTS:
            raise GraphError(
                f"a run of one row takes memory for {self.fixed + self.row:,} numbers, at most {MAX_RUN_ELEMENTS:,} "
                "are allowed"
            )
        return min(most, (MAX_RUN_ELEMENTS - self.fixed) // max(self.row, 1))


def measure_memory(model: ModelProto) -> GraphMemory:
    """Adds up the tensors of a graph and the working memory of its operators.

    Raises:
        GraphError: there are too many operators, or the shape of a tensor cannot be determined before the graph runs.
    """
    operators = len(model.graph.node)
    if operators > MAX_NODES:
        raise GraphError(f"it has {operators:,} operators, at most {MAX_NODES:,} are allowed")
    shapes = infer_shapes(model, MAX_ELEMENTS)
    made, row, fixed = 0, 0, 0
    for node in model.graph.node:
        for name in filter(None, node.output):
            made += elements(shapes[name])
        for shape in (*(_padded(shapes[name]) for name in node.output if name), *_working_memory(node, shapes)):
            if shape[:1] == (BATCH,):
                row += elements(shape)
            else:
                fixed += elements(shape)
    return GraphMemory(shapes, operators, made, row, fixed)


def _padded(image: Shape) -> Shape:
    """The shape in onnxruntime's layout for convolutions, which the operators around them use too."""
    return (image[0], round_up(image[1]), *image[2:]) if len(image) == 4 else image


def round_up(channels: int | str) -> int:
    """Number of channels that onnxruntime allocates."""
    assert isinstance(channels, int)
    return -(-channels // CHANNEL_BLOCK) * CHANNEL_BLOCK


def _working_memory(node: NodeProto, shapes: dict[str, Shape]) -> list[Shape]:
    """Shapes of the buffers that onnxruntime's CPU kernel of an operator allocates besides its outputs."""
    made = shapes[node.output[0]]
    if node.op_type in ("Conv", "ConvTranspose"):
        image, kernel = shapes[node.input[0]], shapes[node.input[1]]
        if BATCH in kernel:
            raise GraphError(f"{node.op_type} takes its kernel from a batch")
        # A value of each kernel element at each position, for one image at a time. Pads do not make it smaller.
        columns = (elements(kernel[1:]), elements((made if node.op_type == "Conv" else image)[2:]))
        reordered = (_padded(image), _padded(made), tuple(map(round_up, kernel[:2])) + kernel[2:])
        return [columns, *reordered]
    if node.op_type == "MatMul":
        return [(*made[:-2], _MATRIX_ELEMENTS)]
    if node.op_type == "Resize":
        # The position in the input as 8 bytes, for each position along an axis.
        return [(2, sum(size for size in made if isinstance(size, int)))]
    return []
