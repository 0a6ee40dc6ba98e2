"""The generators that ship: checked against their bytes, their pixels, and the weights next to them."""

import hashlib

import onnx
import pytest

from models import checkpoint as checkpoints
from models.artifact import Generator
from models.seal import check_seal
from models.store import SHIPPED

FILE_SHA256 = {
    "mnist": "1602bafe27dbce2d4b6e03576a48868d16a94c374377768c77f3cefcb4e3515d",
    "mnist-fast": "a564b2f7f736ea73c0bdc1091449a17b51f11abf9ccebf6672e9ab3c33e012cd",
}
GOLDEN_SHA256 = {
    "mnist": "7e3d1b718a8d539a0e1db051d407bfcfe543c76c494d4b098b221569c4d211af",
    "mnist-fast": "e09eebfc272cd758e95b16dc2710f3b74beea3ba0207ffe2596913ab9d3d5597",
}
"""SHA-256 of the golden images as the card holds them: a new export of the same weights must draw the same pixels."""


@pytest.mark.parametrize("name", FILE_SHA256)
def test_a_shipped_generator_opens_renders_its_golden_images_and_comes_from_the_weights_beside_it(name):
    file = SHIPPED.with_stem(name)
    generator = Generator.open(file)
    assert check_seal(file.read_bytes()) == FILE_SHA256[name]
    assert hashlib.sha256(generator.card.golden.pixels.encode()).hexdigest() == GOLDEN_SHA256[name]
    assert generator.match.levels_off <= 1
    assert generator.card.conditional
    assert generator.card.checkpoint_sha256 == checkpoints.load(file.with_suffix(".safetensors")).sha256


@pytest.mark.parametrize("name", FILE_SHA256)
def test_a_shipped_generator_has_a_name_of_its_own_and_its_measured_quality(name):
    card = Generator.open(SHIPPED.with_stem(name)).card
    assert card.name == name
    assert card.quality["images"] == 10_000
    assert {"fid", "fid_ratio", "precision", "recall", "label_agreement", "accuracy_score"} <= card.quality.keys()


@pytest.mark.parametrize("name", FILE_SHA256)
def test_a_shipped_generator_opens_in_every_runtime_that_knows_its_opset(name):
    model = onnx.load(SHIPPED.with_stem(name))
    assert (model.opset_import[0].version, model.ir_version) == (20, 9)
