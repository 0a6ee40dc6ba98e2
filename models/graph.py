"""What the graph of a model file may be: checked before onnxruntime sees it, and before an export is let out.

A file comes from anywhere. onnxruntime would run operators of its own that nobody here has asked for, load weights from
other files, and take whatever memory a graph of 200 bytes claims to need.
"""

import math
from collections.abc import Callable

import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from models import card as cards
from models.card import Card
from models.errors import ModelFileError

# fmt: off
OPERATORS = frozenset((
    "Add", "BatchNormalization", "Cast", "Clip", "Concat", "Constant", "Conv", "ConvTranspose", "DequantizeLinear",
    "Gather", "Gemm", "LeakyRelu", "MatMul", "Mul", "QuantizeLinear", "Relu", "Reshape", "Resize", "Round", "Shape",
    "Slice", "Squeeze", "Tanh", "Transpose", "Unsqueeze",
))
# fmt: on
"""Of the standard domain: those that our generators are made of."""

MAX_ELEMENTS = 2**24
"""Of all tensors that a graph makes of one latent, taken together."""
MAX_FILE_BYTES = 2**30

BATCH = "batch"
"""Name of the axis that has no size."""

_ATTRIBUTES = {
    getattr(AttributeProto, kind) for kind in ("INT", "INTS", "FLOAT", "FLOATS", "STRING", "STRINGS", "TENSOR")
}
_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}
_WEIGHTS = {
    "fp32": {TensorProto.FLOAT},
    "fp16": {TensorProto.FLOAT, TensorProto.FLOAT16},
    "int8": {TensorProto.FLOAT, TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32},
}
_SHAPES = {TensorProto.INT64, TensorProto.INT32}


class GraphError(ModelFileError):
    """A graph that is not what a model file may hold. The message begins with the check that found it."""


def parse(file: bytes) -> ModelProto:
    """Raises:
    GraphError: not an ONNX file.
    """
    try:
        return ModelProto.FromString(file)
    except DecodeError as error:
        raise GraphError(f"format: not an ONNX file ({error})") from error


def read_card(model: ModelProto) -> Card:
    """Raises:
    CardError: it has none, or one that cannot be read.
    """
    texts = [entry.value for entry in model.metadata_props if entry.key == cards.METADATA_KEY]
    return Card.from_json(texts[0] if len(texts) == 1 else "")


def check(model: ModelProto, card: Card) -> tuple[str, ...]:
    """Holds a graph to the file contract and to its card.

    Returns:
        The names of the checks that it passed.

    Raises:
        GraphError: it fails one.
    """
    for name, passes in _CHECKS.items():
        try:
            passes(model, card)
        except GraphError as error:
            raise GraphError(f"{name}: {error}") from None
    return tuple(_CHECKS)


def _one_graph(model: ModelProto, card: Card) -> None:
    domains = {entry.domain or "ai.onnx" for entry in model.opset_import}
    _require(domains == {"ai.onnx"}, f"it uses the operator domains {sorted(domains)}; ai.onnx alone is allowed")
    _require(not model.functions and not model.training_info, "it brings functions or training steps of its own")
    _require(not model.graph.sparse_initializer, "it has sparse weights")


def _operators(model: ModelProto, card: Card) -> None:
    for node in model.graph.node:
        _require(
            node.domain in ("", "ai.onnx") and node.op_type in OPERATORS,
            f"{node.domain + '.' if node.domain else ''}{node.op_type} is not on the list of those allowed",
        )
        for attribute in node.attribute:
            _require(attribute.type in _ATTRIBUTES, f"{node.op_type} has an attribute {attribute.name} of another kind")


def _whole_tensors(model: ModelProto, card: Card) -> None:
    for tensor in _tensors(model.graph):
        _require(
            not tensor.external_data and tensor.data_location == TensorProto.DEFAULT,
            f"{tensor.name} lies in another file",
        )
        try:
            itemsize = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        except KeyError:
            raise GraphError(f"{tensor.name} is of the unknown type {tensor.data_type}") from None
        declared = math.prod(tensor.dims) * itemsize
        _require(
            min(tensor.dims, default=0) >= 0 and declared == len(tensor.raw_data),
            f"{tensor.name} declares {declared:,} bytes and has {len(tensor.raw_data):,}",
        )


