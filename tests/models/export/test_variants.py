"""Other precisions: the same inputs and outputs, a gate of their own, a card that says what they were made from."""

import sys

import numpy as np
import onnx
import pytest

from models.checkpoint import Checkpoint, load_checkpoint
from models.export.exporter import Export, export, export_variant
from training import export_onnx, variant_quality
from training.evaluation import cost
from training.evaluation.evaluation_report import EvaluatedSource, EvaluationReport
from training.evaluation.metrics import Measurement
from training.evaluation.sources import ImageSource


@pytest.fixture(scope="module", params=["conditional", "unconditional"])
def original(request, runs) -> tuple[Checkpoint, Export]:
    checkpoint = load_checkpoint(runs[request.param])
    return checkpoint, export(checkpoint)


@pytest.mark.parametrize(("precision", "kind"), [("fp16", onnx.TensorProto.FLOAT16), ("int8", onnx.TensorProto.INT8)])
def test_a_variant_is_smaller_draws_nearly_the_same_and_names_its_original(original, precision, kind):
    checkpoint, made = original
    variant = export_variant(checkpoint, made, precision)
    whole, small = made.generator, variant.generator
    assert len(small.file) < len(whole.file)
    assert (small.card.precision, small.card.converted_from) == (precision, whole.card.file_sha256)
    assert (whole.card.precision, whole.card.converted_from) == ("fp32", None)
    assert small.card.name == whole.card.name
    assert onnx.load_from_string(small.file).ir_version == 9
    assert any(tensor.data_type == kind for tensor in onnx.load_from_string(small.file).graph.initializer)
    difference = whole.images(1, 0, 100)[0].astype(int) - small.images(1, 0, 100)[0].astype(int)
    assert np.abs(difference).mean() < 6
    assert cost.measure_cost(small).parameters == cost.measure_cost(whole).parameters


@pytest.mark.slow
def test_two_exports_of_a_variant_are_identical(runs):
    checkpoint = load_checkpoint(runs["conditional"])
    made = export(checkpoint)
    one, other = (export_variant(checkpoint, made, "int8").generator.file for _ in range(2))
    assert one == other


@pytest.mark.parametrize(
    ("metric", "value", "message"),
    [
        ("fid", 1.3, "the classifier FID goes from 1 to 1.3, at most 1.25 times as much is allowed"),
        ("fid", float("nan"), "the classifier FID goes from 1 to nan"),
        ("label_agreement", 0.98, "the label agreement falls by 1.00%, at most 0.50% is allowed"),
    ],
)
def test_a_variant_that_loses_too_much_is_refused_and_leaves_no_file(
    runs, tmp_path, monkeypatch, capsys, metric, value, message
):
    good = {"fid": Measurement(1.0), "label_agreement": Measurement(0.99)}

    results = (
        EvaluatedSource(ImageSource(name, origin=None), sample=None, measurements=measurements, cost=None)
        for name, measurements in (("fp32", good), ("int8", good | {metric: Measurement(value)}))
    )
    report = EvaluationReport(tuple(results), real_data_baseline={}, test_sample=None, conditions=())
    monkeypatch.setattr(variant_quality, "evaluate_sources", lambda *_, **__: report)
    out = tmp_path / "a.onnx"
    monkeypatch.setattr(
        sys, "argv", ["export-onnx", str(runs["conditional"]), f"--out={out}", "--precision=int8", "--no-register"]
    )
    with pytest.raises(SystemExit, match="1"):
        export_onnx.main()
    assert f"quality: {message}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
