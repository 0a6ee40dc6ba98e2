import json
import os
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import bentoml
import numpy as np
import onnx
import onnx.reference
import onnxruntime as ort
import pytest
import torch

from models import checkpoint as checkpoints
from models import exporter
from models.architectures import GENERATORS, build_generator
from models.artifact import Generator
from models.gate import quantize
from training import export_onnx


@pytest.mark.parametrize("kind", ["unconditional", "conditional"])
def test_the_file_keeps_its_contract(files, kind):
    model = onnx.load(files[kind])
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 20)]
    assert {node.domain for node in model.graph.node} == {""}
    assert not any(tensor.data_location for tensor in model.graph.initializer)
    session = ort.InferenceSession(files[kind], providers=["CPUExecutionProvider"])
    expected = {"latent": ("tensor(float)", ["batch", 16]), "label": ("tensor(int64)", ["batch"])}
    if kind == "unconditional":
        del expected["label"]
    assert {value.name: (value.type, value.shape) for value in session.get_inputs()} == expected
    (image,) = session.get_outputs()
    assert (image.name, image.type, image.shape) == ("image", "tensor(uint8)", ["batch", 1, 28, 28])


def test_the_file_holds_no_path_of_the_machine_that_built_it(files):
    file = files["conditional"].read_bytes()
    for path in (str(Path(__file__).parents[2]), sys.prefix, str(files["conditional"].parent), "stack_trace"):
        assert path.encode() not in file


def test_two_exports_of_a_checkpoint_are_identical(runs, files):
    assert exporter.export(checkpoints.load(runs["conditional"])).generator.file == files["conditional"].read_bytes()


@pytest.mark.parametrize("kind", ["unconditional", "conditional"])
def test_onnx_reference_evaluator_renders_the_same_images(files, kind):
    generator = Generator.open(files[kind])
    rng = np.random.default_rng(0)
    feeds = {"latent": rng.standard_normal((5, 16), np.float32)}
    labels = np.arange(5) if kind == "conditional" else None
    if labels is not None:
        feeds["label"] = labels
    (expected,) = onnx.reference.ReferenceEvaluator(onnx.load(files[kind])).run(None, feeds)
    off = np.abs(generator.decode(feeds["latent"], labels).astype(int) - expected.astype(int))
    assert off.max() <= 1


def test_quantisation_undoes_the_normalisation_of_training():
    levels = torch.arange(256, dtype=torch.uint8)
    torch.testing.assert_close(quantize(levels.float() / 127.5 - 1), levels)


@pytest.mark.parametrize("opset", [9, 15, 27])
def test_an_opset_that_cannot_be_had_is_an_error(runs, capfd, opset):
    with pytest.raises(exporter.ExportError, match=f"opset {opset} cannot be had; choose one from 16 to 26"):
        exporter.export(checkpoints.load(runs["unconditional"]), opset)
    assert capfd.readouterr() == ("", ""), "PyTorch was not asked"


