"""The fp16 and int8 variants: same inputs and outputs, bounds of their own, and a card that names the original."""

import sys

import numpy as np
import onnx
import pytest

from models.checkpoint import Checkpoint, load_checkpoint
from models.export.exporter import Export, export, export_variant
from training import export_onnx, export_quality
from training.evaluation import cost
from training.evaluation.evaluation_report import EvaluatedSource, EvaluationReport
from training.evaluation.metrics import Measurement
from training.evaluation.sources import ImageSource


@pytest.fixture(scope="module", params=["conditional", pytest.param("unconditional", marks=pytest.mark.slow)])
def original(request, runs) -> tuple[Checkpoint, Export]:
    checkpoint = load_checkpoint(runs[request.param])
    return checkpoint, export(checkpoint, truncation=0.7)


@pytest.mark.parametrize(("precision", "kind"), [("fp16", onnx.TensorProto.FLOAT16), ("int8", onnx.TensorProto.INT8)])
def test_a_variant_is_smaller_draws_nearly_the_same_images_and_names_its_original(original, precision, kind):
    checkpoint, exported = original
    fp32, variant = exported.generator, export_variant(checkpoint, exported, precision).generator
    assert len(variant.file) < len(fp32.file)
    assert (variant.card.precision, variant.card.converted_from) == (precision, fp32.card.file_sha256)
    assert (fp32.card.precision, fp32.card.converted_from) == ("fp32", None)
    assert (variant.card.name, variant.card.truncation) == (fp32.card.name, 0.7)
    assert onnx.load_from_string(variant.file).ir_version == 9
    assert any(tensor.data_type == kind for tensor in onnx.load_from_string(variant.file).graph.initializer)
    difference = fp32.images(1, 0, 100)[0].astype(int) - variant.images(1, 0, 100)[0].astype(int)
    assert np.abs(difference).mean() < 6
    assert cost.measure_cost(variant).parameters == cost.measure_cost(fp32).parameters


@pytest.mark.slow
def test_two_exports_of_a_variant_are_identical(runs):
    checkpoint = load_checkpoint(runs["conditional"])
    original = export(checkpoint)
    first, second = (export_variant(checkpoint, original, "int8").generator.file for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("metric", "value", "message"),
    [
        ("fid", 1.3, "the classifier FID rises from 1 to 1.3; at most 1.25 times the original is allowed"),
        ("fid", float("nan"), "the classifier FID rises from 1 to nan"),
        ("label_agreement", 0.98, "the label agreement falls by 1.00%; at most 0.50% is allowed"),
    ],
)
def test_a_variant_that_loses_too_much_quality_is_rejected_and_leaves_no_file(
    runs, tmp_path, monkeypatch, capsys, metric, value, message
):
    good = {"fid": Measurement(1.0), "label_agreement": Measurement(0.99)}

    results = (
        EvaluatedSource(ImageSource(name, origin=None), sample=None, measurements=measurements, cost=None)
        for name, measurements in (("fp32", good), ("int8", good | {metric: Measurement(value)}))
    )
    report = EvaluationReport(tuple(results), real_data_baseline={}, test_sample=None, conditions=())
    monkeypatch.setattr(export_quality, "evaluate_sources", lambda *_, **__: report)
    out = tmp_path / "a.onnx"
    options = (f"--out={out}", "--precision=int8", "--no-register", "--allow-low-quality")
    monkeypatch.setattr(sys, "argv", ["export-onnx", str(runs["conditional"]), *options])
    with pytest.raises(SystemExit, match="1"):
        export_onnx.main()
    assert f"quality: {message}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
