"""The command `verify-model`: every check with its result, the exit code, and the comparison with the checkpoint."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper

from models import verify_model
from models.checkpoint import load_checkpoint, save_checkpoint
from models.common.checksum import EMPTY_CHECKSUM, write_checksum
from models.common.files import signature_path
from models.export.exporter import export, export_variant, with_fields
from models.onnx_file.card import QualityCheck, QualityMeasurement
from models.onnx_file.signature import load_private_key, sign
from tests.models.keys import write_keys


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Returns a function that runs verify-model and returns its exit code and its JSON."""

    def run(*arguments: object) -> tuple[int, dict]:
        monkeypatch.setattr(sys, "argv", ["verify-model", *map(str, arguments), "--json"])
        with pytest.raises(SystemExit) as ended:
            verify_model.main()
        return ended.value.code, json.loads(capsys.readouterr().out)

    return run


def results(report: dict) -> dict[str, str]:
    return {check["name"]: check["result"] for check in report["checks"]}


def details(report: dict) -> dict[str, str]:
    return {check["name"]: check["detail"] for check in report["checks"]}


def with_change(path: Path, change) -> None:
    """Changes the model in a file and writes it with a correct checksum."""
    model = onnx.load(path)
    card = json.loads(model.metadata_props[0].value) | {"file_sha256": EMPTY_CHECKSUM}
    change(model, card)
    model.metadata_props[0].value = json.dumps(card)
    path.write_bytes(write_checksum(model.SerializeToString()))


@pytest.fixture
def file(files, tmp_path) -> Path:
    return Path(shutil.copy(files["conditional"], tmp_path / "a.onnx"))


def test_every_check_of_a_good_file_passes_and_its_differences_are_listed(command, file):
    code, report = command(file)
    assert (code, report["passed"]) == (0, True)
    found = results(report)
    assert {name for name, result in found.items() if result == "skipped"} == {"signature", "quality"}
    assert {"checksum", "operators", "card", "golden images"} < {*found}
    assert details(report)["golden images"] == "all 12,544 pixels are identical"
    assert report["file_sha256"] in details(report)["checksum"]


