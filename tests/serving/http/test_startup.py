"""`bentoml serve` on a port that is in use."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from models.onnx_file.store import SHIPPED
from tools.service_process import ROOT

ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "BENTOML_DO_NOT_TRACK"}
"""Environment of a user who has not disabled BentoML's usage reports."""


@pytest.mark.parametrize(("log_format", "source"), [("text", "option"), ("json", "variable")])
def test_a_port_in_use_aborts_the_start_with_one_line(tmp_path, log_format, source):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        ended = subprocess.run(
            [Path(sys.executable).parent / "bentoml", "serve", *(["--port", port] if source == "option" else [])],
            cwd=ROOT,
            env=ENVIRONMENT
            | ({"BENTOML_PORT": port} if source == "variable" else {})
            | {"BENTOML_HOME": str(tmp_path), "MNIST_GAN_LOG_FORMAT": log_format, "MNIST_GAN_MODEL": str(SHIPPED)},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert ended.returncode == 1
    assert not ended.stdout
    (line,) = ended.stderr.splitlines()
    assert f"port {port}: Address already in use" in line
    if log_format == "json":
        assert json.loads(line)["level"] == "error"
