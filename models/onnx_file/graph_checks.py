"""Checks the graph of a model file before onnxruntime loads it, and before an export is written.

A file may come from an untrusted source. onnxruntime would run any of its own operators, load weights from other files,
and allocate any amount of memory, which a graph of 200 bytes can request. `models.onnx_file.graph_memory` has the
limits on memory.
"""

import math
from collections.abc import Callable

import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from models.common.errors import GraphError
from models.onnx_file.card import METADATA_KEY, Card, CardError
from models.onnx_file.graph_memory import MAX_ELEMENTS, measure_memory
from models.onnx_file.protobuf_limits import check_structure
from models.onnx_file.shape_inference import BATCH, MAX_RANK, attribute, dimensions

# fmt: off
OPERATORS = frozenset((
    "Abs", "Add", "BatchNormalization", "Cast", "Clip", "Concat", "Constant", "Conv", "ConvTranspose", "Cos",
    "DepthToSpace", "DequantizeLinear", "Div", "Elu", "Equal", "Erf", "Exp", "Expand", "Gather", "Gelu", "Gemm",
    "Greater", "HardSigmoid", "HardSwish", "InstanceNormalization", "LayerNormalization", "LeakyRelu", "Log", "MatMul",
    "Max", "Min", "Mul", "Neg", "PRelu", "Pad", "Pow", "QuantizeLinear", "Reciprocal", "ReduceL2", "ReduceMax",
    "ReduceMean", "ReduceSum", "Relu", "Reshape", "Resize", "Round", "Selu", "Shape", "Sigmoid", "Sin", "Slice",
    "Softmax", "Softplus", "Split", "Sqrt", "Squeeze", "Sub", "Tanh", "Tile", "Transpose", "Unsqueeze", "Where",
))
# fmt: on
"""Operators that a graph may use, all from the standard domain. The networks of this repository need fewer; the others
are there for networks that a user brings. `models.onnx_file.graph_memory` bounds the memory of each."""

MAX_FILE_BYTES = 2**30
"""Maximum size of a model file."""
MAX_CARD_CHARACTERS = 2**26
"""Maximum length of the card. The golden images are most of it."""
MAX_CARD_VALUES = 2**20
"""Maximum number of commas and opening brackets in the card. It bounds the number of values, because a parsed value
takes more memory than its text."""
OPSETS = range(16, 27)
"""Allowed opsets. The first is the oldest that PyTorch can export every architecture to, the last the newest that
onnxruntime can open."""

_ATTRIBUTES = {
    getattr(AttributeProto, kind) for kind in ("INT", "INTS", "FLOAT", "FLOATS", "STRING", "STRINGS", "TENSOR")
}
"""Types that an attribute may have. GRAPH and GRAPHS are not allowed, so an operator cannot contain a subgraph."""
_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}
_WEIGHT_TYPES = {
    "fp32": {TensorProto.FLOAT},
    "fp16": {TensorProto.FLOAT, TensorProto.FLOAT16},
    "int8": {TensorProto.FLOAT, TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32},
}
"""Types that weights may have, for each precision."""
_SHAPES = {TensorProto.INT64, TensorProto.INT32}
"""Types of shapes and indices, allowed in every precision."""
_ONLY: dict[str, dict[str, tuple[object, ...]]] = {
    "Conv": {"auto_pad": (b"NOTSET",)},
    # With these attributes, onnxruntime returns another shape than ONNX infers.
    "ConvTranspose": {"auto_pad": (b"NOTSET",), "output_shape": (None,)},
    # Reflected pixels could be read from outside of the image, if the padding is larger than the image.
    "Pad": {"mode": (b"constant",)},
    # Other modes, and filters, allocate buffers that are not counted. With an aspect ratio, sizes depend on the number
    # of rows. A region of interest could lie outside of the image.
    "Resize": {
        "mode": (b"nearest", b"linear"),
        "antialias": (0,),
        "keep_aspect_ratio_policy": (b"stretch",),
        "coordinate_transformation_mode": (b"half_pixel", b"pytorch_half_pixel", b"align_corners", b"asymmetric"),
    },
}
"""Allowed values of some attributes, by operator, if the attribute is present. None: it must be absent."""
_MIN_VALUES = {
    "group": 1,
    "kernel_shape": 1,
    "strides": 1,
    "dilations": 1,
    "pads": 0,
    "output_padding": 0,
    "blocksize": 1,
}
"""Minimum of the numbers in an attribute of a convolution or DepthToSpace, as onnxruntime divides by some of them."""


