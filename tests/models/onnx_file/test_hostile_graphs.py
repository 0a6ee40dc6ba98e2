"""A graph that passes the checks takes no more memory than was computed before it was opened."""

import random
from collections import Counter

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, helper

from models.common.checksum import EMPTY_CHECKSUM, verify_checksum, write_checksum
from models.common.errors import GraphError, ModelFileError
from models.onnx_file import graph_checks, graph_memory
from models.onnx_file.generator import Generator
from models.onnx_file.graph_memory import measure_memory
from models.onnx_file.session import MAX_ROWS_PER_RUN, open_session
from models.onnx_file.shape_inference import BATCH
from tests.models.onnx_file.graph_draft import LATENT, Draft, image, model_file, new_draft, small_card, with_all_outputs
from tests.models.onnx_file.hostile_graphs import hostile_graph

CARD = small_card()


def try_graph(seed: int) -> tuple[str, float]:
    """Opens the file of a random graph and runs it with all of its tensors as outputs.

    Returns:
        Outcome for the file, and the elements of its tensors as a share of the computed number.
    """
    model = hostile_graph(random.Random(seed))
    try:
        Generator.from_bytes(model_file(model, CARD))
    except GraphError:
        return "rejected", 0.0
    except ModelFileError as error:
        if not str(error).startswith(("onnxruntime", "golden images")):
            raise
        outcome = "rejected by onnxruntime"
    else:
        outcome = "opened"
    computed = measure_memory(model)
    share = 0.0
    try:
        session = open_session(with_all_outputs(model))
    except ModelFileError:
        return outcome, share
    for rows in (1, 2, 3, 7):
        feeds = {"latent": np.ones((rows, LATENT), np.float32), "label": np.arange(rows) % 10}
        try:
            tensors = dict(zip((o.name for o in session.get_outputs()), session.run(None, feeds), strict=True))
        except Exception:  # onnxruntime's own exceptions share no base class but this
            continue
        for name, tensor in tensors.items():
            expected = tuple(rows if size == BATCH else size for size in computed.shapes[name])
            assert tensor.shape == expected, f"seed {seed}: {name} has {tensor.shape} at {rows} rows"
        share = max(share, sum(map(np.size, tensors.values())) / (computed.fixed + rows * computed.row))
    return outcome, share


def try_graphs(seeds: range) -> str:
    """Tries the graphs of these seeds, checks the outcomes, and returns a line that counts them."""
    outcomes, worst = Counter(), 0.0
    for seed in seeds:
        outcome, share = try_graph(seed)
        outcomes[outcome] += 1
        worst = max(worst, share)
    counted = ", ".join(f"{n:,} {outcome}" for outcome, n in sorted(outcomes.items()))
    assert outcomes["opened"] > len(seeds) / 10
    assert outcomes["rejected"] > len(seeds) / 10
    assert worst <= 1
    return f"{len(seeds):,} hostile graphs: {counted}; at most {worst:.3f} of the computed elements"


@pytest.fixture
def small_limits(monkeypatch):
    """Lowers the limits, so that a test with many graphs takes seconds."""
    monkeypatch.setattr(graph_memory, "MAX_ELEMENTS", 2**17)
    monkeypatch.setattr(graph_memory, "MAX_RUN_ELEMENTS", 2**21)


def test_no_random_graph_that_is_accepted_exceeds_the_computed_size(small_limits, capsys):
    line = try_graphs(range(200))
    with capsys.disabled():
        print(f"\n{line}")


def test_random_graphs_contain_every_allowed_operator():
    drawn = {node.op_type for seed in range(500) for node in hostile_graph(random.Random(seed)).graph.node}
    assert drawn == graph_checks.OPERATORS


@pytest.mark.slow
def test_none_of_thousands_of_random_graphs_that_are_accepted_exceeds_the_computed_size(small_limits, capsys):
    line = try_graphs(range(1_000, 6_000))
    with capsys.disabled():
        print(f"\n{line}")


def rows_that_double(graph: Draft) -> None:
    """ONNX infers no number for the first dimension of these tensors."""
    for step in range(40):
        name = f"doubled{step - 1}" if step else "latent"
        graph.append("Concat", [name, name], f"doubled{step}", axis=0)


def ranks_that_double(graph: Draft) -> None:
    name = graph.integers([[0]])
    for step in range(40):
        name = graph.append("Gather", [name, name], f"gathered{step}")


def sizes_that_double(graph: Draft) -> None:
    """An inference that follows the values of shapes would store 2^40 of them."""
    name = graph.append("Shape", ["latent"], "shape")
    for step in range(40):
        name = graph.append("Concat", [name, name], f"joined{step}", axis=0)


