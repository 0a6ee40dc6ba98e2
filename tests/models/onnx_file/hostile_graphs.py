"""Draws random graphs from the allowed operators. Some are valid, some would exhaust memory."""

import math
import random
from collections.abc import Callable

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from tests.models.onnx_file.graph_draft import ROWS, Draft

UNARY = (
    "Relu", "Tanh", "Round", "LeakyRelu", "Clip", "Cast", "Abs", "Cos", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid",
    "HardSwish", "Log", "Neg", "Reciprocal", "Selu", "Sigmoid", "Sin", "Softplus", "Sqrt",
)  # fmt: skip


def hostile_graph(rng: random.Random) -> ModelProto:
    """Draws a random graph. The image depends on the last random tensor, so onnxruntime cannot skip its operators."""
    draft = Draft(rng)
    for _ in range(rng.randint(1, 8)):
        rng.choice(OPERATORS)(draft)
    return draft.finish()


def elementwise(draft: Draft) -> None:
    operator = draft.rng.choice(UNARY)
    kinds = (TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT32, TensorProto.UINT8, TensorProto.FLOAT16)
    draft.add(operator, [draft.pick()], **({"to": draft.rng.choice(kinds)} if operator == "Cast" else {}))


def broadcast(draft: Draft) -> None:
    operator = draft.rng.choice(("Add", "Mul", "Div", "Sub", "Pow", "Max", "Min", "PRelu", "Greater", "Equal", "Where"))
    inputs = [draft.pick(), draft.pick()]
    if operator == "Where":
        inputs = [draft.add("Greater", inputs) or draft.weight(np.array([True, False])), *inputs]
    draft.add(operator, inputs)


def normalization(draft: Draft) -> None:
    x = draft.pick(2)
    channels = draft.shape(x)[1]
    if draft.rng.random() < 0.5:
        draft.add("BatchNormalization", [x, *(draft.weight(np.ones(channels, np.float32)) for _ in range(4))])
    elif draft.rng.random() < 0.5:
        draft.add("InstanceNormalization", [x, *(draft.weight(np.ones(channels, np.float32)) for _ in range(2))])
    else:
        axis = draft.axis(len(draft.shape(x)))
        scale = draft.weight(np.ones(draft.shape(x)[axis:], np.float32))
        draft.add("LayerNormalization", [x, scale], outputs=draft.rng.choice((1, 1, 3)), axis=axis)


def along_an_axis(draft: Draft) -> None:
    x = draft.pick(1)
    rng, rank = draft.rng, len(draft.shape(x))
    axis = draft.axis(rank)
    match rng.choice(("reduce", "softmax", "split", "pad")):
        case "reduce":
            operator = rng.choice(("ReduceMean", "ReduceSum", "ReduceL2", "ReduceMax"))
            axes = rng.choice(([axis], [axis], [axis], [axis, draft.axis(rank)], []))
            with_input = operator == "ReduceSum" or draft.opset >= 18
            chosen: dict[str, object] = {} if with_input or not axes else {"axes": axes}
            inputs = [x, draft.integers(axes)] if with_input and axes else [x]
            draft.add(operator, inputs, keepdims=rng.choice((0, 1, 1)), **chosen)
        case "softmax":
            draft.add("Softmax", [x], axis=axis)
        case "split":
            parts = rng.choice((1, 2, 3))
            if draft.opset >= 18 and rng.random() < 0.5:
                draft.add("Split", [x], outputs=parts, axis=axis, num_outputs=parts)
            else:
                length = draft.shape(x)[axis]
                sizes = [1] * (parts - 1) + [length - parts + 1]
                draft.add("Split", [x, draft.integers(sizes)], outputs=parts, axis=axis)
        case "pad":
            before, after = ([rng.choice((0, 0, 1, 50, -1)) for _ in range(rank)] for _ in range(2))
            if rng.random() < 0.9:
                before[0] = after[0] = 0
            draft.add("Pad", [x, draft.integers(before + after)], mode=rng.choice(("constant", "constant", "reflect")))


def repeated(draft: Draft) -> None:
    rng, x = draft.rng, draft.pick()
    operator, shape = rng.choice(("Expand", "Tile")), draft.shape(x)
    sizes = [rng.choice((1, 1, size, 7)) if operator == "Expand" else rng.choice((1, 2, 50)) for size in shape[1:]]
    rows = draft.add("Shape", [rng.choice(("latent", "label"))], start=0, end=1) if rng.random() < 0.5 else None
    first = rows or draft.integers([rng.choice((1, 1, ROWS, 3))])
    joined = draft.add("Concat", [first, draft.integers(sizes)], axis=0) if sizes else first
    if joined:
        draft.nodes.append(helper.make_node(operator, [x, joined], [f"t{len(draft.nodes)}"]))


def depth_to_space(draft: Draft) -> None:
    mode = draft.rng.choice(("DCR", "CRD"))
    draft.add("DepthToSpace", [draft.image()], blocksize=draft.rng.choice((1, 2, 2, 3, 0, -1)), mode=mode)


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
    channels = rng.choice((1, 2, 3, 20)) * (1 if transposed else group)
    size = [shape[1], channels, *kernel] if transposed else [channels, shape[1] // group, *kernel]
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


def quantize(draft: Draft) -> None:
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
    elementwise, elementwise, broadcast, broadcast, normalization, along_an_axis, along_an_axis, repeated,
    depth_to_space, concat, constant, convolution, convolution, gather, gemm, matmul, quantize, reshape, resize,
    shape_of, slice_, squeeze, transpose,
)  # fmt: skip
