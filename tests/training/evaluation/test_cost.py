"""The cost of a model file, compared with the network that it was exported from."""

import pytest
import torch
from torch import nn

from models.checkpoint import Checkpoint
from models.export.exporter import export
from models.networks import NetworkConfig, build_generator, multiply_adds, parameter_count
from models.onnx_file.card import Dataset, Training
from training.evaluation import cost

DIGITS = Dataset("digits", "0" * 64, (1, 28, 28), tuple("0123456789"), (1,) * 10)


@pytest.mark.parametrize(
    ("architecture", "widths", "classes"),
    [("mlp", (16, 32), 10), ("dcgan", (16, 8), 0), pytest.param("residual", (16, 8, 8), 0, marks=pytest.mark.slow)],
)
def test_a_file_has_the_cost_of_its_network(monkeypatch, architecture, widths, classes):
    """The parameters differ by those of batch norms that the exporter folds into convolutions."""
    monkeypatch.setattr(cost, "ROUND_SECONDS", 0.01)
    config = NetworkConfig(architecture, DIGITS.image_shape, widths, classes, latent_dim=12)
    generator = build_generator(config)
    for parameter in generator.parameters():  # The exporter would store equal tensors, such as zeros, once.
        parameter.data += 0.1 * torch.randn_like(parameter)
    weights = {f"generator.{name}": weight for name, weight in generator.state_dict().items()}
    exported = export(Checkpoint(weights, config, DIGITS, Training({"preset": architecture}, 0, 0, None, {}))).generator

    measured = cost.measure_cost(exported)
    inputs = (torch.zeros(1, 12), *([torch.zeros(1, dtype=torch.int64)] if classes else []))
    norms = [module.num_features for module in generator.modules() if isinstance(module, nn.BatchNorm2d)]
    # The first batch norm is kept, with its running mean and variance. The others are folded into the convolutions
    # before them: of their two parameters per channel, only the bias is left.
    difference = 2 * norms[0] - sum(norms[1:]) if norms else 0
    assert measured.parameters == parameter_count(generator) + difference
    assert measured.multiply_adds == multiply_adds(generator, *inputs)
    assert measured.bytes == len(exported.file)
    assert measured.images_per_second > 0
