"""The quality on a card is what `evaluate` measures of that file."""

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
    monkeypatch.setattr("training.variant_quality.MAX_FID_TIMES", float("inf"))  # a toy's variant loses too much
    monkeypatch.setattr("training.variant_quality.MAX_AGREEMENT_LOST", 1)
    monkeypatch.setattr(sys, "argv", ["export-onnx", str(tmp_path / "run"), *options])
    export_onnx.main()
    run_evaluate(file, "--json", metrics)

    quality = Generator.open(file).card.quality
    measured = json.loads(metrics.read_text())["sources"]["a.onnx"]
    expected = {name: metric["value"] for name, metric in measured["metrics"].items() if "value" in metric}
    assert quality == expected | {"fid_ratio": measured["fid_ratio"], "images": measured["images"]}
    (*_, told) = json.loads(report.read_text())["quality"]["sources"].values()
    assert told["metrics"] == measured["metrics"]
