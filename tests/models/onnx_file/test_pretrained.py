"""The pretrained generators have the expected bytes and pixels, and come from the weights next to them."""

import hashlib

import onnx
import pytest

from models.checkpoint import load_checkpoint
from models.common.checksum import verify_checksum
from models.onnx_file.generator import Generator
from models.onnx_file.store import SHIPPED

FILE_SHA256 = {
    "mnist": "22d9841f1da9defc14f0530c9f2173833ced369d984e2cb5fb0edcdc6394dd9c",
    "mnist-fast": "225fb13c0b7c199c315a076eb8870903828db034fab836b8c631840f97f7e30c",
}
GOLDEN_SHA256 = {
    "mnist": "534abc80dc449ea00b6e76e075e491392d36e5af9089446715e4f3ba16540933",
    "mnist-fast": "172986ff36aaefd785cec1125f5a8a811c339b7d723752f0d2617e6622764b69",
}
"""SHA-256 of the text of the golden images in the card. A new export of the same weights renders the same pixels."""


@pytest.mark.parametrize("name", FILE_SHA256)
def test_a_pretrained_generator_opens_and_comes_from_the_weights_next_to_it(name):
    file = SHIPPED.with_stem(name)
    generator = Generator.open(file)
    assert verify_checksum(file.read_bytes()) == FILE_SHA256[name]
    assert hashlib.sha256(generator.card.golden.pixels.encode()).hexdigest() == GOLDEN_SHA256[name]
    assert generator.golden_comparison.levels_off <= 1
    assert generator.card.conditional
    assert generator.card.origin.checkpoint_sha256 == load_checkpoint(file.with_suffix(".safetensors")).sha256


@pytest.mark.parametrize("name", FILE_SHA256)
def test_a_pretrained_generator_has_its_name_and_its_measured_quality(name):
    card = Generator.open(SHIPPED.with_stem(name)).card
    assert card.name == name
    assert card.quality["images"] == 10_000
    assert {"fid", "fid_ratio", "precision", "recall", "label_agreement", "accuracy_score"} <= card.quality.keys()


@pytest.mark.parametrize("name", FILE_SHA256)
def test_a_pretrained_generator_has_the_oldest_format_version_of_its_opset(name):
    model = onnx.load(SHIPPED.with_stem(name))
    assert (model.opset_import[0].version, model.ir_version) == (20, 9)
