import pytest
import torch
from torch import nn

from models.checkpoint import Checkpoint
from models.export import exporter
from models.networks import FlopCounter, NetworkConfig, build_discriminator, build_generator, multiply_adds
from models.onnx_file.card import Dataset, Training
from training.config import Config
from training.evaluation import cost
from training.presets import PRESETS
from training.state import generator_config

IMAGE = (1, 28, 28)
DIGITS = Dataset("digits", "0" * 64, IMAGE, tuple("0123456789"), (1,) * 10)


def test_multiply_adds_of_the_textbook_generator_equal_a_count_by_hand():
    generator = build_generator(NetworkConfig("mlp", IMAGE, (256, 512), latent_dim=100))
    assert multiply_adds(generator, torch.zeros(3, 100)) == 100 * 256 + 256 * 512 + 512 * 784


def test_multiply_adds_of_convolutions_equal_a_count_by_hand():
    discriminator = build_discriminator(NetworkConfig("dcgan", IMAGE, (4, 8)))
    by_hand = 14 * 14 * 16 * 1 * 4 + 7 * 7 * 16 * 4 * 8 + 7 * 7 * 8
    assert multiply_adds(discriminator, torch.zeros(3, *IMAGE)) == by_hand


def test_counting_multiply_adds_does_not_change_the_network():
    generator = build_generator(NetworkConfig("dcgan", IMAGE, (16, 8), latent_dim=12)).train()
    before = {name: weight.clone() for name, weight in generator.state_dict().items()}
    multiply_adds(generator, torch.randn(3, 12))
    assert generator.training
    assert all(torch.equal(weight, before[name]) for name, weight in generator.state_dict().items())


def test_the_counter_includes_double_backward():
    layer, inputs = nn.Linear(4, 3, bias=False), torch.randn(2, 4, requires_grad=True)
    with FlopCounter() as counter:
        (gradient,) = torch.autograd.grad(layer(inputs).square().sum(), inputs, create_graph=True)
        forward_and_backward = counter.flops
        gradient.square().sum().backward()
    assert forward_and_backward == 2 * (2 * 2 * 4 * 3)
    assert counter.flops > forward_and_backward


@pytest.mark.parametrize(
    "preset", [pytest.param(name, marks=() if name in ("mlp", "fast") else pytest.mark.slow) for name in PRESETS]
)
def test_a_preset_and_its_onnx_file_have_the_same_number_of_multiply_adds(monkeypatch, preset):
    monkeypatch.setattr(
        exporter, "measure_parity", lambda *_: ()
    )  # the counts do not depend on it, and it takes longest
    monkeypatch.setattr(cost, "ROUND_SECONDS", 0.01)
    generator = build_generator(generator_config(Config(preset=preset, **PRESETS[preset]), DIGITS))
    weights = {f"generator.{name}": weight for name, weight in generator.state_dict().items()}
    checkpoint = Checkpoint(weights, generator.config, DIGITS, Training({"preset": preset}, 0, 0, None, {}))
    classes = generator.config.classes
    inputs = (torch.zeros(1, generator.config.latent_dim), *([torch.zeros(1, dtype=torch.int64)] if classes else []))
    file = exporter.export(checkpoint).generator
    assert cost.measure_cost(file).multiply_adds == multiply_adds(generator, *inputs)
