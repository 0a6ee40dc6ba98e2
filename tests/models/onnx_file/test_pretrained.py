"""The pretrained generators have the expected bytes and pixels, and come from the weights next to them."""

import hashlib

import onnx
import pytest

from models.checkpoint import load_checkpoint
from models.common.checksum import verify_checksum
from models.onnx_file.generator import Generator
from models.onnx_file.store import SHIPPED

FILE_SHA256 = {
    "mnist": "bfb7abd4e0cdd8993dbb68763c93ae540ae364e1f7071b221c366a66e555a1c2",
    "mnist-fast": "d781406a130cda69223775251bf724b712bf79669f9f9795a519aec72172888d",
}
GOLDEN_SHA256 = {
    "mnist": "93b70c51452129d09e78cbf05380839d905be4a762f77a4b228bc4f67ef59031",
    "mnist-fast": "98a3ded2e133aa0fb4dbf64c4d61abbd53c1b303225973f57ed19f0a147775db",
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