def parse(file: bytes) -> ModelProto:
    """Parses an ONNX file.

    Raises:
        GraphError: it is not an ONNX file, or the parsed model would take too much memory in addition to its
            weights and metadata (`models.onnx_file.protobuf_limits`).
    """
    check_structure(file)
    try:
        return ModelProto.FromString(file)
    except DecodeError as error:
        raise GraphError(f"format: not an ONNX file ({error})") from error


def read_card(model: ModelProto) -> Card:
    """Reads the card in the metadata of a model.

    Raises:
        CardError: the model has no card or several, or the card is too large or invalid.
    """
    texts = [entry.value for entry in model.metadata_props if entry.key == METADATA_KEY]
    if len(texts) != 1:
        raise CardError(f"card: the file has {len(texts):,} cards, exactly one is required")
    text = texts[0] if isinstance(texts[0], str) else ""  # protobuf returns bytes for a text that is not UTF-8
    if len(text) > MAX_CARD_CHARACTERS or sum(map(text.count, ",[{")) > MAX_CARD_VALUES:
        raise CardError(
            f"card: it is too large: at most {MAX_CARD_CHARACTERS:,} characters and {MAX_CARD_VALUES:,} values are "
            "allowed"
        )
    return Card.from_json(text)


def check(model: ModelProto, card: Card, begin: Callable[[str], None] = lambda name: None) -> None:
    """Checks that a graph is allowed in a model file and agrees with its card, with the checks of `NAMES`.

    Args:
        model: the graph.
        card: the card in the same file.
        begin: is called with the name of each check, before it is made.

    Raises:
        GraphError: a check failed; the message begins with its name.
    """
    for name, check_one in _CHECKS.items():
        begin(name)
        try:
            check_one(model, card)
        except GraphError as error:
            raise GraphError(f"{name}: {error}") from None


def _standard_domain(model: ModelProto, card: Card) -> None:
    """Checks that the graph uses only ONNX's standard operators at an allowed opset, and no functions."""
    domains = [entry.domain or "ai.onnx" for entry in model.opset_import]
    _require(domains == ["ai.onnx"], f"it uses the operator domains {sorted(domains)}; only ai.onnx is allowed")
    opset = model.opset_import[0].version
    _require(opset in OPSETS, f"its opset is {opset}; {OPSETS[0]} to {OPSETS[-1]} are allowed")
    _require(not model.functions and not model.training_info, "it contains functions or training steps")
    _require(not model.graph.sparse_initializer, "it has sparse weights")


def check_operators(model: ModelProto) -> None:
    """Checks every operator against `OPERATORS`, and the types of its attributes.

    Raises:
        GraphError: an operator or an attribute is not allowed.
    """
    for node in model.graph.node:
        _require(
            node.domain in ("", "ai.onnx") and node.op_type in OPERATORS,
            f"{node.domain or 'ai.onnx'}.{node.op_type} is not an allowed operator; docs/own-network.md lists those "
            "that are",
        )
        names = [entry.name for entry in node.attribute]
        _require(len(names) == len(set(names)), f"{node.op_type} has two attributes of the same name")
        for entry in node.attribute:
            _require(
                entry.type in _ATTRIBUTES and not entry.ref_attr_name,
                f"{node.op_type} has an attribute {entry.name} of a type that is not allowed",
            )


def _weights(model: ModelProto, card: Card) -> None:
    """Checks that every weight is stored in the file, with as many bytes as its type and its dimensions need."""
    for tensor in _tensors(model.graph):
        _require(len(tensor.dims) <= MAX_RANK, f"{tensor.name} has {len(tensor.dims):,} dimensions, maximum {MAX_RANK}")
        _require(
            not tensor.external_data and tensor.data_location == TensorProto.DEFAULT,
            f"{tensor.name} is stored in another file",
        )
        try:
            itemsize = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        except KeyError:
            raise GraphError(f"{tensor.name} has the unknown type {tensor.data_type}") from None
        dims = list(tensor.dims)
        _require(
            min(dims, default=1) > 0 or dims == [0], f"{tensor.name} has the dimensions {dims}; each must be positive"
        )
        declared, actual = math.prod(dims) * itemsize, len(tensor.raw_data)
        _require(declared == actual, f"{tensor.name} declares {declared:,} bytes, but contains {actual:,}")


