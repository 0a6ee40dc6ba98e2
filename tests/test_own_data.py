"""The commands of docs/own-data.md, run in order in a clone."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from models.onnx_file.generator import Generator
from tools.ports import free_port

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


def test_the_shell_commands_of_the_page_work_in_order(tmp_path):
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    port = str(free_port())
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "docs/own-data.md").read_text(), re.DOTALL | re.MULTILINE)
    script = "set -euo pipefail -m\n" + "".join(blocks).replace("localhost:3000", f"127.0.0.1:{port}")
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(clone),
        "BENTOML_HOME": str(tmp_path / "bentoml"),
        "BENTOML_PORT": port,
    }
    done = subprocess.run(
        ["bash", "-c", script], cwd=clone, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr

    card = Generator.open(clone / "shapes.onnx").card
    assert (sorted(card.class_names), card.image_shape) == (["flower", "heart", "star"], (3, 24, 24))
    with Image.open(clone / "served.png") as served:
        assert served.size == (6 * 24 * 4, 2 * 24 * 4)
    with Image.open(clone / "shapes.png") as grid:
        assert grid.size == (9 * 24 * 3, 3 * 24 * 3)
    assert list((tmp_path / "bentoml" / "bentos" / "mnist-gan").iterdir())
