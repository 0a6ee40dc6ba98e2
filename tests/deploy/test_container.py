"""The container image, built and run for real; with buildah where there is no docker."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from models.artifact import Generator
from models.store import SHIPPED
from serving.images import png, sheet
from tests.serving.server import ROOT

pytestmark = pytest.mark.slow

IMAGE = "mnist-gan:test"
BENTOML = Path(sys.executable).parent / "bentoml"
ENTRYPOINT = "/home/bentoml/bento/env/docker/entrypoint.sh"
BUILDAH = {"STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}
STAND_IN = Path(os.environ.get("MNIST_GAN_CONTAINER_BASE", ROOT.parent / "shared/tools/container-base"))
"""Makes a base image where no registry can be reached."""
READ_ONLY = """
mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && mount -t tmpfs tmpfs "$1/tmp" && mount -t proc proc "$1/proc"
mount --bind /dev "$1/dev"
exec chroot --userspec=1034:1034 "$1" /usr/bin/env PATH=/app/.venv/bin:/usr/bin:/bin \
    HOME=/tmp BENTOML_HOME=/tmp/bentoml BENTO_PATH=/home/bentoml/bento \
    BENTOML_DO_NOT_TRACK=true ORT_DISABLE_TELEMETRY=1 "$2" serve --port "$3"
"""


def run(*command: object, **environment: str) -> str:
    done = subprocess.run(
        list(map(str, command)), cwd=ROOT, env=os.environ | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Iterator[Path]:
    """The image's file system."""
    if not shutil.which("buildah") or os.geteuid():
        pytest.skip("needs buildah (Debian: apt-get install buildah) and root")
    if not STAND_IN.exists() and not run("buildah", "images", "-q", "docker.io/library/python:3.13-slim", **BUILDAH):
        pytest.skip("there is no base image: pull docker.io/library/python:3.13-slim with buildah")
    home = str(tmp_path_factory.mktemp("home"))
    if STAND_IN.exists():
        run(STAND_IN, **BUILDAH)
    environment = BUILDAH | {"BENTOML_HOME": home}
    run(BENTOML, "build", **environment)
    run(BENTOML, "containerize", "mnist-gan:latest", "--backend", "buildah", "-t", IMAGE, **environment)
    container = run("buildah", "from", IMAGE, **BUILDAH).strip()
    try:
        yield Path(run("buildah", "mount", container, **BUILDAH).strip())
    finally:
        run("buildah", "rm", container, **BUILDAH)
        run("buildah", "rmi", IMAGE, **BUILDAH)


@pytest.fixture(scope="module")
def served(root, tmp_path_factory) -> Iterator[tuple[httpx.Client, subprocess.Popen]]:
    """The service in the container: as its user, on a root that it cannot write."""
    port = free_port()
    log = tmp_path_factory.mktemp("container") / "service.log"
    with log.open("w") as stream:
        command = ["unshare", "--mount", "sh", "-ec", READ_ONLY, "sh", root, ENTRYPOINT, port]
        service = subprocess.Popen(list(map(str, command)), stdout=stream, stderr=stream)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        try:
            start = time.monotonic()
            while True:
                try:
                    client.get("/readyz").raise_for_status()
                    break
                except httpx.HTTPError:
                    assert service.poll() is None, log.read_text()
                    assert time.monotonic() < start + 90, log.read_text()
                    time.sleep(0.2)
            print(f"ready after {time.monotonic() - start:.1f} s")
            yield client, service
        finally:
            service.kill()
            service.wait()


def test_it_holds_the_service_and_neither_training_nor_tests_nor_a_compiler(root):
    packages = {path.name.lower() for path in root.glob("app/.venv/lib/python3*/site-packages/*")}
    assert {"bentoml", "onnxruntime", "uvloop"} <= packages
    assert not packages & {"torch", "pytest", "tensorboard", "sklearn"}
    source = root / "home/bentoml/bento/src"
    assert not [path for path in source.rglob("*") if path.name in ("training", "tests")]
    assert not list(root.glob("usr/bin/gcc*")) + list(root.glob("usr/bin/git"))


def test_it_runs_as_its_user_on_a_read_only_root_and_answers_the_same_bytes(served):
    client, service = served
    answer = client.post("/generate", json={"n": 20, "seed": 7, "labels": "0123456789"})
    assert answer.content == png(sheet(Generator.open(SHIPPED).images(7, 0, 20, "0123456789")[0], scale=2))
    assert client.get("/playground").status_code == 200
    status = Path(f"/proc/{service.pid}/status").read_text()
    assert re.search(r"^Uid:\s+1034\s", status, re.MULTILINE)


def test_it_ends_on_sigterm(served):
    _, service = served
    service.terminate()
    assert service.wait(timeout=30) in (0, -15)
