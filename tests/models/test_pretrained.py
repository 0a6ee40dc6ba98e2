"""The generators that ship: held to their bytes, and to the weights beside them."""

import pytest

from models import checkpoint as checkpoints
from models.artifact import Generator
from models.seal import check_seal
from models.store import SHIPPED

FILE_SHA256 = {
    "mnist": "5760ac953e0533d445ece18b0eef8b743b61c6d2722629c5b4c1cf74c2626765",
    "mnist-fast": "d8fc1bc8563b584f6f3b80a939e2788c35bb2e784f44bcd782b254c536c54860",
}


@pytest.mark.parametrize("name", FILE_SHA256)
def test_a_shipped_generator_opens_renders_its_golden_images_and_comes_from_the_weights_beside_it(name):
    file = SHIPPED.with_stem(name)
    generator = Generator.open(file)
    assert check_seal(file.read_bytes()) == FILE_SHA256[name]
    assert generator.match.levels_off <= 1
    assert generator.card.conditional
    assert generator.card.checkpoint_sha256 == checkpoints.load(file.with_suffix(".safetensors")).sha256
