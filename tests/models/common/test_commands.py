"""Commands report their version, and errors in one line. A fake slow library makes the moment of Ctrl-C certain."""

import os
import shlex
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from models.common.commands import count
from models.common.version import PYPROJECT, version
from models.onnx_file.store import SHIPPED
from tests.conftest import run_with_file_limit
from training.train import main as train

BIN = Path(sys.executable).parent
COMMANDS = {
    "train": ("torch", ["--out", "run"]),
    "export-onnx": ("torch", ["run", "--out", "a.onnx"]),
    "sample": ("onnxruntime", ["a.onnx", "--out", "a.png"]),
    "export-site": ("onnxruntime", ["a.onnx", "--out", "site"]),
}
MODULES = {
    "train": "training.train",
    "export-onnx": "training.export_onnx",
    "sample": "serving.offline.sample",
    "export-site": "serving.offline.export_site",
}
ALL_MODULES = MODULES | {
    "evaluate": "training.evaluation.evaluate",
    "models.onnx_file": "models.onnx_file.__main__",
    "verify-model": "models.verify_model",
}


@pytest.mark.parametrize("command", ALL_MODULES)
def test_version_is_printed_without_loading_a_slow_library(command):
    code = (
        "import sys; sys.modules |= dict.fromkeys(('torch', 'onnxruntime', 'onnx')); "
        f"from {ALL_MODULES[command]} import main; main()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, "--version"], capture_output=True, text=True, check=True, timeout=60
    )
    assert ended.stdout == f"{command} {tomllib.loads(PYPROJECT.read_text())['project']['version']}\n"


def test_the_version_without_pyproject_toml_is_that_of_the_installed_package(monkeypatch, tmp_path):
    monkeypatch.setattr("models.common.version.PYPROJECT", tmp_path / "pyproject.toml")
    monkeypatch.setattr("importlib.metadata.version", {"mnist-gan": "1.2.3"}.__getitem__)
    assert version.__wrapped__() == "1.2.3"


@pytest.mark.parametrize("command", COMMANDS)
def test_ctrl_c_while_a_library_loads_prints_one_line(tmp_path, command):
    library, arguments = COMMANDS[command]
    (tmp_path / f"{library}.py").write_text("import time\nprint('loading', flush=True)\ntime.sleep(60)\n")
    with subprocess.Popen(
        [BIN / command, *arguments],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "loading\n"
        process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=30)
    assert output == ("", f"{command}: interrupted\n")
    assert process.returncode == 130


@pytest.mark.parametrize(
    ("command", "missing", "extra"),
    [
        ("train", "torch", "training"),
        ("train", "rich", "training"),
        ("export-onnx", "torch", "training"),
        ("export-onnx", "onnxruntime", "cpu"),
        ("sample", "onnxruntime", "cpu"),
    ],
)
def test_a_missing_library_is_reported_with_the_command_that_installs_it(tmp_path, command, missing, extra):
    code = f"import sys; sys.modules['{missing}'] = None; from {MODULES[command]} import main; main()"
    failed = subprocess.run(
        [sys.executable, "-c", code, *COMMANDS[command][1]], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    expected = f"{command}: needs {missing}, which is not installed: pip install '.[{extra}]'\n"
    assert (failed.returncode, failed.stdout, failed.stderr) == (1, "", expected)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", ALL_MODULES.values())
def test_a_command_prints_no_error_if_its_output_pipe_is_closed(module):
    """`train --help | head` closes the pipe early."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", module, "--help"], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60
        )
    finally:
        os.close(writer)
    assert (ended.returncode, ended.stderr) == (1, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_output_to_a_full_disk_is_reported_in_one_line(files, tmp_path):
    command = [BIN / "sample", files["unconditional"], "--n", "1", "--out", tmp_path / "a.png"]
    with Path("/dev/full").open("w") as full:
        failed = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert failed.stderr == "sample: standard output cannot be written: No space left on device\n"
    assert failed.returncode == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("out", ["a.npz", "a.png", "folder"])
def test_sample_on_a_full_disk_prints_one_line_and_leaves_no_partial_file(files, tmp_path, out):
    failed = run_with_file_limit([BIN / "sample", files["unconditional"], "--n", 100, "--out", tmp_path / out], 100)
    named = tmp_path / (f"{out}/000000.png" if out == "folder" else out)
    assert (failed.returncode, failed.stderr) == (1, f"sample: {named}: File too large\n")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.slow
def test_export_on_a_full_disk_prints_one_line_and_leaves_no_partial_file(tmp_path):
    command = [
        BIN / "export-onnx",
        SHIPPED.with_name("mnist-fast.safetensors"),
        "--out",
        tmp_path / "a.onnx",
        "--report",
        tmp_path / "a.json",
    ]
    failed = run_with_file_limit(command, 10_000)
    assert (failed.returncode, failed.stderr) == (1, f"export-onnx: {tmp_path}/a.onnx: File too large\n")
    assert list(tmp_path.iterdir()) == []


def test_the_next_command_can_be_pasted_into_a_shell(tmp_path, monkeypatch, capsys):
    out = str(tmp_path / "Ann's first run; really")
    monkeypatch.setattr("training.loop.train", lambda *_: 0)
    monkeypatch.setattr(sys, "argv", ["train", "--out", out])
    train()
    words = shlex.split(capsys.readouterr().out.partition("Next: ")[2])
    assert words == ["export-onnx", out, "--out", f"{out}/generator.onnx"]


@pytest.mark.parametrize("text", ["", "k", "5kk", "infM", "nan", "6G", "many"])
def test_an_invalid_number_is_rejected_with_examples(text):
    with pytest.raises(ValueError, match=r"^'.*' is not a number such as 60000, 60k or 0\.06M$"):
        count(text)