def a_product_of_the_batch_with_itself(graph: Draft) -> None:
    column = graph.append("Unsqueeze", ["label", graph.integers([1])], "column")
    graph.append("Add", ["label", column], "square")


def rows_by_the_value_of_a_shape(graph: Draft) -> None:
    rows = graph.append("Shape", ["latent"], "rows", start=0, end=1)
    square = graph.append("Concat", [rows, rows], "pair", axis=0)
    graph.append("Reshape", ["latent", square], "square")


def a_cropped_transposed_convolution(graph: Draft) -> None:
    kernel = graph.weight(np.ones((1, 1, 512, 512), np.float32))
    graph.append("ConvTranspose", [image(graph, 1, 64, 64), kernel], "cropped", pads=[270] * 4)


def a_transposed_convolution_with_output_shape(graph: Draft) -> None:
    """ONNX infers [batch, 1] for its shape."""
    kernel = graph.weight(np.ones((1, 1, 3, 3), np.float32))
    graph.append("ConvTranspose", [image(graph, 1, 4, 4), kernel], "grown", output_shape=[6000, 6000])


def a_transposed_convolution_with_output_padding(graph: Draft) -> None:
    kernel = graph.weight(np.ones((1, 1, 3, 3), np.float32))
    attributes = {"auto_pad": "SAME_UPPER", "output_padding": [0, 1], "strides": [3, 2]}
    graph.append("ConvTranspose", [image(graph, 1, 4, 4), kernel], "grown", **attributes)


def a_convolution_without_strides(graph: Draft) -> None:
    kernel = graph.weight(np.ones((1, 1, 3, 3), np.float32))
    graph.append("Conv", [image(graph, 1, 4, 4), kernel], "divided", strides=[0, 0])


def a_resize_with_filtered_rows(graph: Draft) -> None:
    scales = graph.weight(np.array([1, 1, 1 / 4096, 4096], np.float32))
    graph.append("Resize", [image(graph, 1, 4096, 1), "", scales], "wide", mode="linear", antialias=1)


def a_resize_whose_rows_depend_on_its_height(graph: Draft) -> None:
    large = image(graph, 1, 4, 4)
    head = graph.append("Shape", [large], "head", start=0, end=2)
    target = graph.append("Concat", [head, graph.integers([1, 1000])], "target", axis=0)
    graph.append("Resize", [large, "", "", target], "resized", keep_aspect_ratio_policy="not_smaller")


def more_rows_by_a_scale(graph: Draft) -> None:
    scales = graph.weight(np.array([1.9, 1, 1, 1], np.float32))
    graph.append("Resize", [image(graph, 1, 4, 4), "", scales], "more")


def a_stack_of_small_matrices(graph: Draft) -> None:
    """Each matrix takes about 100 bytes in addition to its one number."""
    graph.append("MatMul", [image(graph, 8_000_000, 1, 1), graph.weight(np.ones((1, 1), np.float32))], "product")


def constants_that_are_computed_when_the_file_is_opened(graph: Draft) -> None:
    name = graph.weight(np.ones((1, 4096), np.float32))
    for step in range(20):
        name = graph.append("Concat", [name, name], f"constant{step}", axis=0)


def large_weights_from_a_small_file(graph: Draft) -> None:
    scales = graph.weight(np.array([1, 1, 4000, 4000], np.float32))
    kernel = graph.append("Resize", [graph.weight(np.ones((1, 1, 1, 1), np.float32)), "", scales], "kernel")
    graph.append("ConvTranspose", [image(graph, 1, 16, 16), kernel], "cropped", pads=[2000] * 4)


def many_operators(graph: Draft) -> None:
    for step in range(5_000):
        graph.append("Relu", [f"deep{step - 1}" if step else "latent"], f"deep{step}")


def a_tensor_that_two_operators_output(graph: Draft) -> None:
    for _ in range(2):
        graph.append("Relu", ["latent"], "twice")


def an_integer_division(graph: Draft) -> None:
    graph.append("Div", ["label", graph.integers([0])], "quotient")


def a_mean_over_the_batch(graph: Draft) -> None:
    graph.append("ReduceMean", ["latent"], "mean", keepdims=1)


def a_norm_over_unknown_axes(graph: Draft) -> None:
    axes = graph.append("Cast", ["latent"], "axes", to=7)
    graph.append("ReduceL2", ["latent", axes], "norm")


def a_softmax_over_the_batch(graph: Draft) -> None:
    graph.append("Softmax", ["latent"], "shares", axis=-2)