def _precision(model: ModelProto, card: Card) -> None:
    """Checks that weights and casts have only the types that belong to the precision on the card."""
    allowed = _WEIGHT_TYPES[card.precision]
    for tensor in _tensors(model.graph):
        kind = TensorProto.DataType.Name(tensor.data_type)
        _require(
            tensor.data_type in allowed | _SHAPES,
            f"{tensor.name} is {kind}, which a file of precision {card.precision} may not contain",
        )
    for node in model.graph.node:
        if node.op_type == "Cast":
            to = next((attribute.i for attribute in node.attribute if attribute.name == "to"), 0)
            kind = TensorProto.DataType.Name(to)
            _require(
                to not in _FLOATS or to in allowed,
                f"it casts to {kind}, which a file of precision {card.precision} may not",
            )


def _inference(model: ModelProto, card: Card) -> None:
    """Checks that no operator, such as batch norm, runs in training mode."""
    for node in model.graph.node:
        training = any(attribute.name == "training_mode" and attribute.i for attribute in node.attribute)
        _require(not training, f"{node.op_type} is in training mode: an image would depend on the others of its batch")


def _inputs_and_outputs(model: ModelProto, card: Card) -> None:
    """Checks that names, types and shapes of the inputs and outputs are the ones that the card describes."""
    inputs: dict[str, tuple[str, list[str | int]]] = {"latent": ("FLOAT", [BATCH, card.latent_dim])}
    if card.conditional:
        inputs["label"] = ("INT64", [BATCH])
    outputs = {"image": ("UINT8", [BATCH, *card.image_shape])}
    for kind, expected, values in (("inputs", inputs, model.graph.input), ("outputs", outputs, model.graph.output)):
        found = {
            value.name: (TensorProto.DataType.Name(value.type.tensor_type.elem_type), list(dimensions(value.type)))
            for value in values
        }
        _require(found == expected, f"the {kind} are {found}; the card requires {expected}")


def _quantization(model: ModelProto, card: Card) -> None:
    """Checks that image = Cast(Clip(Round(...), 0, 255)). Without the Clip, values above 255 would wrap to black."""
    producers = {output: node for node in model.graph.node for output in node.output}
    numbers = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer if not tensor.dims}
    node: NodeProto | None = producers.get("image")
    for expected in ("Cast", "Clip", "Round"):
        _require(
            node is not None and node.op_type == expected,
            f"image must be the Cast of a Clip of a Round; in place of {expected} there is "
            f"{node.op_type if node else 'nothing'}",
        )
        assert node is not None
        if expected == "Clip":
            bounds = [numbers.get(name) for name in node.input[1:]]
            _require(bounds == [0, 255], f"the Clip has the bounds {bounds}; they must be [0, 255]")
        node = producers.get(node.input[0])


def _operator_attributes(model: ModelProto, card: Card) -> None:
    """Checks attributes that affect memory or could crash onnxruntime."""
    for node in model.graph.node:
        for name, allowed in _ONLY.get(node.op_type, {}).items():
            value = attribute(node, name, allowed[0])
            words = " or ".join("no value" if choice is None else repr(choice) for choice in allowed)
            _require(value in allowed, f"{node.op_type} has {name} {value!r:.40}; only {words} is allowed")
        if node.op_type in ("Conv", "ConvTranspose", "DepthToSpace"):
            for name, minimum in _MIN_VALUES.items():
                numbers = attribute(node, name, [])
                for number in numbers if isinstance(numbers, list) else [numbers]:
                    _require(
                        isinstance(number, int) and minimum <= number <= MAX_ELEMENTS,
                        f"{node.op_type} has {name} {number}; {minimum} to {MAX_ELEMENTS:,} are allowed",
                    )


def _sizes(model: ModelProto, card: Card) -> None:
    """Checks the inferred shape of `image`, and the limits on the number of operators and on memory."""
    memory = measure_memory(model)
    image, expected = memory.shapes.get("image"), (BATCH, *card.image_shape)
    _require(image == expected, f"image has the shape {image}; the card requires {expected}")
    memory.rows(1)  # raises if one row is too large


_CHECKS: dict[str, Callable[[ModelProto, Card], None]] = {
    "standard domain": _standard_domain,
    "operators": lambda model, card: check_operators(model),
    "weights": _weights,
    "precision": _precision,
    "inference mode": _inference,
    "inputs and outputs": _inputs_and_outputs,
    "quantization": _quantization,
    "operator attributes": _operator_attributes,
    "sizes": _sizes,
}
"""The checks by name, in the order in which they run: each may rely on those before it."""
NAMES = tuple(_CHECKS)
"""Names of the checks of a graph."""


def _tensors(graph: GraphProto) -> list[TensorProto]:
    """Returns all weights and constants of a graph."""
    constants = (attribute.t for node in graph.node for attribute in node.attribute if attribute.HasField("t"))
    return [*graph.initializer, *constants]


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise GraphError(message)
