"""The generators that ship: held to their bytes, and to the weights beside them."""

import pytest

from models import checkpoint as checkpoints
from models.artifact import Generator
from models.seal import check_seal
from models.store import SHIPPED

FILE_SHA256 = {
    "mnist": "987065dfd8e3c6d24c1334af4dbc90f85461f941c2828136e3b1001e286ec641",
    "mnist-fast": "38e922fde99315381bfbdb6423129736c13f79cf057852054eb4321177a8c41b",
}


@pytest.mark.parametrize("name", FILE_SHA256)
def test_a_shipped_generator_opens_renders_its_golden_images_and_comes_from_the_weights_beside_it(name):
    file = SHIPPED.with_stem(name)
    generator = Generator.open(file)
    assert check_seal(file.read_bytes()) == FILE_SHA256[name]
    assert generator.match.levels_off <= 1
    assert generator.card.conditional
    assert generator.card.checkpoint_sha256 == checkpoints.load(file.with_suffix(".safetensors")).sha256
