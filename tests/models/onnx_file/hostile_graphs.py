"""Random model files from the operators that are allowed: some are valid, some are made to exhaust memory."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, TypeProto, helper, numpy_helper

from models.common.checksum import EMPTY_CHECKSUM, write_checksum
from models.onnx_file import graph_checks
from models.onnx_file.card import METADATA_KEY, Card, Golden
from models.onnx_file.golden import pack_golden
from models.onnx_file.store import SHIPPED

LATENT, IMAGE = 4, (1, 2, 2)
ROWS = 2
"""Number of rows for which a graph is drawn. Its operators mostly fit together for any number."""
LARGE = 2**12
"""Operators rarely continue from a tensor with more elements than this."""


def card() -> Card:
    """The card of a small class-conditional generator whose images are black."""
    shipped = graph_checks.read_card(onnx.load(SHIPPED.with_stem("mnist-fast")))
    golden = Golden(seed=0, n=ROWS, pixels=pack_golden(np.zeros((ROWS, *IMAGE), np.uint8)))
    return replace(shipped, latent_dim=LATENT, image_shape=IMAGE, golden=golden, file_sha256=EMPTY_CHECKSUM)


def sealed(model: ModelProto, of: Card) -> bytes:
    """The bytes of a model file with a card and a correct checksum."""
    del model.metadata_props[:]
    model.metadata_props.add(key=METADATA_KEY, value=of.to_json())
    return write_checksum(model.SerializeToString())


def hostile_graph(rng: random.Random) -> ModelProto:
    """Draws a graph. The last random tensor goes into the image, so that no operator before it can be skipped."""
    draft = Draft(rng)
    for _ in range(rng.randint(1, 8)):
        rng.choice(OPERATORS)(draft)
    return draft.finish()


@dataclass
class Draft:
    """A graph to which operators are added, with the types of its tensors for a batch of `ROWS` rows."""

    rng: random.Random
    nodes: list[NodeProto] = field(default_factory=list)
    weights: list[TensorProto] = field(default_factory=list)
    types: dict[str, TypeProto] = field(default_factory=dict)
    last: str = "latent"
    opset: int = 20

    def __post_init__(self) -> None:
        self.opset = self.rng.choice((20, self.rng.choice(graph_checks.OPSETS)))
        self.types["latent"] = helper.make_tensor_type_proto(TensorProto.FLOAT, [ROWS, LATENT])
        self.types["label"] = helper.make_tensor_type_proto(TensorProto.INT64, [ROWS])

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(dim.dim_value for dim in self.types[name].tensor_type.shape.dim)

    def pick(self, least_rank: int = 0, kind: int = TensorProto.FLOAT) -> str:
        """A tensor of that rank or more: the last one, another one, or a new weight."""
        fitting = [
            name
            for name, known in self.types.items()
            if known.tensor_type.elem_type == kind and len(self.shape(name)) >= least_rank and "weight" not in name
        ]
        if self.last in fitting and self.rng.random() < 0.6:
            return self.last
        if fitting and self.rng.random() < 0.9:
            return self.rng.choice(fitting)
        shape = [self.rng.choice((1, 2, 3, 4)) for _ in range(least_rank)]
        return self.weight(np.ones(shape, helper.tensor_dtype_to_np_dtype(kind)))

    def image(self) -> str:
        """A tensor of four dimensions whose first is the batch."""
        if self.rng.random() < 0.5:
            return self.pick(least_rank=3)
        channels = self.rng.choice((1, 2, 4))
        target = self.integers([self.rng.choice((-1, 0)), channels, 4 // channels, 1])
        return self.add("Reshape", ["latent", target]) or "latent"

    def axis(self, rank: int) -> int:
        """An axis of a tensor, rarely the first."""
        axis = self.rng.randrange(1, rank) if rank > 1 and self.rng.random() < 0.9 else self.rng.randrange(max(rank, 1))
        return axis - rank if self.rng.random() < 0.2 else axis

    def weight(self, values: NDArray) -> str:
        name = f"weight{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        self.types[name] = helper.make_tensor_type_proto(self.weights[-1].data_type, values.shape)
        return name

    def integers(self, values: list[int]) -> str:
        return self.weight(np.array(values, np.int64))

    def add(self, operator: str, inputs: list[str], **attributes: object) -> str | None:
        """Adds an operator if it fits, and rarely if not. Returns its output if its shape is known."""
        output = f"t{len(self.nodes)}"
        node = helper.make_node(operator, inputs, [output], **attributes)
        known = self._infer(node)
        fits = known is not None and math.prod(d.dim_value for d in known.tensor_type.shape.dim) <= LARGE
        if fits or self.rng.random() < 0.1:
            self.nodes.append(node)
            if known is not None:
                self.types[output] = known
                self.last = output
                return output
        return None

    def _infer(self, node: NodeProto) -> TypeProto | None:
        constants = {tensor.name: tensor for tensor in self.weights}
        try:
            known = onnx.shape_inference.infer_node_outputs(
                onnx.defs.get_schema(node.op_type, self.opset, ""),
                node,
                {name: self.types[name] for name in node.input if name},
                {name: constants[name] for name in node.input if name in constants},
                opset_imports=[helper.make_opsetid("", self.opset)],
            )[node.output[0]]
        except Exception:  # the exceptions of onnx share no base class but this
            return None
        whole = known.tensor_type.HasField("shape") and all(d.dim_value > 0 for d in known.tensor_type.shape.dim)
        return known if whole else None

    def finish(self) -> ModelProto:
        """Makes a black image, to which the last tensor adds nothing."""
        zero = self.weight(np.zeros((1, 1, 1, 1), np.float32))
        corner = self.last
        rank = len(self.shape(corner))
        if rank:
            first = 0 if self.shape(corner)[0] != ROWS else 1
            axes = list(range(first, rank))
            starts, ends = self.integers([0] * len(axes)), self.integers([1] * len(axes))
            self.append("Slice", [corner, starts, ends, self.integers(axes)], "corner")
            corner = "corner"
        self.append("Reshape", [corner, self.integers([-1, 1, 1, 1])], "column")
        self.append("Cast", ["column"], "float_column", to=TensorProto.FLOAT)
        self.append("Mul", ["float_column", zero], "nothing")
        black = self.weight(np.zeros((LATENT, 4), np.float32))
        self.append("MatMul", ["latent", black], "flat")
        self.append("Reshape", ["flat", self.integers([-1, *IMAGE])], "black")
        self.append("Add", ["black", "nothing"], "sum")
        self.append("Round", ["sum"], "rounded")
        bounds = [self.weight(np.array(bound, np.float32)) for bound in (0, 255)]
        self.append("Clip", ["rounded", *bounds], "clipped")
        self.append("Cast", ["clipped"], "image", to=TensorProto.UINT8)
        inputs = [
            helper.make_tensor_value_info("latent", TensorProto.FLOAT, ["batch", LATENT]),
            helper.make_tensor_value_info("label", TensorProto.INT64, ["batch"]),
        ]
        outputs = [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", *IMAGE])]
        made = helper.make_graph(self.nodes, "hostile", inputs, outputs, self.weights)
        return helper.make_model(made, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=9)

    def append(self, operator: str, inputs: list[str], output: str, **attributes: object) -> str:
        """Adds an operator whether it fits or not, and returns its output."""
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output


def elementwise(draft: Draft) -> None:
    one = draft.rng.choice(("Relu", "Tanh", "Round", "LeakyRelu", "Clip", "Cast"))
    kinds = (TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT32, TensorProto.UINT8, TensorProto.FLOAT16)
    draft.add(one, [draft.pick()], **({"to": draft.rng.choice(kinds)} if one == "Cast" else {}))


def broadcast(draft: Draft) -> None:
    draft.add(draft.rng.choice(("Add", "Mul")), [draft.pick(), draft.pick()])


def normalisation(draft: Draft) -> None:
    x = draft.pick(2)
    channels = draft.shape(x)[1]
    draft.add("BatchNormalization", [x, *(draft.weight(np.ones(channels, np.float32)) for _ in range(4))])


def concat(draft: Draft) -> None:
    x = draft.pick(1)
    others = [draft.pick(1) if draft.rng.random() < 0.2 else x for _ in range(draft.rng.randint(1, 6))]
    draft.add("Concat", [x, *others], axis=draft.axis(len(draft.shape(x))))


def constant(draft: Draft) -> None:
    shape = [draft.rng.randint(1, 4) for _ in range(draft.rng.randint(0, 4))]
    draft.add("Constant", [], value=numpy_helper.from_array(np.ones(shape, np.float32)))


def convolution(draft: Draft) -> None:
    rng, x = draft.rng, draft.image()
    shape = draft.shape(x)
    if len(shape) < 3:
        return
    axes, group = len(shape) - 2, rng.choice((1, 1, shape[1]))
    kernel = [rng.choice((1, 2, 3, 3, 40)) for _ in range(axes)]
    transposed = rng.random() < 0.5
    made = rng.choice((1, 2, 3, 20)) * (1 if transposed else group)
    size = [shape[1], made, *kernel] if transposed else [made, shape[1] // group, *kernel]
    attributes: dict[str, object] = {"group": group} if group > 1 else {}
    for name, choices in (("strides", (1, 2, 3)), ("dilations", (1, 2, 5))):
        if rng.random() < 0.3:
            attributes[name] = [rng.choice(choices) for _ in range(axes)]
    if rng.random() < 0.6:
        attributes["pads"] = [max(0, rng.choice((size // 2, size - 1, 1, 0))) for size in kernel] * 2
    elif rng.random() < 0.3:
        attributes["auto_pad"] = rng.choice(("SAME_UPPER", "SAME_LOWER", "VALID"))
    if transposed and rng.random() < 0.2:
        attributes["output_padding"] = [rng.choice((0, 1, 2)) for _ in range(axes)]
    if transposed and rng.random() < 0.2:
        attributes["output_shape"] = [rng.choice((1, 5, 100)) for _ in range(axes)]
    weight = draft.weight(np.ones(size, np.float32))
    draft.add("ConvTranspose" if transposed else "Conv", [x, weight], **attributes)


def gather(draft: Draft) -> None:
    x = draft.pick(1)
    axis = draft.axis(len(draft.shape(x)))
    length = draft.shape(x)[axis]
    if draft.rng.random() < 0.3:
        table = draft.weight(
            np.ones([10, *(draft.rng.randint(1, 5) for _ in range(draft.rng.randint(0, 2)))], np.float32)
        )
        draft.add("Gather", [table, draft.pick(0, TensorProto.INT64)], axis=0)
    else:
        indices = np.array([draft.rng.randrange(-length, length) for _ in range(draft.rng.choice((1, 2, 6)))])
        shape = draft.rng.choice(((-1,), (1, -1), (-1, 1, 1)))
        draft.add("Gather", [x, draft.weight(indices.reshape(shape))], axis=axis)


def gemm(draft: Draft) -> None:
    x = draft.pick(2)
    if len(draft.shape(x)) != 2:
        return
    before, after = int(draft.rng.random() < 0.15), draft.rng.randint(0, 1)
    inner, outer = draft.shape(x)[0 if before else 1], draft.rng.choice((1, 3, 50))
    weight = draft.weight(np.ones((outer, inner) if after else (inner, outer), np.float32))
    draft.add("Gemm", [x, weight], transA=before, transB=after)


def matmul(draft: Draft) -> None:
    x = draft.pick(1)
    if draft.rng.random() < 0.2:
        draft.add("MatMul", [x, draft.pick(1)])
    else:
        stack = draft.rng.choice(((), (), (1,), (7,), (2, 5)))
        shape = (*stack, draft.shape(x)[-1], draft.rng.choice((1, 3, 50)))
        draft.add("MatMul", [x, draft.weight(np.ones(shape, np.float32))])


def quantise(draft: Draft) -> None:
    scale, zero = draft.weight(np.array(1, np.float32)), draft.weight(np.array(0, np.uint8))
    if (levels := draft.add("QuantizeLinear", [draft.pick(), scale, zero])) is not None:
        draft.add("DequantizeLinear", [levels, scale, zero])


def reshape(draft: Draft) -> None:
    rng, x = draft.rng, draft.pick()
    shape = draft.shape(x)
    rest = math.prod(shape[1:])
    factor = rng.choice([size for size in range(1, rest + 1) if rest % size == 0]) if rest < 100 else 1
    target = rng.choice(
        [
            [-1, rest],
            [0, -1],
            [-1, factor, rest // factor],
            [0, factor, rest // factor, 1],
            [0, -1, factor],
            [ROWS, rest],
            [-1],
            [1, -1],
            [-1, factor],
            [rest, -1],
        ]
    )
    attributes = {"allowzero": 1} if rng.random() < 0.1 else {}
    if rng.random() < 0.3:
        rows = draft.add("Shape", [x], start=0, end=rng.choice((1, 1, 1, 2)))
        tail = rows if rng.random() < 0.1 else draft.integers(target[1:] or [-1])
        joined = draft.add("Concat", [rows, tail], axis=0) if rows and tail else None
        if joined:
            draft.add("Reshape", [x, joined])
    else:
        draft.add("Reshape", [x, draft.integers(target)], **attributes)


def resize(draft: Draft) -> None:
    rng, x = draft.rng, draft.image()
    shape = draft.shape(x)
    modes = {"mode": rng.choice(("nearest", "nearest", "nearest", "linear"))}
    if rng.random() < 0.3:
        modes["keep_aspect_ratio_policy"] = rng.choice(("stretch", "not_larger", "not_smaller"))
    if rng.random() < 0.5 and len(shape) > 2:
        head = draft.add("Shape", [x], start=0, end=2)
        tail = draft.integers([rng.choice((1, 5, 12, 1000)) for _ in shape[2:]])
        sizes = draft.add("Concat", [head, tail], axis=0) if head else None
        if sizes:
            # The inference of one operator cannot see the values of `sizes`.
            draft.nodes.append(helper.make_node("Resize", [x, "", "", sizes], [f"t{len(draft.nodes)}"], **modes))
    elif rng.random() < 0.5:
        first = [rng.choice((1, 1, 1, 1.9, 0.5, 1000)), rng.choice((1, 1, 2))][: len(shape)]
        scales = first + [rng.choice((1, 2, 0.5, 1.5, 3, 50)) for _ in shape[2:]]
        draft.add("Resize", [x, "", draft.weight(np.array(scales, np.float32))], **modes)
    else:
        sizes = [shape[0], *(rng.choice((1, 3, 10)) for _ in shape[1:])] if shape else []
        draft.add("Resize", [x, "", "", draft.integers(sizes)], **modes)


def shape_of(draft: Draft) -> None:
    limits = {name: draft.rng.randint(-2, 3) for name in ("start", "end") if draft.rng.random() < 0.4}
    draft.add("Shape", [draft.pick()], **limits)


def slice_(draft: Draft) -> None:
    rng, x = draft.rng, draft.pick(1)
    ends = (1, 2, 3, -1, 2**63 - 1, -(2**63))
    axis = draft.axis(len(draft.shape(x)))
    arguments = [[rng.choice((0, 0, 1, -1, -3, -1000))], [rng.choice(ends)], [axis], [rng.choice((1, 1, 1, 2, -1))]]
    draft.add("Slice", [x, *(draft.integers(values) for values in arguments)])


def squeeze(draft: Draft) -> None:
    x = draft.pick()
    rank = len(draft.shape(x))
    if draft.rng.random() < 0.6:
        axes = [draft.rng.choice((*range(1, rank + 1), -1, 0)) for _ in range(draft.rng.choice((1, 1, 2, 7)))]
        draft.add("Unsqueeze", [x, draft.integers(axes)])
    else:
        ones = [axis for axis, size in enumerate(draft.shape(x)) if size == 1]
        if ones:
            draft.add("Squeeze", [x, draft.integers([draft.rng.choice(ones)])])


def transpose(draft: Draft) -> None:
    x = draft.pick(1)
    order = list(range(len(draft.shape(x))))
    rest = order[1:]
    draft.rng.shuffle(rest)
    order = [0, *rest]
    if draft.rng.random() < 0.2:
        draft.rng.shuffle(order)
    draft.add("Transpose", [x], perm=order)


OPERATORS: tuple[Callable[[Draft], None], ...] = (
    elementwise, broadcast, normalisation, concat, constant, convolution, convolution, gather, gemm, matmul, quantise,
    reshape, resize, shape_of, slice_, squeeze, transpose,
)  # fmt: skip
