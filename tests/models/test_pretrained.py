"""The generators that ship: held to their bytes, and to the weights beside them."""

import pytest

from models import checkpoint as checkpoints
from models.artifact import Generator
from models.seal import check_seal
from models.store import SHIPPED

FILE_SHA256 = {
    "mnist": "469ad70d8682532748f390c27198add413e9f1490fe68f2ac063815f7cf65346",
    "mnist-fast": "560b2ad43372500663c5e0061f8ce3ba86831dee081255f3ea3802b142e80fc7",
}


@pytest.mark.parametrize("name", FILE_SHA256)
def test_a_shipped_generator_opens_renders_its_golden_images_and_comes_from_the_weights_beside_it(name):
    file = SHIPPED.with_stem(name)
    generator = Generator.open(file)
    assert check_seal(file.read_bytes()) == FILE_SHA256[name]
    assert generator.match.levels_off <= 1
    assert generator.card.conditional
    assert generator.card.checkpoint_sha256 == checkpoints.load(file.with_suffix(".safetensors")).sha256
