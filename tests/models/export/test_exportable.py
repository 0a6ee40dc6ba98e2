"""Checks before training reject the generators that the export would reject after it."""

import pytest

from models.export import exportable
from models.export.exportable import NotExportableError, check_exportable, estimate_sizes
from models.export.exporter import graph_sizes
from models.networks import NetworkConfig, build_generator
from models.onnx_file import graph_memory


@pytest.mark.parametrize(
    ("architecture", "widths"),
    [
        pytest.param("mlp", (32, 64), marks=pytest.mark.slow),
        ("dcgan", (16, 8)),
        pytest.param("dcgan", (16, 8, 8), marks=pytest.mark.slow),
        pytest.param("residual", (16, 8, 8), marks=pytest.mark.slow),
    ],
)
def test_a_generator_is_rejected_before_training_exactly_if_its_exported_graph_would_be(
    monkeypatch, architecture, widths
):
    config = NetworkConfig(architecture, (1, 30, 30), widths, classes=10, latent_dim=64)
    exact = graph_sizes(build_generator(config)).elements
    least, most = exportable.UNCERTAIN
    assert least < estimate_sizes(build_generator(config)).elements / exact < most
    for limit in (exact, exact - 1):
        monkeypatch.setattr(graph_memory, "MAX_ELEMENTS", limit)
        if limit == exact:
            check_exportable(config)
        else:
            with pytest.raises(NotExportableError, match=f"{exact:,} elements"):
                check_exportable(config)


@pytest.mark.parametrize(
    ("limit", "message"),
    [("MAX_RUN_ELEMENTS", "a run of one row takes memory for"), ("MAX_NODES", "it has .* operators, at most")],
)
def test_every_limit_of_a_model_file_is_checked_before_training(monkeypatch, limit, message):
    config = NetworkConfig("dcgan", (1, 8, 8), (1,), latent_dim=4)
    memory = graph_sizes(build_generator(config))
    needed = {"MAX_RUN_ELEMENTS": memory.fixed + memory.row, "MAX_NODES": memory.operators}[limit]
    monkeypatch.setattr(graph_memory, limit, needed)
    check_exportable(config)
    monkeypatch.setattr(graph_memory, limit, needed - 1)
    with pytest.raises(NotExportableError, match=message):
        check_exportable(config)
