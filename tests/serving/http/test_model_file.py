"""The choice of the model file, and a service without a usable model file."""

import logging
import os
import signal

import numpy as np
import onnxruntime
import pytest

from models.common.errors import ModelFileError
from models.onnx_file.generator import Generator
from models.onnx_file.session import CPU, CUDA
from models.onnx_file.store import SHIPPED, register
from serving.http.model_file import open_model
from tests.serving.http.messages import error_code, npz_images
from tools.service_process import serving


def test_the_shipped_generator_is_served_if_the_store_is_empty(tmp_path):
    with serving(tmp_path) as (client, _):
        shipped = Generator.open(SHIPPED)
        assert client.get("/card").json()["file_sha256"] == shipped.card.file_sha256
        response = client.post("/dataset", json={"n": 20, "seed": 3})
        np.testing.assert_array_equal(npz_images(response), shipped.images(3, 0, 20)[0][:, 0])


def test_the_newest_model_of_the_store_is_served_until_sigterm(files, tmp_path):
    register(Generator.open(files["unconditional"]))
    newest = Generator.open(files["conditional"])
    register(newest)
    with serving(tmp_path, BENTOML_HOME=os.environ["BENTOML_HOME"]) as (client, server):
        assert client.get("/card").json()["file_sha256"] == newest.card.file_sha256
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=20) in (0, -signal.SIGTERM)


def test_a_service_without_a_model_is_alive_but_not_ready_and_logs_the_reason(tmp_path):
    with serving(tmp_path, MNIST_GAN_MODEL=str(tmp_path / "nothing.onnx")) as (client, _):
        assert client.get("/livez").status_code == 200
        for response in (client.get("/readyz"), client.post("/generate"), client.post("/card"), client.get("/card")):
            assert error_code(response) == (503, "not_ready")
        assert "could not open its model file" in client.get("/docs.json").json()["info"]["description"]
    log = (tmp_path / "service.log").read_text()
    assert "nothing.onnx: No such file or directory" in log
    assert "Traceback" not in log


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_gpu_that_cannot_be_used_is_reported_only_if_the_model_file_itself_is_good(
    files, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(logging.getLogger("bentoml"), "propagate", True)
    damaged = tmp_path / "a.onnx"
    damaged.write_bytes(files["conditional"].read_bytes()[:-7])
    with pytest.raises(ModelFileError, match="checksum"):
        open_model(damaged, "auto", public_key=None, allowed_hashes=())
    assert "GPU" not in caplog.text
    model = open_model(files["conditional"], "auto", public_key=None, allowed_hashes=())
    if model.provider == CPU:
        assert f"no GPU is used: {files['conditional']}: " in caplog.text


@pytest.mark.slow
def test_the_service_is_not_ready_if_the_requested_gpu_cannot_be_used(files, tmp_path):
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime-gpu is installed, there may be a GPU")
    with serving(tmp_path, MNIST_GAN_MODEL=str(files["conditional"]), MNIST_GAN_DEVICE="cuda") as (client, _):
        assert client.get("/readyz").status_code == 503
    assert "CUDAExecutionProvider" in (tmp_path / "service.log").read_text()


@pytest.mark.slow
def test_a_damaged_model_file_is_not_served_and_the_log_has_the_reason(files, tmp_path):
    (tmp_path / "a.onnx").write_bytes(files["conditional"].read_bytes()[:-7])
    with serving(tmp_path, MNIST_GAN_MODEL=str(tmp_path / "a.onnx")) as (client, _):
        assert client.get("/readyz").status_code == 503
    assert "a.onnx: " in (tmp_path / "service.log").read_text()