def test_the_table_has_a_line_for_each_check_and_needs_no_torch(file):
    code = """
import sys
from models.verify_model import main
try:
    main()
finally:
    assert not {"torch", "bentoml", "cryptography"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code, file], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len([line for line in lines if " passed" in line]) == 14
    assert lines[-1] == f"{file}: no check failed"


def test_a_damaged_file_fails_at_the_checksum_and_later_checks_are_skipped(command, file):
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    file.write_bytes(damaged)
    code, report = command(file)
    assert (code, report["passed"], report["file_sha256"]) == (1, False, None)
    found = results(report)
    assert (found["size"], found["checksum"]) == ("passed", "failed")
    assert {*list(found.values())[list(found).index("checksum") + 1 :]} == {"skipped"}
    assert details(report)["checksum"].startswith("the file is damaged")


def test_a_forbidden_operator_fails_the_check_of_the_operators(command, file):
    with_change(file, lambda model, card: setattr(model.graph.node[0], "op_type", "NonZero"))
    code, report = command(file)
    found = results(report)
    assert (code, found["card"], found["operators"], found["weights"]) == (1, "passed", "failed", "skipped")


def test_a_missing_file_is_a_check_that_failed(command, tmp_path):
    code, report = command(tmp_path / "nothing.onnx")
    assert (code, report["checks"][0]) == (
        1,
        {"name": "file", "result": "failed", "detail": "No such file or directory"},
    )


def test_the_signature_passes_with_its_key_and_fails_with_another_key_or_without_signature(command, file, tmp_path):
    private, public = write_keys(tmp_path)
    _, other = write_keys(tmp_path, name="other")
    signature_path(file).write_bytes(sign(file.read_bytes(), file.name, load_private_key(private)))
    code, report = command(file, "--public-key", public)
    assert (code, results(report)["signature"]) == (0, "passed")
    code, report = command(file)
    assert (code, details(report)["signature"]) == (0, "give --public-key to check it")
    code, report = command(file, "--public-key", other)
    assert (code, results(report)["signature"]) == (1, "failed")
    assert "another key" in details(report)["signature"]
    signature_path(file).unlink()
    code, report = command(file, "--public-key", public)
    assert (code, details(report)["signature"]) == (1, f"the file is not signed, there is no {file}.sig")


def test_a_file_that_was_exported_in_spite_of_low_quality_fails_the_check_of_the_quality(command, file):
    low = QualityCheck(1_000, {"share of constant images": QualityMeasurement(1.0, "lower", 0.01, 0.1)})

    def mark(model, card):
        card["quality_check"] = {
            "images": low.images,
            "measurements": {name: vars(measured) for name, measured in low.measurements.items()},
        }

    with_change(file, mark)
    code, report = command(file)
    assert (code, results(report)["quality"]) == (1, "failed")
    assert "although share of constant images 1, at most 0.1 is required" in details(report)["quality"]


@pytest.mark.parametrize(
    "precision", ["fp32", *(pytest.param(each, marks=pytest.mark.slow) for each in ("fp16", "int8"))]
)
def test_exporting_the_checkpoint_again_gives_the_same_file_byte_for_byte(command, runs, tmp_path, precision):
    checkpoint = load_checkpoint(runs["conditional"])
    exported = export(checkpoint, name="a", truncation=0.7)
    if precision != "fp32":
        exported = export_variant(checkpoint, exported, precision)
    # The bounds are integers in a field of floats.
    check = QualityCheck(1_000, {"share of constant images": QualityMeasurement(0.0, "lower", 0, 1)})
    exported = with_fields(exported, quality_check=check)
    (tmp_path / "a.onnx").write_bytes(exported.generator.file)
    code, report = command(tmp_path / "a.onnx", "--run", runs["conditional"])
    assert (code, details(report)["export again"]) == (0, "the same file, byte for byte")


def changed_weight(model, card):
    tensor = model.graph.initializer[0]
    weights = numpy_helper.to_array(tensor).copy()
    weights.ravel()[0] += 1e-6
    tensor.CopyFrom(numpy_helper.from_array(weights, tensor.name))


def changed_seed(model, card):
    card["training"]["seed"] += 1


def renamed_tensor(model, card):
    """Gives the output of the first operator another name, which changes no image."""
    old = model.graph.node[0].output[0]
    del model.graph.value_info[:]
    for node in model.graph.node:
        for names in (node.input, node.output):
            for at, name in enumerate(names):
                names[at] = "renamed" if name == old else name


@pytest.mark.parametrize(
    ("change", "part", "detail"),
    [
        (changed_weight, "weights", "1 of 12 tensors differ, the first is generator.embedding.weight"),
        (changed_seed, "card", "these fields differ: training.seed"),
        (renamed_tensor, "graph", "operators, inputs or outputs differ"),
    ],
)
def test_the_part_that_differs_from_the_checkpoint_is_named(command, runs, file, change, part, detail):
    with_change(file, change)
    code, report = command(file, "--run", runs["conditional"])
    failed = {name for name, result in results(report).items() if result == "failed"}
    assert (code, failed) == (1, {f"export again: {part}"})
    assert detail in details(report)[f"export again: {part}"]


def test_fields_that_depend_on_the_exporting_machine_may_differ(command, runs, file):
    def other_machine(model, card):
        card["parity"]["metrics"]["mean error against float64"]["value"] *= 1.5
        card["versions"]["torch"] = "0.0.1"
        card["quality"] = {"fid": 3.0, "images": 10}

    with_change(file, other_machine)
    code, report = command(file, "--run", runs["conditional"])
    assert code == 0
    assert {name: result for name, result in results(report).items() if name.startswith("export")} == dict.fromkeys(
        (f"export again: {part}" for part in ("graph", "weights", "card", "golden images")), "passed"
    )
    assert "exported with torch 0.0.1, here " in details(report)["export again: card"]


def test_the_checkpoint_of_another_run_is_found_by_weights_card_and_golden_images(command, runs, file, tmp_path):
    checkpoint = load_checkpoint(runs["conditional"])
    tensors = {name: tensor * 1.1 for name, tensor in checkpoint.tensors.items()}
    save_checkpoint(replace(checkpoint, tensors=tensors), tmp_path / "other")
    code, report = command(file, "--run", tmp_path / "other")
    failed = {name.removeprefix("export again: ") for name, result in results(report).items() if result == "failed"}
    assert (code, failed) == (1, {"weights", "card", "golden images"})
    assert details(report)["export again: card"] == "these fields differ: origin.checkpoint_sha256"
