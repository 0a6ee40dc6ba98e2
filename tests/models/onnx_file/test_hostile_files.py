"""Damaged and hostile files are rejected with a clear error, without a crash or a large allocation."""

import json
import random
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

from models.common.checksum import EMPTY_CHECKSUM, write_checksum
from models.common.errors import ModelFileError
from models.onnx_file.card import METADATA_KEY
from models.onnx_file.generator import Generator

FLIPS, CUTS, DAMAGED = 3_000, 1_000, 400


def test_thousands_of_flipped_bits_and_cuts_are_all_detected(files, capsys):
    whole, rng = files["conditional"].read_bytes(), random.Random(0)
    rejected = 0
    for _ in range(FLIPS):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        with pytest.raises(ModelFileError):
            Generator.from_bytes(bytes(damaged))
        rejected += 1
    for _ in range(CUTS):
        with pytest.raises(ModelFileError):
            Generator.from_bytes(whole[: rng.randrange(len(whole))])
        rejected += 1
    with capsys.disabled():
        print(f"\n{FLIPS:,} flipped and {CUTS:,} cut files tried: {rejected:,} rejected, 0 opened")


def test_damage_with_a_correct_checksum_neither_crashes_nor_raises_another_error(files, capsys):
    """The files are opened in another process with limited memory, which a crash or a large allocation would end."""
    code = f"""
import random, resource, sys
from models.onnx_file.card import METADATA_KEY
from models.onnx_file.generator import Generator
from models.common.errors import ModelFileError
from models.common.checksum import EMPTY_CHECKSUM, verify_checksum, write_checksum
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
whole = open({str(files["conditional"])!r}, "rb").read()
whole = whole.replace(verify_checksum(whole).encode(), EMPTY_CHECKSUM.encode())
rng, opened = random.Random(0), 0
structure = [*range(3_000), *range(len(whole) - 20_000, len(whole))]  # everything but the weights
for _ in range({DAMAGED}):
    damaged = bytearray(whole)
    for _ in range(rng.choice((1, 1, 3))):
        damaged[rng.choice(structure)] = rng.randrange(256)
    try:
        Generator.from_bytes(write_checksum(bytes(damaged)))
        opened += 1
    except ModelFileError:
        pass
print(opened)
"""
    fuzzed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert fuzzed.returncode == 0, fuzzed.stderr[-2000:]
    with capsys.disabled():
        opened = int(fuzzed.stdout.split()[-1])
        print(
            f"\n{DAMAGED} damaged files with a correct checksum tried: "
            f"{DAMAGED - opened} rejected, {opened} harmless, 0 crashes"
        )


def with_change(file: bytes, change: Callable[[ModelProto], None]) -> bytes:
    """Returns a model file after a change to its model, with a correct checksum."""
    model = onnx.load_from_string(file)
    model.metadata_props[0].value = json.dumps(
        json.loads(model.metadata_props[0].value) | {"file_sha256": EMPTY_CHECKSUM}
    )
    change(model)
    return write_checksum(model.SerializeToString())


def external(location: str) -> Callable[[ModelProto], None]:
    def change(model: ModelProto) -> None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)

    return change


def two_gigabytes_in_200_bytes(model: ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.dims[:] = [2**29]


def a_graph_that_grows(model: ModelProto) -> None:
    """Each step makes an image a million times as large as the one before it."""
    model.graph.initializer.append(numpy_helper.from_array(np.float32([1, 1, 1000, 1000]), "scales"))
    source = next(node for node in model.graph.node if node.op_type == "Tanh").output[0]
    shape = numpy_helper.from_array(np.array([-1, 1, 28, 28]), "square")
    model.graph.initializer.append(shape)
    at = len(model.graph.node)
    model.graph.node.insert(at, onnx.helper.make_node("Reshape", [source, "square"], ["grown0"]))
    for step in range(3):
        node = onnx.helper.make_node("Resize", [f"grown{step}", "", "scales"], [f"grown{step + 1}"])
        model.graph.node.insert(at + 1 + step, node)


def a_card(change: Callable[[dict], None]) -> Callable[[ModelProto], None]:
    def apply(model: ModelProto) -> None:
        card = json.loads(model.metadata_props[0].value)
        change(card)
        model.metadata_props[0].value = json.dumps(card)

    return apply


def a_loop(model: ModelProto) -> None:
    model.graph.node[0].op_type = "Loop"


def a_function(model: ModelProto) -> None:
    model.functions.add(name="f")


def a_foreign_domain(model: ModelProto) -> None:
    model.opset_import.add(domain="com.microsoft", version=1)


def a_card_that_is_no_json(model: ModelProto) -> None:
    model.metadata_props[0].value = 'not JSON, "file_sha256": "' + EMPTY_CHECKSUM + '"'


def two_cards(model: ModelProto) -> None:
    model.metadata_props.add(key=METADATA_KEY, value="{}")


def a_weight_with_an_empty_dimension(model: ModelProto) -> None:
    model.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[4, 0])


@pytest.mark.parametrize(
    ("message", "change"),
    [
        ("card: the file has 2 cards, exactly one is required", two_cards),
        (r"weights: w has the dimensions \[4, 0\]; each must be positive", a_weight_with_an_empty_dimension),
        ("weights: .* is stored in another file", external("../../../etc/passwd")),
        ("weights: .* is stored in another file", external("weights.bin")),
        ("weights: .* declares 2,147,483,648 bytes, but contains 0", two_gigabytes_in_200_bytes),
        ("sizes: grown1, which Resize computes, .* 784,000,000 elements a row", a_graph_that_grows),
        ("operators: ai.onnx.Loop is not an allowed operator", a_loop),
        ("standard domain: it contains functions", a_function),
        ("standard domain: it uses the operator domains", a_foreign_domain),
        ("card: it is not JSON with a card_version", a_card_that_is_no_json),
        ("card: latent_dim: ", a_card(lambda card: card.update(latent_dim="16"))),
        ("card: latent_dim: ", a_card(lambda card: card.update(latent_dim=2**40))),
        ("card: image_shape", a_card(lambda card: card.update(image_shape=[1, -28, 28]))),
        ("inputs and outputs: ", a_card(lambda card: card.update(image_shape=[1, 28, 29]))),
        ("card: golden.n", a_card(lambda card: card["golden"].update(n=10**9))),
        ("card: ", a_card(lambda card: card["dataset"].update(class_counts=[]))),
        ("card: extra: ", a_card(lambda card: card.update(extra=1))),
        ("card: golden.seed: ", a_card(lambda card: card["golden"].pop("seed"))),
    ],
)
def test_a_hostile_file_is_rejected_by_the_check_meant_for_it(files, message, change):
    with pytest.raises(ModelFileError, match=message):
        Generator.from_bytes(with_change(files["conditional"].read_bytes(), change))


def test_a_hard_link_next_to_the_file_is_not_followed(files, tmp_path):
    (tmp_path / "secret").write_bytes(b"\0" * 10**6)
    (tmp_path / "weights.bin").hardlink_to(tmp_path / "secret")
    (tmp_path / "a.onnx").write_bytes(with_change(files["conditional"].read_bytes(), external("weights.bin")))
    with pytest.raises(ModelFileError, match=r"a\.onnx: weights: .* is stored in another file"):
        Generator.open(tmp_path / "a.onnx")


@pytest.mark.parametrize("file", [b"", b"nonsense", b"\x08\x0a" * 100, b'"file_sha256": "' + b"0" * 64 + b'"'])
def test_a_file_of_another_kind_is_rejected(file):
    with pytest.raises(ModelFileError):
        Generator.from_bytes(file)
