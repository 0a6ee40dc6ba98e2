"""The container image, built and run with docker, or with buildah where there is no docker daemon.

The tests use the image for CPUs, or the one that MNIST_GAN_IMAGE names:
`MNIST_GAN_IMAGE=cuda pytest -m slow tests/deploy/test_container.py`.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import yaml

from models.common.image_files import grid, png
from models.onnx_file.generator import Generator
from tools.container_engines import SHELLS, Docker, Engine, EngineError, usable_engine
from tools.ports import free_port
from tools.service_process import ROOT

pytestmark = pytest.mark.slow

IMAGE = "mnist-gan:test"
PACKED = ROOT / "models/pretrained/mnist-fast.onnx"
"""Model that the image contains; it is not the one that an image contains by default."""
DEPLOYMENT = ROOT / "deploy/kubernetes/base/deployment.yaml"
CUDA = os.environ.get("MNIST_GAN_IMAGE") == "cuda"


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Iterator[tuple[Engine, str]]:
    """Builds the image with the command of `make container`, and yields the command's output, too."""
    try:
        engine = usable_engine()(IMAGE)
    except EngineError as error:
        pytest.skip(str(error))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENTOML_HOME", str(tmp_path_factory.mktemp("bentoml")))
        register = f"register(Generator.open({str(PACKED)!r}))"
        imports = "from models.onnx_file.generator import Generator; from models.onnx_file.store import register"
        engine.run(sys.executable, "-c", f"{imports}; {register}")
        output = engine.run(sys.executable, "-m", "tools.container", IMAGE)
    yield engine, output
    engine.remove()


@pytest.fixture(scope="module")
def engine(built) -> Engine:
    return built[0]


@contextmanager
def served(engine: Engine, folder: Path, **environment: str) -> Iterator[tuple[httpx.Client, subprocess.Popen]]:
    """Starts the service in a container and yields a client once it is live; it need not be ready."""
    port = free_port()
    log = folder / "service.log"
    with log.open("w") as stream:
        start = time.monotonic()
        service = engine.start(port, stream, **environment)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        try:
            while True:
                try:
                    client.get("/livez").raise_for_status()
                    break
                except httpx.HTTPError:
                    assert service.poll() is None, log.read_text()
                    assert time.monotonic() < start + 90, log.read_text()
                    time.sleep(0.05)
            print(f"live after {time.monotonic() - start:.1f} s")
            yield client, service
        finally:
            service.terminate()
            service.wait(timeout=30)


@pytest.fixture(scope="module")
def running(engine, tmp_path_factory) -> Iterator[tuple[httpx.Client, subprocess.Popen]]:
    with served(engine, tmp_path_factory.mktemp("container")) as client_and_process:
        yield client_and_process


def test_the_command_prints_the_size_of_the_image_its_time_to_ready_and_how_to_run_it(built):
    engine, output = built
    assert re.search(rf"^{IMAGE}: \d.*B, ready \d+\.\d s after its start \(median of 3\)$", output, re.MULTILINE)
    assert output.endswith(f"docker run --rm --read-only --tmpfs /tmp -p 3000:3000 {IMAGE}\n")
    assert ("docker load" in output) != isinstance(engine, Docker)


def test_the_image_has_the_service_but_no_training_code_tests_or_build_tools(engine):
    files = engine.files()
    (packages,) = (name for name in files if name.endswith("site-packages") and name.startswith("app/.venv/lib/python"))
    installed = {name.removeprefix(packages + "/") for name in files}
    assert {"bentoml", "onnxruntime", "uvloop"} <= installed
    assert not installed & {"torch", "pytest", "tensorboard", "sklearn", "numpy/_core/tests"}
    assert ("nvidia" in installed) == CUDA
    assert not [name for name in files if "/src/" in name and name.endswith(("/training", "/tests"))]
    assert not [name for name in files if name.endswith(("bin/gcc", "bin/git", "bin/uv", "bin/curl"))]
    assert not [name for name in files if name.startswith(("root/.cache/", "home/bentoml/bento/env/docker"))]
    assert set(SHELLS) <= files, "the shells that the engine hides"
    # A read-only root cannot receive bytecode later, so the modules that a start imports are compiled.
    assert [name for name in files if "/src/serving/http/__pycache__/service.cpython" in name]


def test_kubernetes_uses_the_entrypoint_and_the_user_of_the_image(engine):
    pod = yaml.safe_load(DEPLOYMENT.read_text())["spec"]["template"]["spec"]
    assert pod["containers"][0]["command"] == engine.config["Entrypoint"]
    assert engine.config["User"] == "{runAsUser}:{runAsGroup}".format(**pod["securityContext"])


def test_the_container_serves_the_packed_model_as_its_user_without_a_shell_on_a_read_only_root(engine, running):
    client, service = running
    assert client.get("/readyz").status_code == 200
    response = client.post("/generate", json={"n": 20, "seed": 7, "labels": "0123456789"})
    assert response.content == png(grid(Generator.open(PACKED).images(7, 0, 20, "0123456789")[0], scale=2))
    assert client.get("/playground").status_code == 200
    assert engine.uids(service, client.base_url.port) == {1034}


def test_the_health_check_passes_once_the_service_is_ready(engine, running):
    client, service = running
    assert engine.is_healthy(service, client.base_url.port)


def test_the_health_check_fails_if_the_model_cannot_be_loaded(engine, tmp_path):
    with served(engine, tmp_path, MNIST_GAN_MODEL="/nowhere.onnx") as (client, service):
        assert client.get("/readyz").status_code == 503
        assert not engine.is_healthy(service, client.base_url.port)


def test_the_container_exits_with_0_on_sigterm(running):
    _, service = running
    service.terminate()
    assert service.wait(timeout=30) == 0


@pytest.mark.skipif(not CUDA, reason="only for MNIST_GAN_IMAGE=cuda")
def test_without_a_gpu_the_cuda_image_serves_on_the_cpu_and_logs_it_unless_a_gpu_is_required(engine, tmp_path):
    if Path("/dev/nvidiactl").exists():
        pytest.skip("there is a GPU")
    with served(engine, tmp_path) as (client, _):
        assert client.post("/generate", json={"n": 4}).status_code == 200
        assert "no GPU is used" in (tmp_path / "service.log").read_text()
    with served(engine, tmp_path, MNIST_GAN_DEVICE="cuda") as (client, _):
        assert client.get("/readyz").status_code == 503
        assert "onnxruntime cannot use CUDAExecutionProvider" in (tmp_path / "service.log").read_text()
