"""The generator that ships: held to its bytes, and to the weights beside it."""

from models import checkpoint as checkpoints
from models.artifact import Generator
from models.seal import check_seal
from models.store import SHIPPED


def test_the_shipped_generator_opens_renders_its_golden_images_and_comes_from_the_weights_beside_it():
    generator = Generator.open(SHIPPED)
    assert check_seal(SHIPPED.read_bytes()) == FILE_SHA256
    assert generator.match.levels_off <= 1
    assert generator.card.conditional
    assert generator.card.checkpoint_sha256 == checkpoints.load(SHIPPED.with_suffix(".safetensors")).sha256


FILE_SHA256 = "a63bba5be884a6f96e51793d4b8796d7b392554c7d7c43b6b49b9a34c5e20157"
