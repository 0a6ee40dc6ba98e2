"""The command of `make gpu-check`, run without a GPU."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.gpu_check.__main__ import MAX_FILE_BYTES, Stage, check, parse

ROOT = Path(__file__).parents[2]
COMMAND = ["-m", "benchmarks.gpu_check"]
MACHINE = {"device": "none"}
STAGES = {
    "works": "record.row('a value', 2.0, 'times', bound='goal: 3')",
    "raises": "raise RuntimeError('CUDA error: an illegal memory access was encountered')",
    "crashes": "import os; record.row('before', 1.0); os._exit(9)",
    "hangs": "import time; record.row('before', 1.0); time.sleep(600)",
    "is_not_a_number": "record.row('a loss', float('nan'))",
    "fails_in_part": """
    with record.part('first'):
        raise MemoryError('out of memory')
    with record.part('second'):
        record.row('second', 1.0)""",
    "skips": "from benchmarks.gpu_check.report import Skip; raise Skip('there is no onnxruntime-gpu')",
}
"""Body of the function `run` of each test stage."""


@pytest.fixture
def run_stages(tmp_path):
    """Function that runs stages by name, with ten seconds for each, and returns whether all passed, and the report."""

    def run(*names: str) -> tuple[bool, dict]:
        for name in names:
            (tmp_path / f"stage_{name}.py").write_text(f"def run(settings, record):\n    {STAGES[name]}\n")
        stages = {name: Stage(f"stage_{name}", 1) for name in names}
        minutes = len(names) * 10 / 60
        options = parse(["--device=cpu", f"--out={tmp_path / 'out'}", f"--minutes={minutes}", f"--data-dir={tmp_path}"])
        variables = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
        (tmp_path / "running").mkdir()
        passed = check(options, stages, MACHINE, variables, tmp_path / "running")
        assert (tmp_path / "out" / "gpu-check.md").exists()
        return passed, json.loads((tmp_path / "out" / "gpu-check.json").read_text())

    return run


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_command_prints_one_line_and_exits_with_2(tmp_path):
    done = subprocess.run(
        [sys.executable, *COMMAND, "--out", tmp_path / "out"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("gpu_check: PyTorch sees no GPU on this machine")
    assert (done.stderr.count("\n"), done.stdout) == (1, "")
    assert not (tmp_path / "out").exists()


def test_missing_packages_are_named_in_one_line(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    done = subprocess.run([python, *COMMAND, "--bundle", tmp_path], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "lacks torch, torchvision," in done.stderr
    assert done.stderr.count("\n") == 1


def test_stages_after_a_stage_that_failed_still_run(run_stages, capsys):
    passed, report = run_stages("raises", "crashes", "skips", "works")
    assert not passed
    assert report["status"] == "failed"
    stages = report["stages"]
    assert {name: stage["status"] for name, stage in stages.items()} == {
        "raises": "failed",
        "crashes": "failed",
        "skips": "skipped",
        "works": "passed",
    }
    assert "illegal memory access" in stages["raises"]["message"]
    assert "ended with code 9" in stages["crashes"]["message"]
    assert [row["name"] for row in stages["crashes"]["rows"]] == ["before"]
    assert stages["skips"]["message"] == "there is no onnxruntime-gpu"
    printed = capsys.readouterr().out
    assert all(f"{name}: {stage['status']} in" in printed for name, stage in stages.items())


@pytest.mark.slow
def test_a_stage_that_runs_out_of_time_is_killed_and_keeps_its_rows(run_stages):
    passed, report = run_stages("hangs")
    assert not passed
    assert report["stages"]["hangs"]["message"] == "the stage's process ran out of time"
    assert [row["name"] for row in report["stages"]["hangs"]["rows"]] == ["before"]


def test_a_value_that_is_not_a_number_and_a_part_that_raised_fail_their_stage(run_stages):
    passed, report = run_stages("is_not_a_number", "fails_in_part")
    assert not passed
    assert report["stages"]["is_not_a_number"]["rows"][0]["note"] == "the value is nan"
    rows = report["stages"]["fails_in_part"]["rows"]
    assert [(row["name"], row["status"]) for row in rows] == [("first", "failed"), ("second", "measured")]


def test_stages_that_all_pass_or_are_skipped_pass(run_stages):
    passed, report = run_stages("works", "skips")
    assert passed
    assert report["status"] == "passed"


@pytest.mark.slow
def test_the_tiny_check_passes_with_the_bundle_on_the_packages_of_a_gpu_machine(tmp_path, mnist):
    # A copy without git, with PyTorch 2.11 on Python 3.12, and without tyro, pydantic and bentoml.
    uv = Path(sys.executable).with_name("uv")
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    found = [*sorted(pyenv.glob("3.12.*/bin/python3.12")), *filter(None, [shutil.which("python3.12")])]
    if not found:
        pytest.skip("there is no Python 3.12")
    for name in subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, text=True).split():
        copy = tmp_path / "copy" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((ROOT / name).read_bytes())
    bundle = [sys.executable, "-m", "benchmarks.gpu_check.bundle", "--out", tmp_path / "bundle", "--data-dir", mnist]
    subprocess.run(bundle, cwd=ROOT, check=True)
    subprocess.run([uv, "venv", "--quiet", "--python", found[0], tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    packages = ["torch==2.11.0", "torchvision==0.26.0", "onnx", "onnxscript", "onnxruntime", "safetensors"]
    packages += ["tensorboard", "rich", "pillow", "scikit-learn", "pytest", "pip"]
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *packages], check=True)

    options = ["--device", "cpu", "--tiny", "--minutes", "90"]
    options += ["--bundle", tmp_path / "bundle", "--out", tmp_path / "out"]
    variables = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MNIST_GAN_DATA")}
    variables["OMP_NUM_THREADS"] = "1"
    done = subprocess.run([python, *COMMAND, *options], cwd=tmp_path / "copy", env=variables, text=True, timeout=1800)
    report = json.loads((tmp_path / "out" / "gpu-check.json").read_text())
    assert done.returncode == 0, report
    assert {stage["status"] for stage in report["stages"].values()} == {"passed"}
    files = list((tmp_path / "out").iterdir())
    assert len(files) <= 8
    assert all(file.stat().st_size <= MAX_FILE_BYTES for file in files)
