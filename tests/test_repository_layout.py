"""The packages load only the libraries that they need, and the Bento and the locked requirements are complete.

`make lint` checks the imports between the packages (tool.importlinter in pyproject.toml). The tests here start
processes and look at the modules that are loaded.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "module",
    ["serving.http.service", "serving.offline.sample", "serving.offline.export_site", "models.onnx_file.generator"],
)
def test_serving_and_sampling_load_neither_torch_nor_onnxscript(module):
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


def test_opening_a_model_file_and_sampling_do_not_load_bentoml():
    code = "import models.onnx_file.generator, serving.offline.sample, sys; assert 'bentoml' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("package", ["models", "serving"])
@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("ORT_DISABLE_TELEMETRY", None, "1"),
        ("ORT_DISABLE_TELEMETRY", "0", "0"),
        ("BENTOML_DO_NOT_TRACK", None, "true"),
        ("BENTOML_DO_NOT_TRACK", "false", "false"),
    ],
)
def test_importing_a_package_disables_telemetry_unless_the_user_has_set_the_variable(package, name, value, expected):
    code = f"import {package}, os, sys; print(os.environ['{name}'], {{'onnxruntime', 'bentoml'}} & {{*sys.modules}})"
    environment = {variable: text for variable, text in os.environ.items() if variable != name}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | ({} if value is None else {name: value}),
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == [expected, "set()"]


def test_onnxruntime_and_onnxruntime_gpu_are_pinned_to_the_same_version():
    pins = (ROOT / "requirements.lock").read_text().split()
    versions = {pin.partition("==")[2] for pin in pins if pin.startswith(("onnxruntime==", "onnxruntime-gpu=="))}
    assert len(versions) == 1


def test_the_lock_file_contains_no_registry_address():
    assert "://" not in (ROOT / "requirements.lock").read_text()
