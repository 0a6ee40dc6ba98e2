"""The runtimes in docs/runtimes.md render the pretrained generators. Each test creates an environment for a runtime."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from models.onnx_file.generator import Generator
from models.onnx_file.store import SHIPPED

ROOT = Path(__file__).parents[3]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs/runtimes.md").read_text(), re.DOTALL)
RUNTIMES = {
    "onnxruntime": ("3.11", ["onnxruntime==1.17.0", "numpy<2"]),
    "openvino": (None, ["openvino"]),
    "onnx.reference": (None, ["onnx"]),
}
"""Python version (None: the version of this process) and packages, for each runtime. 1.17 is the oldest onnxruntime
that supports opset 20."""


@pytest.mark.slow
@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", ["mnist", "mnist-fast"])
def test_a_documented_runtime_renders_the_same_pixels(tmp_path, environment, name, runtime):
    inputs, *blocks = BLOCKS
    (lines,) = (block for block in blocks if re.search(rf"^(import|from) {re.escape(runtime)}\b", block, re.MULTILINE))
    assert len(lines.splitlines()) <= 5
    shutil.copy(SHIPPED.with_stem(name), tmp_path / "generator.onnx")
    script = f"{inputs}\n{lines}\nnp.savez('out.npz', images=images, latents=latents, labels=labels)\n"
    done = subprocess.run(
        [environment(runtime), "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "out.npz") as arrays:
        expected = Generator.open(SHIPPED.with_stem(name)).decode(arrays["latents"], arrays["labels"])
        off = np.abs(arrays["images"].astype(int) - expected.astype(int))
    print(f"{runtime}: {(off > 0).sum()} of {off.size} pixels differ, by up to {off.max()} levels")
    assert off.max() <= 1
    assert (off > 0).mean() <= 1e-4


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Returns a function that creates the environment of a runtime, once for all tests, and returns its Python."""
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    interpreters: dict[str, Path] = {}

    def make(runtime: str) -> Path:
        if runtime not in interpreters:
            python, packages = RUNTIMES[runtime]
            folder = tmp_path_factory.mktemp("runtime") / "venv"
            run(uv, "venv", "--python", python or sys.executable, folder)
            run(uv, "pip", "install", "--python", folder / "bin" / "python", *packages)
            interpreters[runtime] = folder / "bin" / "python"
        return interpreters[runtime]

    if uv is None:
        pytest.skip("the environments need uv, which make setup installs")
    return make


def run(*command: object) -> None:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