@pytest.mark.parametrize("opset", [16, 26])
@pytest.mark.parametrize(
    "architecture", [pytest.param(name, marks=() if name == "mlp" else pytest.mark.slow) for name in GENERATORS]
)
def test_the_first_and_the_last_opset_can_be_had_of_every_architecture(runs, architecture, opset):
    checkpoint = checkpoints.load(runs["conditional"])
    network = build_generator(replace(checkpoint.generator, architecture=architecture))
    tensors = {f"generator.{name}": weight for name, weight in network.state_dict().items()}
    file = exporter.export(replace(checkpoint, tensors=tensors, generator=network.config), opset).generator.file
    assert [entry.version for entry in onnx.load_from_string(file).opset_import] == [opset]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs export-onnx; returns what it printed, or its message if it fails."""

    def run(*arguments: object, fails: bool = False) -> str:
        monkeypatch.setattr(sys, "argv", ["export-onnx", *map(str, arguments)])
        with pytest.raises(SystemExit) if fails else nullcontext():
            export_onnx.main()
        said = capsys.readouterr()
        return said.err if fails else said.out

    return run


def test_the_command_writes_the_file_its_report_and_the_store(command, runs, tmp_path):
    said = command(runs["conditional"], "--out", tmp_path / "a.onnx", "--report", tmp_path / "a.json")
    assert "error against float64" in said
    report = json.loads((tmp_path / "a.json").read_text())
    assert "contract" in report["graph"]
    for figure in report["figures"].values():
        assert figure["value"] <= figure["bound"]
    stored = bentoml.models.get("mnist-gan:latest")
    assert str(stored.tag) in said
    assert Path(stored.path_of("generator.onnx")).read_bytes() == (tmp_path / "a.onnx").read_bytes()
    assert stored.info.labels == {"dataset": "uci-digits", "classes": "10", "precision": "fp32", "preset": "mlp"}


def test_the_store_is_left_alone_on_request(command, runs, tmp_path):
    before = len(bentoml.models.list())
    said = command(runs["unconditional"], "--out", tmp_path / "a.onnx", "--no-register")
    assert len(bentoml.models.list()) == before
    assert "registered" not in said


def test_without_bentoml_it_says_that_it_did_not_register(command, runs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bentoml", None)
    said = command(runs["unconditional"], "--out", tmp_path / "a.onnx")
    assert "not registered: bentoml is not installed" in said
    assert (tmp_path / "a.onnx").exists()


def test_a_generator_that_yields_nan_leaves_no_file_and_registers_nothing(command, runs, tmp_path):
    checkpoint = checkpoints.load(runs["unconditional"])
    next(iter(checkpoint.part("generator").values())).fill_(torch.nan)
    checkpoints.save(checkpoint, tmp_path)
    before = [model.tag for model in bentoml.models.list()]
    said = command(tmp_path, "--out", tmp_path / "a.onnx", "--report", tmp_path / "a.json", fails=True)
    assert said.startswith("export-onnx: pixels that are not finite")
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoints"]
    assert [model.tag for model in bentoml.models.list()] == before


def test_a_missing_run_is_one_line(command, tmp_path):
    assert "nothing" in command(tmp_path / "nothing", "--out", tmp_path / "a.onnx", fails=True)


@pytest.mark.parametrize(("out", "report"), [("nowhere/a.onnx", "a.json"), ("a.onnx", "nowhere/a.json")])
def test_where_one_file_cannot_be_written_neither_is(command, runs, tmp_path, out, report):
    said = command(runs["unconditional"], "--out", tmp_path / out, "--report", tmp_path / report, fails=True)
    assert said.startswith(f"export-onnx: {tmp_path}/nowhere/a.")
    assert said.endswith(": No such file or directory\n")
    assert list(tmp_path.iterdir()) == []


def test_a_report_in_the_place_of_the_file_is_refused(command, runs, tmp_path):
    same = tmp_path / "x" / ".." / "a.onnx"
    said = command(runs["unconditional"], "--out", tmp_path / "a.onnx", "--report", same, fails=True)
    assert said == f"export-onnx: --out: must be another file than --report, both are {tmp_path}/a.onnx\n"
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_cannot_be_written_is_told_beside_the_file_that_was(runs, tmp_path):
    (tmp_path / "home").write_text("a file in the place of the folder")
    failed = subprocess.run(
        [Path(sys.executable).parent / "export-onnx", runs["unconditional"], "--out", tmp_path / "a.onnx"],
        env=os.environ | {"BENTOML_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert failed.returncode == 1
    assert f"{tmp_path}/a.onnx was written but not registered; the BentoML model store says: " in failed.stderr
    assert f"{tmp_path}/home is not a directory" in failed.stderr
    assert "Traceback" not in failed.stderr
    Generator.open(tmp_path / "a.onnx")
