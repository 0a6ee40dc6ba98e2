"""The shipped file in the runtimes that docs/runtimes.md names, each in an environment of its own."""

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
"""Python version, or this one's, and packages. onnxruntime in the oldest version that knows opset 20."""


@pytest.mark.slow
@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", ["mnist", "mnist-fast"])
def test_a_documented_runtime_draws_the_same_pixels(tmp_path, environment, name, runtime):
    arrays, *blocks = BLOCKS
    (lines,) = (block for block in blocks if re.search(rf"^(import|from) {re.escape(runtime)}\b", block, re.MULTILINE))
    assert len(lines.splitlines()) <= 5
    shutil.copy(SHIPPED.with_stem(name), tmp_path / "generator.onnx")
    script = f"{arrays}\n{lines}\nnp.savez('out.npz', images=images, latents=latents, labels=labels)\n"
    done = subprocess.run(
        [environment(runtime), "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "out.npz") as made:
        expected = Generator.open(SHIPPED.with_stem(name)).decode(made["latents"], made["labels"])
        off = np.abs(made["images"].astype(int) - expected.astype(int))
    print(f"{runtime}: {(off > 0).sum()} of {off.size} pixels differ, by up to {off.max()} levels")
    assert off.max() <= 1
    assert (off > 0).mean() <= 1e-4


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Makes the environment of a runtime, once for all files; returns its Python."""
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    made: dict[str, Path] = {}

    def make(runtime: str) -> Path:
        if runtime not in made:
            python, packages = RUNTIMES[runtime]
            folder = tmp_path_factory.mktemp("runtime") / "venv"
            run(uv, "venv", "--python", python or sys.executable, folder)
            run(uv, "pip", "install", "--python", folder / "bin" / "python", *packages)
            made[runtime] = folder / "bin" / "python"
        return made[runtime]

    if uv is None:
        pytest.skip("no uv, with which the environments are made: make setup installs it")
    return make


def run(*command: object) -> None:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
