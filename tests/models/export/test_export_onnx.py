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

from models.checkpoint import find_checkpoints, load_checkpoint, run_name, save_checkpoint
from models.common.checksum import EMPTY_CHECKSUM
from models.common.errors import InputError
from models.export import exporter
from models.networks import GENERATORS, build_generator
from models.networks.pixels import normalize, quantize
from models.onnx_file.generator import Generator
from tests.conftest import small_run
from training import export_onnx


@pytest.mark.parametrize("kind", ["unconditional", "conditional"])
def test_the_file_has_the_documented_inputs_outputs_and_versions(files, kind):
    model = onnx.load(files[kind])
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 20)]
    assert model.ir_version == 9, "the lowest IR version of opset 20, so that older runtimes open the file"
    assert {node.domain for node in model.graph.node} == {""}
    assert not any(tensor.data_location for tensor in model.graph.initializer)
    session = ort.InferenceSession(files[kind], providers=["CPUExecutionProvider"])
    expected = {"latent": ("tensor(float)", ["batch", 16]), "label": ("tensor(int64)", ["batch"])}
    if kind == "unconditional":
        del expected["label"]
    assert {value.name: (value.type, value.shape) for value in session.get_inputs()} == expected
    (image,) = session.get_outputs()
    assert (image.name, image.type, image.shape) == ("image", "tensor(uint8)", ["batch", 1, 28, 28])


def test_the_file_contains_no_path_of_the_machine_that_exported_it(files):
    file = files["conditional"].read_bytes()
    for path in (str(Path(__file__).parents[3]), sys.prefix, str(files["conditional"].parent), "stack_trace"):
        assert path.encode() not in file


def test_two_exports_of_a_checkpoint_are_identical(runs, files):
    assert exporter.export(load_checkpoint(runs["conditional"])).generator.file == files["conditional"].read_bytes()


@pytest.mark.parametrize("kind", ["unconditional", "conditional"])
def test_a_truncated_file_draws_the_images_of_requests_with_that_truncation(runs, files, kind):
    whole = Generator.open(files[kind])
    truncated = exporter.export(load_checkpoint(runs[kind]), truncation=0.7).generator
    assert (whole.card.truncation, truncated.card.truncation) == (1, 0.7)
    np.testing.assert_array_equal(truncated.images(1, 0, 100)[0], whole.images(1, 0, 100, truncation=0.7)[0])


@pytest.mark.parametrize("truncation", [0, -1, 1.01, float("nan")])
def test_a_truncation_out_of_range_is_rejected_before_pytorch_runs(runs, truncation):
    with pytest.raises(InputError, match="truncation"):
        exporter.export(load_checkpoint(runs["conditional"]), truncation=truncation)


@pytest.mark.parametrize("kind", ["unconditional", "conditional"])
def test_onnx_reference_evaluator_renders_the_same_images(files, kind):
    generator = Generator.open(files[kind])
    rng = np.random.default_rng(0)
    feeds = {"latent": rng.standard_normal((5, 16), np.float32)}
    labels = np.arange(5) if kind == "conditional" else None
    if labels is not None:
        feeds["label"] = labels
    (expected,) = onnx.reference.ReferenceEvaluator(onnx.load(files[kind])).run(None, feeds)
    difference = np.abs(generator.decode(feeds["latent"], labels).astype(int) - expected.astype(int))
    assert difference.max() <= 1


def test_quantize_inverts_normalize():
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(quantize(normalize(levels)), levels)


@pytest.mark.parametrize("opset", [9, 15, 27])
def test_an_unsupported_opset_is_rejected_before_pytorch_runs(runs, capfd, opset):
    with pytest.raises(exporter.ExportError, match=f"opset {opset} is not supported: choose one from 16 to 26"):
        exporter.export(load_checkpoint(runs["unconditional"]), opset)
    assert capfd.readouterr() == ("", ""), "PyTorch's exporter would print messages"


@pytest.mark.parametrize(("opset", "ir_version"), [(16, 8), (26, 13)])
@pytest.mark.parametrize(
    "architecture", [pytest.param(name, marks=() if name == "mlp" else pytest.mark.slow) for name in GENERATORS]
)
def test_every_architecture_exports_with_the_first_and_the_last_opset(runs, architecture, opset, ir_version):
    checkpoint = load_checkpoint(runs["conditional"])
    network = build_generator(replace(checkpoint.generator, architecture=architecture))
    tensors = {f"generator.{name}": weight for name, weight in network.state_dict().items()}
    file = exporter.export(replace(checkpoint, tensors=tensors, generator=network.config), opset).generator.file
    model = onnx.load_from_string(file)
    assert ([entry.version for entry in model.opset_import], model.ir_version) == ([opset], ir_version)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose generator passes the quality check, unlike that of `runs`, which is trained for two epochs."""
    folder = tmp_path_factory.mktemp("trained") / "digits"
    small_run(folder, conditional=True, epochs=16)
    return folder


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Returns a function that runs export-onnx and returns its output, or its error message if it fails."""

    def run(*arguments: object, fails: bool = False) -> str:
        monkeypatch.setattr(sys, "argv", ["export-onnx", *map(str, arguments)])
        with pytest.raises(SystemExit) if fails else nullcontext():
            export_onnx.main()
        captured = capsys.readouterr()
        return captured.err if fails else captured.out

    return run


def test_the_card_has_null_for_the_hash_of_an_unsaved_checkpoint_and_of_an_unknown_config(runs):
    checkpoint = load_checkpoint(runs["unconditional"])
    unknown = replace(checkpoint, sha256=EMPTY_CHECKSUM, training=replace(checkpoint.training, config=None))
    card = exporter.export(unknown, name="unknown").generator.card
    assert card.origin.checkpoint_sha256 is None
    assert card.config_sha256 is None


