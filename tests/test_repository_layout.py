"""Two floors: training and serving both stand on models and never know each other; serving is free of torch."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]


def imports(package: str) -> set[str]:
    """Top-level names that the files of a package import, anywhere in them."""
    names = set()
    for file in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("models", {"training", "serving"}),
        ("training", {"serving", "bentoml", "onnxruntime"}),
        ("serving", {"training", "torch", "torchvision"}),
    ],
)
def test_arrows_go_one_way(package, forbidden):
    assert not imports(package) & forbidden


@pytest.mark.parametrize("module", ["serving.http.service", "serving.offline.sample", "models.onnx_file.generator"])
def test_what_serves_never_loads_torch(module):
    code = f"import {module}, sys; assert not {{'torch', 'onnxscript'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_bento_includes_every_module_that_the_service_imports():
    code = (
        "import serving.http.service, sys; "
        "print(*(m.__file__ for name, m in sys.modules.items() if name.startswith(('models', 'serving'))))"
    )
    imported = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    bento = yaml.safe_load((ROOT / "bentofile.yaml").read_text())
    for file in imported.stdout.split():
        name = Path(file).relative_to(ROOT)
        included = any(name.match(p) or (p.endswith("/") and name.is_relative_to(p)) for p in bento["include"])
        assert included, f"{name} is not in bentofile.yaml"


def test_what_opens_the_file_never_loads_bentoml():
    code = "import models.onnx_file.generator, serving.offline.sample, sys; assert 'bentoml' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("package", ["models", "serving"])
@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("ORT_DISABLE_TELEMETRY", None, "1"),
        ("ORT_DISABLE_TELEMETRY", "0", "0"),
        ("BENTOML_DO_NOT_TRACK", None, "true"),
        ("BENTOML_DO_NOT_TRACK", "false", "false"),
    ],
)
def test_importing_a_package_switches_telemetry_off_unless_the_user_has_set_it(package, name, value, kept):
    code = f"import {package}, os, sys; print(os.environ['{name}'], {{'onnxruntime', 'bentoml'}} & {{*sys.modules}})"
    environment = {variable: text for variable, text in os.environ.items() if variable != name}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | ({} if value is None else {name: value}),
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == [kept, "set()"]


def test_the_two_runtimes_are_pinned_to_one_version():
    pins = (ROOT / "requirements.lock").read_text().split()
    versions = {pin.partition("==")[2] for pin in pins if pin.startswith(("onnxruntime==", "onnxruntime-gpu=="))}
    assert len(versions) == 1


def test_no_lock_names_a_registry():
    assert "://" not in (ROOT / "requirements.lock").read_text()
