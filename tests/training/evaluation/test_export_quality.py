"""The quality metrics on a card equal those that `evaluate` measures on the same file."""

import json
import sys

import pytest

from models.onnx_file.generator import Generator
from tests.conftest import small_run
from tests.training.evaluation.conftest import run_evaluate
from training import export_onnx


@pytest.mark.parametrize("precision", ["fp32", pytest.param("int8", marks=pytest.mark.slow)])
def test_the_card_has_the_quality_that_evaluate_measures(toy, monkeypatch, tmp_path, precision):
    monkeypatch.setattr("training.evaluation.evaluator.IMAGES", 500)
    small_run(tmp_path / "run", dataset="mnist", conditional=True)
    file, report, metrics = (tmp_path / name for name in ("a.onnx", "a.json", "metrics.json"))
    options = ("--evaluate", f"--out={file}", f"--report={report}", f"--precision={precision}", "--no-register")
    options += ("--allow-low-quality",)
    monkeypatch.setattr("training.export_quality.MAX_FID_RATIO", float("inf"))  # the variant of a toy loses much
    monkeypatch.setattr("training.export_quality.MAX_LABEL_AGREEMENT_LOSS", 1)
    monkeypatch.setattr(sys, "argv", ["export-onnx", str(tmp_path / "run"), *options])
    export_onnx.main()
    run_evaluate(file, "--json", metrics)

    quality = Generator.open(file).card.quality
    measured = json.loads(metrics.read_text())["sources"]["a.onnx"]
    expected = {name: metric["value"] for name, metric in measured["metrics"].items() if "value" in metric}
    assert quality == expected | {"fid_ratio": measured["fid_ratio"], "images": measured["images"]}
    (*_, reported) = json.loads(report.read_text())["quality"]["sources"].values()
    assert reported["metrics"] == measured["metrics"]