def a_normalization_over_the_batch(graph: Draft) -> None:
    graph.append("LayerNormalization", ["latent", graph.weight(np.ones((1, LATENT), np.float32))], "normal", axis=0)


def a_split_of_the_batch(graph: Draft) -> None:
    graph.nodes.append(helper.make_node("Split", ["latent"], ["upper", "lower"], axis=0, num_outputs=2))


def a_slope_that_is_larger_than_its_input(graph: Draft) -> None:
    graph.append("PRelu", [image(graph, 1, 1, LATENT), "latent"], "grown")


def an_expansion_to_a_large_size(graph: Draft) -> None:
    rows = graph.append("Shape", ["latent"], "rows", start=0, end=1)
    sizes = graph.append("Concat", [rows, graph.integers([10_000, 10_000])], "sizes", axis=0)
    graph.append("Expand", [graph.weight(np.ones((1, 1, 1), np.float32)), sizes], "large")


def an_expansion_to_the_square_of_the_batch(graph: Draft) -> None:
    rows = graph.append("Shape", ["latent"], "rows", start=0, end=1)
    sizes = graph.append("Concat", [rows, rows], "sizes", axis=0)
    graph.append("Expand", [graph.weight(np.ones((1, 1), np.float32)), sizes], "square")


def an_expansion_to_computed_sizes(graph: Draft) -> None:
    sizes = graph.append("Cast", [graph.append("Exp", ["latent"], "large")], "sizes", to=7)
    graph.append("Expand", ["latent", sizes], "expanded")


def more_rows_by_a_tile(graph: Draft) -> None:
    graph.append("Tile", ["latent", graph.integers([1_000_000, 1])], "tiled")


def tiles_that_double(graph: Draft) -> None:
    for step in range(40):
        graph.append("Tile", [f"tiled{step - 1}" if step else "latent", graph.integers([1, 2])], f"tiled{step}")


def a_large_border(graph: Draft) -> None:
    graph.append("Pad", [image(graph, 1, 4, 4), graph.integers([0, 0, 10_000, 0, 0, 0, 0, 10_000])], "padded")


def a_border_of_distant_pixels(graph: Draft) -> None:
    graph.append("Pad", [image(graph, 1, 4, 4), graph.integers([0, 0, 100, 0, 0, 0, 0, 0])], "padded", mode="reflect")


def more_rows_by_a_border(graph: Draft) -> None:
    graph.append("Pad", ["latent", graph.integers([0, 0, 1000, 0])], "padded")


def blocks_without_a_size(graph: Draft) -> None:
    graph.append("DepthToSpace", [image(graph, 4, 2, 2)], "blocks", blocksize=0)


def many_positions_of_a_mean(graph: Draft) -> None:
    """Each of these operators outputs few elements, but lists the positions of all that it reads."""
    large = image(graph, 1, 4000, 4000)
    for step in range(5):
        graph.append("ReduceMean", [large, graph.integers([2, 3])], f"mean{step}")


