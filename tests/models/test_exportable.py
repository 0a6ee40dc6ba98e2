"""Before training, generators are refused that the graph check would refuse after it."""

import pytest

from models import exportable
from models.architectures import NetworkConfig, build_generator
from models.exportable import NotExportableError, check_exportable, estimate_elements
from models.exporter import graph_elements


@pytest.mark.parametrize(
    ("architecture", "widths"),
    [
        pytest.param("mlp", (32, 64), marks=pytest.mark.slow),
        ("dcgan", (16, 8)),
        pytest.param("dcgan", (16, 8, 8), marks=pytest.mark.slow),
        pytest.param("residual", (16, 8, 8), marks=pytest.mark.slow),
    ],
)
def test_the_estimate_refuses_what_the_exported_graph_would_be_refused_for(monkeypatch, architecture, widths):
    config = NetworkConfig(architecture, (1, 30, 30), widths, classes=10, latent_dim=64)
    exact = graph_elements(build_generator(config))
    least, most = exportable.UNCERTAIN
    assert least < estimate_elements(build_generator(config)) / exact < most
    for limit in (exact, exact - 1):
        monkeypatch.setattr(exportable, "MAX_ELEMENTS", limit)
        if limit == exact:
            check_exportable(config)
        else:
            with pytest.raises(NotExportableError, match=f"it makes {exact:,} numbers of one latent"):
                check_exportable(config)
