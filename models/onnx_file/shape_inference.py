"""Infers the shape of every tensor in a graph, without running the graph.

Operators are inferred one at a time, in the order of the graph, and each shape is checked before the next operator uses
it. Inference over a whole graph at a time could take unbounded memory: a hostile graph can double the rank of a tensor,
or the length of a list of sizes, with each operator.
"""

import math
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, TypeProto, numpy_helper

from models.common.errors import GraphError

BATCH = "batch"
"""Symbol for the number of rows of a batch. It may only be the first dimension of a tensor."""
MAX_RANK = 8
"""Maximum number of dimensions of a tensor."""

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)
"""Types in which a division by zero gives infinity."""

Shape = tuple[int | str, ...]
"""Dimensions of a tensor, as numbers and symbols. Only the symbol `BATCH` passes the checks. "?" is unknown."""


def infer_shapes(model: ModelProto, max_elements: int) -> dict[str, Shape]:
    """Infers the shapes of all inputs, weights and computed tensors of a graph.

    Args:
        model: the graph.
        max_elements: maximum number of elements of one tensor, for one row of the batch.

    Returns:
        The shape of each tensor by name. The first dimension is `BATCH` or a positive number, all others are positive
        numbers, except that an empty weight has the shape (0,).

    Raises:
        GraphError: a tensor has another kind of shape, more than `MAX_RANK` dimensions or more than `max_elements`
            elements, or its shape cannot be inferred.
    """
    inference = _Inference(model, max_elements)
    for node in model.graph.node:
        inference.add(node)
    return inference.shapes


def dimensions(kind: TypeProto) -> Shape:
    """Returns the shape of a tensor type, with "?" for each unknown dimension."""
    dims = kind.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") else (dim.dim_param or "?") for dim in dims)


def elements(shape: Shape) -> int:
    """Returns the number of elements of a tensor for one row of the batch."""
    return math.prod(size for size in shape if isinstance(size, int))


