"""Start of `bentoml serve` where it cannot listen."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from models.onnx_file.store import SHIPPED
from tools.service_process import ROOT

TRACKED = {name: value for name, value in os.environ.items() if name != "BENTOML_DO_NOT_TRACK"}


@pytest.mark.parametrize(("log_format", "given"), [("text", "option"), ("json", "variable")])
def test_a_port_in_use_ends_the_start_with_one_line(tmp_path, log_format, given):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [Path(sys.executable).parent / "bentoml", "serve", *(["--port", port] if given == "option" else [])],
            cwd=ROOT,
            env=TRACKED
            | ({"BENTOML_PORT": port} if given == "variable" else {})
            | {"BENTOML_HOME": str(tmp_path), "MNIST_GAN_LOG_FORMAT": log_format, "MNIST_GAN_MODEL": str(SHIPPED)},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 1
    assert not done.stdout
    (line,) = done.stderr.splitlines()
    assert f"port {port}: Address already in use" in line
    if log_format == "json":
        assert json.loads(line)["level"] == "error"