@pytest.mark.parametrize(
    ("message", "add"),
    [
        ("sizes: Div divides integers", an_integer_division),
        ("ReduceMean combines the rows of latent", a_mean_over_the_batch),
        ("ReduceL2 combines the rows of latent, or its axes are unknown", a_norm_over_unknown_axes),
        ("Softmax combines the rows of latent", a_softmax_over_the_batch),
        ("LayerNormalization combines the rows of latent", a_normalization_over_the_batch),
        ("Split combines the rows of latent", a_split_of_the_batch),
        ("latent, the slope of PRelu, does not fit large_image", a_slope_that_is_larger_than_its_input),
        ("large, which Expand computes, .* 100,000,000 elements a row", an_expansion_to_a_large_size),
        (r"square, which Expand computes, has the shape \[batch, batch\]", an_expansion_to_the_square_of_the_batch),
        ("Expand has unknown sizes", an_expansion_to_computed_sizes),
        (r"Tile to \[1000000, 1\] does not fit latent", more_rows_by_a_tile),
        ("tiled22, which Tile computes, .* 33,554,432 elements a row", tiles_that_double),
        ("padded, which Pad computes, .* elements a row", a_large_border),
        ("Pad has mode b'reflect'; only b'constant' is allowed", a_border_of_distant_pixels),
        (r"padded, which Pad computes, has the shape \[\?, 4\]", more_rows_by_a_border),
        ("DepthToSpace has blocksize 0; 1 to", blocks_without_a_size),
        ("a run of one row takes memory for 5.* elements", many_positions_of_a_mean),
        (r"doubled0, which Concat computes, has the shape \[\?, 4\]", rows_that_double),
        ("gathered2, which Gather computes, has 9 dimensions, maximum 8", ranks_that_double),
        ("joined23, which Concat computes, .* 33,554,432 elements a row", sizes_that_double),
        (r"square, which Add computes, has the shape \[batch, batch\]", a_product_of_the_batch_with_itself),
        (r"Reshape to \[batch, batch\] mixes the rows of latent or changes their number", rows_by_the_value_of_a_shape),
        ("a run of one row takes memory for 1,1.* elements", a_cropped_transposed_convolution),
        ("ConvTranspose has output_shape", a_transposed_convolution_with_output_shape),
        ("ConvTranspose has auto_pad", a_transposed_convolution_with_output_padding),
        ("Conv has strides 0; 1 to 16,777,216 are allowed", a_convolution_without_strides),
        ("Resize has antialias 1; only 0 is allowed", a_resize_with_filtered_rows),
        ("Resize has keep_aspect_ratio_policy", a_resize_whose_rows_depend_on_its_height),
        (r"Resize to \[1.89.*, 1.0, 1.0, 1.0\] mixes the rows", more_rows_by_a_scale),
        ("a run of one row takes memory for 2.* elements", a_stack_of_small_matrices),
        (
            "constant12, which Concat computes, .* 33,554,432 elements a row",
            constants_that_are_computed_when_the_file_is_opened,
        ),
        ("a run of one row takes memory for 8,4.* elements", large_weights_from_a_small_file),
        ("it has 5,010 operators, at most 4,096 are allowed", many_operators),
        ("two tensors have the name twice", a_tensor_that_two_operators_output),
    ],
)
def test_a_graph_that_would_exhaust_memory_is_rejected_before_it_is_opened(message, add):
    graph = new_draft()
    add(graph)
    with pytest.raises(GraphError, match=message):
        Generator.from_bytes(model_file(graph.finish(), CARD))


def test_a_graph_without_additions_is_opened():
    """This shows that the graphs above are rejected for the operators that were added to them."""
    assert Generator.from_bytes(model_file(new_draft().finish(), CARD)).rows_per_run == MAX_ROWS_PER_RUN


def test_a_run_has_fewer_rows_where_a_row_takes_much_memory(monkeypatch):
    file = model_file(new_draft().finish(), CARD)
    computed = measure_memory(ModelProto.FromString(file))
    latents, labels = np.ones((10, LATENT), np.float32), np.zeros(10, np.int64)
    expected = Generator.from_bytes(file).decode(latents, labels)
    monkeypatch.setattr(graph_memory, "MAX_RUN_ELEMENTS", computed.fixed + 3 * computed.row + 1)
    generator = Generator.from_bytes(file)
    assert generator.rows_per_run == 3
    np.testing.assert_array_equal(generator.decode(latents, labels), expected)
    monkeypatch.setattr(graph_memory, "MAX_RUN_ELEMENTS", computed.fixed + computed.row - 1)
    with pytest.raises(GraphError, match="a run of one row takes memory"):
        Generator.from_bytes(file)


@pytest.mark.parametrize(
    ("message", "change"),
    [
        (
            "format: without weights and metadata it has more than",
            lambda m: m.graph.node.extend([NodeProto()] * 2**19),
        ),
        ("format: without weights and metadata it has more than", lambda m: setattr(m, "doc_string", "x" * 2**20)),
        ("weights: many has 100,000 dimensions", lambda m: m.graph.initializer.add(name="many", dims=[1] * 100_000)),
        ("standard domain: it uses the operator domains", lambda m: m.opset_import.add(domain="ai.onnx", version=1)),
        ("standard domain: its opset is 7", lambda m: setattr(m.opset_import[0], "version", 7)),
        ("card: it is too large: at most .* values", lambda m: m.metadata_props.add(key="card", value="[" * 2**21)),
    ],
)
def test_a_file_that_would_take_much_memory_to_check_is_rejected(message, change):
    model = new_draft().finish()
    plain = ModelProto.FromString(model_file(model, CARD))
    if message.startswith("card"):
        card_text = plain.metadata_props.pop().value
        change(plain)
        plain.metadata_props[0].value += card_text
    else:
        change(plain)
    with pytest.raises(ModelFileError, match=message):
        Generator.from_bytes(
            write_checksum(
                plain.SerializeToString().replace(
                    verify_checksum(model_file(model, CARD)).encode(), EMPTY_CHECKSUM.encode()
                )
            )
        )