def _precision(model: ModelProto, card: Card) -> None:
    allowed = _WEIGHTS[card.precision]
    for tensor in _tensors(model.graph):
        kind = TensorProto.DataType.Name(tensor.data_type)
        _require(tensor.data_type in allowed | _SHAPES, f"{tensor.name} is {kind} in a file of {card.precision}")
    for node in model.graph.node:
        if node.op_type == "Cast":
            to = next((attribute.i for attribute in node.attribute if attribute.name == "to"), 0)
            kind = TensorProto.DataType.Name(to)
            _require(to not in _FLOATS or to in allowed, f"a Cast to {kind} in a file of {card.precision}")


def _inference(model: ModelProto, card: Card) -> None:
    for node in model.graph.node:
        training = any(attribute.name == "training_mode" and attribute.i for attribute in node.attribute)
        _require(not training, f"{node.op_type} is in training mode: an image would depend on its neighbours")


def _contract(model: ModelProto, card: Card) -> None:
    inputs: dict[str, tuple[str, list[str | int]]] = {"latent": ("FLOAT", [BATCH, card.latent_dim])}
    if card.conditional:
        inputs["label"] = ("INT64", [BATCH])
    outputs = {"image": ("UINT8", [BATCH, *card.image_shape])}
    for kind, expected, values in (("inputs", inputs, model.graph.input), ("outputs", outputs, model.graph.output)):
        found = {
            value.name: (TensorProto.DataType.Name(value.type.tensor_type.elem_type), _dims(value)) for value in values
        }
        _require(found == expected, f"the {kind} are {found}, by the card they should be {expected}")


def _quantisation(model: ModelProto, card: Card) -> None:
    """image = Cast(Clip(Round(...), 0, 255)): without the clip, too bright a white would wrap to black."""
    makers = {output: node for node in model.graph.node for output in node.output}
    numbers = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer if not tensor.dims}
    node: NodeProto | None = makers.get("image")
    for expected in ("Cast", "Clip", "Round"):
        _require(
            node is not None and node.op_type == expected,
            f"image should be the Cast of a Clip of a Round; in the place of {expected} is "
            f"{node.op_type if node else 'nothing'}",
        )
        assert node is not None
        if expected == "Clip":
            bounds = [numbers.get(name) for name in node.input[1:]]
            _require(bounds == [0, 255], f"the Clip is to {bounds}, it should be to [0, 255]")
        node = makers.get(node.input[0])


def _sizes(model: ModelProto, card: Card) -> None:
    total = elements(model)
    _require(total <= MAX_ELEMENTS, f"it makes {total:,} numbers of one latent, at most {MAX_ELEMENTS:,} are allowed")


def elements(model: ModelProto) -> int:
    """How many numbers a graph makes of one latent, in all of its tensors together.

    Raises:
        GraphError: the size of a tensor cannot be determined before the graph runs.
    """
    bare = ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]  # what the file claims; inferred is what it does
    try:
        inferred = onnx.shape_inference.infer_shapes(bare, check_type=True, strict_mode=True, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError) as error:
        raise GraphError(f"its shapes do not fit together ({str(error).splitlines()[0]:.200})") from None
    shapes = {value.name: _dims(value) for value in (*inferred.value_info, *inferred.output)}
    total = 0
    for node in model.graph.node:
        for output in node.output:
            # Only the first axis, the batch, may be left open.
            first, *others = shapes.get(output, ["?", "?"]) or [1]
            sizes = [size for size in others if isinstance(size, int)]
            _require(
                len(sizes) == len(others),
                f"{output}, which {node.op_type} makes, has no size before it is run: {shapes.get(output)}",
            )
            total += math.prod((first if isinstance(first, int) else 1, *sizes))
    return total


_CHECKS: dict[str, Callable[[ModelProto, Card], None]] = {
    "standard domain": _one_graph,
    "operators": _operators,
    "weights": _whole_tensors,
    "precision": _precision,
    "inference mode": _inference,
    "contract": _contract,
    "quantisation": _quantisation,
    "sizes": _sizes,
}


def _tensors(graph: GraphProto) -> list[TensorProto]:
    constants = (attribute.t for node in graph.node for attribute in node.attribute if attribute.HasField("t"))
    return [*graph.initializer, *constants]


def _dims(value: onnx.ValueInfoProto) -> list[str | int]:
    return [dim.dim_param or dim.dim_value or "?" for dim in value.type.tensor_type.shape.dim]


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise GraphError(otherwise)