def test_the_command_writes_the_file_and_its_report_and_registers_it(command, trained, tmp_path):
    output = command(trained, "--out", tmp_path / "a.onnx", "--report", tmp_path / "a.json")
    assert "maximum error against float64" in output
    report = json.loads((tmp_path / "a.json").read_text())
    assert "inputs and outputs" in report["graph"]
    for metric in report["metrics"].values():
        assert metric["value"] <= metric["bound"]
    assert report["quality_check"]["passed"]
    stored = bentoml.models.get("mnist-gan:latest")
    assert str(stored.tag) in output
    assert Generator.open(tmp_path / "a.onnx").card.name == stored.info.metadata["name"] == trained.name
    assert Path(stored.path_of("generator.onnx")).read_bytes() == (tmp_path / "a.onnx").read_bytes()
    assert stored.info.labels == {"dataset": "uci-digits", "classes": "10", "precision": "fp32", "preset": "mlp"}


def test_a_run_is_named_after_its_folder_or_its_checkpoint_file(runs, monkeypatch):
    run = runs["unconditional"]
    monkeypatch.chdir(run)
    for path, name in ((".", run.name), (find_checkpoints(run)[-1], run.name), ("nowhere/b.safetensors", "b")):
        assert run_name(path) == name


@pytest.mark.parametrize("name", ["", " ", "two\nlines", "x" * 101])
def test_an_empty_too_long_or_unprintable_name_is_rejected(command, runs, tmp_path, name):
    output = command(runs["unconditional"], "--out", tmp_path / "a.onnx", "--name", name, fails=True)
    assert output == f"export-onnx: --name: must have 1 to 100 printable characters, got {name!r:.80}\n"
    assert list(tmp_path.iterdir()) == []


def test_the_name_can_be_chosen_and_registration_can_be_switched_off(command, trained, tmp_path):
    before = len(bentoml.models.list())
    output = command(trained, "--out", tmp_path / "a.onnx", "--name", "digits, small", "--no-register")
    assert Generator.open(tmp_path / "a.onnx").card.name == "digits, small"
    assert len(bentoml.models.list()) == before
    assert "registered" not in output


def test_without_bentoml_the_command_reports_that_it_did_not_register(command, trained, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bentoml", None)
    output = command(trained, "--out", tmp_path / "a.onnx")
    assert "not registered: bentoml is not installed" in output
    assert (tmp_path / "a.onnx").exists()


def test_a_generator_that_returns_nan_is_neither_written_nor_registered(command, runs, tmp_path):
    checkpoint = load_checkpoint(runs["unconditional"])
    next(iter(checkpoint.part("generator").values())).fill_(torch.nan)
    save_checkpoint(checkpoint, tmp_path)
    before = [model.tag for model in bentoml.models.list()]
    output = command(tmp_path, "--out", tmp_path / "a.onnx", "--report", tmp_path / "a.json", fails=True)
    assert output.startswith("export-onnx: pixels that are not finite")
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoints"]
    assert [model.tag for model in bentoml.models.list()] == before


def test_the_message_for_a_missing_run_names_its_folder(command, tmp_path):
    assert "nothing" in command(tmp_path / "nothing", "--out", tmp_path / "a.onnx", fails=True)


@pytest.mark.parametrize(("out", "report"), [("nowhere/a.onnx", "a.json"), ("a.onnx", "nowhere/a.json")])
def test_if_one_output_cannot_be_written_neither_is(command, runs, tmp_path, out, report):
    output = command(runs["unconditional"], "--out", tmp_path / out, "--report", tmp_path / report, fails=True)
    assert output.startswith(f"export-onnx: {tmp_path}/nowhere/a.")
    assert output.endswith(": No such file or directory\n")
    assert list(tmp_path.iterdir()) == []


def test_a_report_with_the_path_of_the_model_file_is_rejected(command, runs, tmp_path):
    same = tmp_path / "x" / ".." / "a.onnx"
    output = command(runs["unconditional"], "--out", tmp_path / "a.onnx", "--report", same, fails=True)
    assert output == f"export-onnx: --out: must be another file than --report, both are {tmp_path}/a.onnx\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_if_the_store_cannot_be_written_the_message_names_the_file_that_was(trained, tmp_path):
    (tmp_path / "home").write_text("a file instead of a folder")
    failed = subprocess.run(
        [Path(sys.executable).parent / "export-onnx", trained, "--out", tmp_path / "a.onnx"],
        env=os.environ | {"BENTOML_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert failed.returncode == 1
    assert f"{tmp_path}/a.onnx was written but not registered; the BentoML model store reports: " in failed.stderr
    assert f"{tmp_path}/home is not a directory; set BENTOML_HOME to a folder that can be written" in failed.stderr
    assert "Traceback" not in failed.stderr
    Generator.open(tmp_path / "a.onnx")


NO_HOME = """
import pwd

def missing(uid):
    raise KeyError(uid)

pwd.getpwuid = missing
"""
"""Content of a sitecustomize.py that simulates a user without an entry in the password file."""


def test_a_missing_home_folder_for_the_store_is_reported_before_anything_is_written(runs, tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    (tmp_path / "sitecustomize.py").write_text(NO_HOME)
    environment = {name: value for name, value in os.environ.items() if name not in ("HOME", "BENTOML_HOME")}
    failed = subprocess.run(
        [Path(sys.executable).parent / "export-onnx", runs["unconditional"], "--out", "a.onnx"],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (failed.returncode, failed.stderr.count("\n")) == (1, 1)
    assert failed.stderr.startswith("export-onnx: --register: the BentoML model store has no folder")
    assert "BENTOML_HOME" in failed.stderr
    assert "--no-register" in failed.stderr
    assert list(folder.iterdir()) == []