def attribute(node: NodeProto, name: str, default: Any) -> Any:
    """Returns the value of a node's attribute, or the default if the node does not have it."""
    return next((onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def _padded(shape: Shape, rank: int) -> Shape:
    """Returns the shape with ones in front, so that it has this many dimensions."""
    return (1,) * (rank - len(shape)) + shape


class _Inference:
    """Shapes and small values of the tensors that the nodes added so far compute."""

    def __init__(self, model: ModelProto, max_elements: int):
        self.shapes: dict[str, Shape] = {}
        self._max_elements = max_elements
        self._opset = onnx.helper.make_opsetid("", model.opset_import[0].version)
        self._types: dict[str, TypeProto] = {}
        self._constants: dict[str, TensorProto] = {}
        """Small constants, from which operators take sizes, axes and scales."""
        self._sizes: dict[str, Shape] = {}
        """Values of computed tensors that contain the dimensions of other tensors."""
        for value in model.graph.input:
            self._define(value.name, value.type, f"the input {value.name}")
        for tensor in model.graph.initializer:
            self._add_constant(tensor.name, tensor)

    def add(self, node: NodeProto) -> None:
        """Infers the outputs of the next node.

        Raises:
            GraphError: see `infer_shapes`.
        """
        constant = node.op_type == "Constant"
        if not (node.output and node.output[0]) or not (constant or (node.input and node.input[0])):
            raise GraphError(f"{node.op_type} lacks its first input or output")
        for name in filter(None, node.input):
            if name not in self._types:
                raise GraphError(f"{name}, which {node.op_type} reads, is not computed before it")
        if constant and (value := attribute(node, "value", None)) is not None:
            self._add_constant(node.output[0], value)
            return
        self._check_axes(node)
        if node.op_type == "Div" and self._types[node.input[0]].tensor_type.elem_type not in _FLOATS:
            raise GraphError("Div divides integers, which would end the process if a divisor is 0")
        if node.op_type == "PRelu":
            self._check_slope(node)
        if node.op_type in ("Expand", "Tile"):
            inferred = self._infer_repeated(node)
        else:
            inferred = self._infer_per_row(node) if self._resizes_rows(node) else self._infer(node, {}, {})
        for name in filter(None, node.output):
            self._define(name, inferred.get(name, TypeProto()), f"{name}, which {node.op_type} computes,")
        self._keep_sizes(node)

    def _define(self, name: str, kind: TypeProto, subject: str) -> None:
        """Checks and stores the shape of a tensor. Error messages call the tensor `subject`."""
        if name in self._types:
            raise GraphError(f"two tensors have the name {name}")
        shape = dimensions(kind)
        shown = f"{subject} has the shape [{', '.join(map(str, shape))}]"
        if not kind.tensor_type.HasField("shape"):
            raise GraphError(f"{subject} has no shape before the graph runs")
        if len(shape) > MAX_RANK:
            raise GraphError(f"{subject} has {len(shape):,} dimensions, maximum {MAX_RANK}")
        for position, size in enumerate(shape):
            if not (size == BATCH and position == 0) and not (isinstance(size, int) and size > 0):
                raise GraphError(
                    f"{shown}: the first dimension must be {BATCH} or a known positive number, all others known "
                    "positive numbers"
                )
        if elements(shape) > self._max_elements:
            raise GraphError(f"{shown}: it has {elements(shape):,} elements a row, maximum {self._max_elements:,}")
        self._types[name], self.shapes[name] = kind, shape

    def _add_constant(self, name: str, tensor: TensorProto) -> None:
        if name in self._types:
            raise GraphError(f"two tensors have the name {name}")
        # Its size needs no check: all of its elements are in the file.
        self._types[name] = onnx.helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
        self.shapes[name] = tuple(tensor.dims)
        if math.prod(tensor.dims) <= MAX_RANK:
            self._constants[name] = tensor

    def _infer(
        self, node: NodeProto, types: dict[str, TypeProto], constants: dict[str, TensorProto]
    ) -> dict[str, TypeProto]:
        """Infers the outputs of one node. `types` and `constants` override what is known about its inputs."""
        inputs = list(filter(None, node.input))
        try:
            schema = onnx.defs.get_schema(node.op_type, self._opset.version, "")
            return onnx.shape_inference.infer_node_outputs(
                schema,
                node,
                {name: types.get(name, self._types[name]) for name in inputs},
                {
                    name: tensor
                    for name in inputs
                    if (tensor := constants.get(name, self._constants.get(name))) is not None
                },
                opset_imports=[self._opset],
            )
        except Exception as error:  # the exceptions of onnx have no common base class except Exception
            reason = (str(error).splitlines() or [""])[0]
            raise GraphError(f"the shapes of {node.op_type} do not fit together ({reason:.200})") from None

    def _check_axes(self, node: NodeProto) -> None:
        """Checks that an operator which works along axes does not combine the rows of a batch.

        Raises:
            GraphError: it does, or its axes are unknown.
        """
        shape = self.shapes[node.input[0]] if node.input else ()
        if shape[:1] != (BATCH,):
            return
        axes: Shape | None = ()
        if node.op_type in ("LayerNormalization", "Softmax"):
            axes = (attribute(node, "axis", -1),)
        elif node.op_type == "Split":
            axes = (attribute(node, "axis", 0),)
        elif node.op_type.startswith("Reduce"):
            axes = tuple(attribute(node, "axes", ()))
            if node.input[1:] and node.input[1]:
                axes = self._values(node.input[1])
            if axes == () and not attribute(node, "noop_with_empty_axes", 0):
                axes = (0,)  # all axes
        if axes is None or any(not isinstance(axis, int) or axis % len(shape) == 0 for axis in axes):
            raise GraphError(f"{node.op_type} combines the rows of {node.input[0]}, or its axes are unknown")

    def _check_slope(self, node: NodeProto) -> None:
        """Checks that the slope of PRelu is not larger than its input. onnxruntime would enlarge the output, but ONNX
        infers the shape of the input.

        Raises:
            GraphError: it is larger.
        """
        shape, slope = (self.shapes[name] for name in node.input)
        if len(slope) > len(shape) or any(
            size not in (1, of_input) for size, of_input in zip(_padded(slope, len(shape)), shape, strict=True)
        ):
            raise GraphError(f"{node.input[1]}, the slope of PRelu, does not fit {node.input[0]}")

    def _infer_repeated(self, node: NodeProto) -> dict[str, TypeProto]:
        """Infers Expand or Tile, whose sizes may contain the batch size. ONNX's inference knows only numbers.

        Raises:
            GraphError: the sizes are unknown, or do not fit the input.
        """
        shape, target = self.shapes[node.input[0]], self._values(node.input[1]) if node.input[1:] else None
        rank = max(len(shape), len(target or ()))
        if target is None or rank > MAX_RANK or (node.op_type == "Tile" and len(shape) != len(target)):
            raise GraphError(f"{node.op_type} has unknown sizes, or they do not fit {node.input[0]}")
        output: list[int | str] = []
        for size, new in zip(_padded(shape, rank), _padded(target, rank), strict=True):
            if size == 1 or new == 1:
                output.append(new if size == 1 else size)
            elif node.op_type == "Tile" and isinstance(size, int) and isinstance(new, int):
                output.append(size * new)
            elif node.op_type == "Expand" and size == new:
                output.append(size)
            else:
                raise GraphError(f"{node.op_type} to [{', '.join(map(str, target))}] does not fit {node.input[0]}")
        kind = self._types[node.input[0]].tensor_type.elem_type
        return {node.output[0]: onnx.helper.make_tensor_type_proto(kind, output)}

    def _resizes_rows(self, node: NodeProto) -> bool:
        """Whether the node changes the shape of each row. ONNX's inference loses the batch symbol at such nodes."""
        return node.op_type in ("Reshape", "Resize") and self.shapes[node.input[0]][:1] == (BATCH,)

    def _infer_per_row(self, node: NodeProto) -> dict[str, TypeProto]:
        """Infers Reshape or Resize on a batch of one row, after checking that each input row gives one output row.

        Raises:
            GraphError: the node mixes rows or changes their number.
        """
        target_at = max(at for at, name in enumerate(node.input) if name)
        name = node.input[target_at]
        target = self._values(name) or ("?",)
        # The first entry that keeps the rows: the batch size in `sizes` of Resize, 1 in its `scales`.
        kept: Shape = (BATCH,) if target_at == 3 else (1,)
        if node.op_type == "Reshape":
            kept = (BATCH, -1) if attribute(node, "allowzero", 0) else (BATCH, -1, 0)
        row = TypeProto()
        row.CopyFrom(self._types[node.input[0]])
        row.tensor_type.shape.dim[0].dim_value = 1
        constants = {}
        if name in self._sizes:
            numbers = [1 if size == BATCH else size for size in target]
            constants[name] = numpy_helper.from_array(np.array(numbers, np.int64), name)
        if target_at and target[0] in kept and BATCH not in target[1:] and not attribute(node, "axes", []):
            inferred = self._infer(node, {node.input[0]: row}, constants)
            output = inferred[node.output[0]]
            if dimensions(output)[:1] == (1,):
                output.tensor_type.shape.dim[0].dim_param = BATCH
                return inferred
        raise GraphError(
            f"{node.op_type} to [{', '.join(map(str, target))}] mixes the rows of {node.input[0]} or "
            "changes their number"
        )

    def _values(self, name: str) -> Shape | None:
        """Returns the numbers in a small tensor, or None if they are unknown."""
        if name in self._sizes:
            return self._sizes[name]
        constant = self._constants.get(name)
        return None if constant is None else tuple(numpy_helper.to_array(constant).ravel().tolist())

    def _keep_sizes(self, node: NodeProto) -> None:
        """Records the dimensions that Shape returns, and parts and concatenations of them.

        Exporters compute the sizes of Resize, Reshape and Expand from them.
        """
        sizes: Shape = ()
        if node.op_type == "Shape":
            shape = self.shapes[node.input[0]]
            sizes = shape[attribute(node, "start", 0) : attribute(node, "end", len(shape))]
        elif node.op_type == "Reshape":
            sizes = self._sizes.get(node.input[0], ())
        elif node.op_type == "Slice" and node.input[0] in self._sizes:
            limits = [limit for name in node.input[1:3] for limit in self._values(name) or () if isinstance(limit, int)]
            if len(node.input) < 5 and len(limits) == 2:
                sizes = self._sizes[node.input[0]][slice(*limits)]
        elif node.op_type == "Concat" and any(name in self._sizes for name in node.input):
            parts = [self._values(name) for name in node.input]
            values = tuple(size for part in parts for size in part or ("?",))
            if len(values) <= MAX_RANK and all(isinstance(size, int) or size == BATCH for size in values):
                sizes = values
        if sizes:
            self._sizes[node.output[0]] = sizes
