"""Builds graphs for tests, operator by operator, and the model files that contain them."""

import math
import random
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
"""Latent size, and channels, height and width of the images of all graphs."""
ROWS = 2
"""Number of rows for which shapes are computed while a graph is built. Most graphs then fit any number of rows."""
LARGE = 2**12
"""Random operators rarely continue from a tensor with more elements than this."""


def small_card() -> Card:
    """Returns the card of a small class-conditional generator whose images are black."""
    shipped = graph_checks.read_card(onnx.load(SHIPPED.with_stem("mnist-fast")))
    golden = Golden(seed=0, n=ROWS, pixels=pack_golden(np.zeros((ROWS, *IMAGE), np.uint8)))
    return replace(shipped, latent_dim=LATENT, image_shape=IMAGE, golden=golden, file_sha256=EMPTY_CHECKSUM)


def model_file(model: ModelProto, card: Card) -> bytes:
    """Returns a model file with this card and a correct checksum."""
    del model.metadata_props[:]
    model.metadata_props.add(key=METADATA_KEY, value=card.to_json())
    return write_checksum(model.SerializeToString())


@dataclass
class Draft:
    """A graph that is being built, with the types of its tensors for a batch of `ROWS` rows."""

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
        """Returns a tensor of at least this rank and of this type: the last one, another one, or a new weight."""
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
        """Returns a tensor that may be an image: one of at least three dimensions, or the reshaped latent."""
        if self.rng.random() < 0.5:
            return self.pick(least_rank=3)
        channels = self.rng.choice((1, 2, 4))
        target = self.integers([self.rng.choice((-1, 0)), channels, 4 // channels, 1])
        return self.add("Reshape", ["latent", target]) or "latent"

    def axis(self, rank: int) -> int:
        """Returns an axis of a tensor of this rank, rarely the first."""
        axis = self.rng.randrange(1, rank) if rank > 1 and self.rng.random() < 0.9 else self.rng.randrange(max(rank, 1))
        return axis - rank if self.rng.random() < 0.2 else axis

    def weight(self, values: NDArray) -> str:
        name = f"weight{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        self.types[name] = helper.make_tensor_type_proto(self.weights[-1].data_type, values.shape)
        return name

    def integers(self, values: list[int]) -> str:
        return self.weight(np.array(values, np.int64))

    def add(self, operator: str, inputs: list[str], outputs: int = 1, **attributes: object) -> str | None:
        """Adds an operator if its inputs fit, and sometimes if not.

        Returns its first output; None for an unknown shape. Other outputs are not used by later operators.
        """
        output = f"t{len(self.nodes)}"
        names = [output, *(f"{output}_{i}" for i in range(1, outputs))]
        node = helper.make_node(operator, inputs, names, **attributes)
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
        """Adds a black image that depends on the last tensor, and returns the graph."""
        zero = self.weight(np.zeros((1, 1, 1, 1), np.float32))
        element = self.last
        rank = len(self.shape(element))
        if rank:
            first = 0 if self.shape(element)[0] != ROWS else 1
            axes = list(range(first, rank))
            starts, ends = self.integers([0] * len(axes)), self.integers([1] * len(axes))
            self.append("Slice", [element, starts, ends, self.integers(axes)], "element")
            element = "element"
        self.append("Reshape", [element, self.integers([-1, 1, 1, 1])], "column")
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
        graph = helper.make_graph(self.nodes, "hostile", inputs, outputs, self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=9)

    def append(self, operator: str, inputs: list[str], output: str, **attributes: object) -> str:
        """Adds an operator without a check, and returns its output."""
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output


def new_draft() -> Draft:
    """Returns a graph without operators; its random choices are always the same."""
    return Draft(random.Random(0))


def image(graph: Draft, *shape: int) -> str:
    """Adds operators that turn the latent into a tensor [batch, *shape], and returns it."""
    flat = graph.append("Reshape", ["latent", graph.integers([-1, *[1] * (len(shape) - 1), LATENT])], "flat_image")
    scales = graph.weight(np.array([1, *shape[:-1], shape[-1] / LATENT], np.float32))
    return graph.append("Resize", [flat, "", scales], "large_image")


def with_all_outputs(model: ModelProto) -> bytes:
    """Returns an ONNX file of the graph in which every computed tensor is an output."""
    copy = ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    names = [name for node in model.graph.node for name in node.output]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return copy.SerializeToString()
