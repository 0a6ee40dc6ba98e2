"""How a model file is replaced while the service runs."""

import asyncio
import os
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from models.onnx_file.generator import Generator
from models.onnx_file.store import SHIPPED, register
from serving.http.errors import RequestError
from serving.http.model_registry import ModelRegistry
from tests.serving.http.messages import error_code, error_field, error_of, npz_images
from tests.serving.http.processes import resident_bytes
from tools.service_process import serving

FAST = SHIPPED.with_name("mnist-fast.onnx")
TOKEN = {"Authorization": "Bearer secret"}
GROWTH_BYTES = 10 << 20
"""Maximum growth of the memory by 20 replacements."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The folder from which files may be loaded, with three model files, one of them damaged."""
    folder = tmp_path_factory.mktemp("allowed")
    for file in (SHIPPED, FAST):
        shutil.copy(file, folder)
    content = bytearray(FAST.read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "damaged.onnx").write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Path:
    """The log of the server of `admin`."""
    return tmp_path_factory.mktemp("switching") / "service.log"


@pytest.fixture(scope="module")
def server_and_admin(folder, log):
    environment = {
        "MNIST_GAN_MODEL": f"main={SHIPPED},missing={folder / 'nothing.onnx'}",
        "MNIST_GAN_LOAD_FOLDER": str(folder),
        "MNIST_GAN_API_TOKEN": "secret",
        "BENTOML_HOME": os.environ["BENTOML_HOME"],
    }
    with serving(log.parent, **environment) as (client, server):
        client.headers.update(TOKEN)
        yield server, client


@pytest.fixture
def admin(server_and_admin) -> httpx.Client:
    """A client with the token, of a server whose model `main` may be replaced and whose model `missing` has no file."""
    _, client = server_and_admin
    load(client, "mnist.onnx")
    return client


def load(client: httpx.Client, source: str, name: str = "main") -> None:
    client.post(f"/models/{name}/load", json={"source": source}).raise_for_status()


def served(client: httpx.Client, name: str = "main") -> str | None:
    """Returns the hash of the file that is served under a name."""
    return next(model["file_sha256"] for model in client.get("/models").json()["models"] if model["name"] == name)


def test_the_list_and_loading_need_the_token(admin):
    for response in (
        admin.get("/models", headers={"Authorization": ""}),
        admin.post("/models/main/load", json={"source": "mnist-fast.onnx"}, headers={"Authorization": "Bearer no"}),
    ):
        assert error_code(response) == (401, "unauthorized")
    assert served(admin) == Generator.open(SHIPPED).card.file_sha256


def test_a_loaded_file_is_served_from_the_response_on(admin, folder, log):
    fast = Generator.open(FAST)
    for source in ("mnist-fast.onnx", "./mnist-fast.onnx", str(folder / "mnist-fast.onnx")):
        load(admin, "mnist.onnx")
        response = admin.post("/models/main/load", json={"source": source})
        assert response.json() == {
            "name": "main",
            "default": True,
            "state": "ready",
            "card_name": "mnist-fast",
            "file_sha256": fast.card.file_sha256,
        }
        images = admin.post("/dataset", json={"n": 20, "seed": 3})
        assert images.headers["X-Model"] == fast.card.file_sha256
        np.testing.assert_array_equal(npz_images(images), fast.images(3, 0, 20)[0][:, 0])
    assert admin.get("/card").json()["name"] == "mnist-fast"
    (info,) = [line for line in admin.get("/metrics").text.splitlines() if line.startswith("mnist_gan_model_info{")]
    assert fast.card.file_sha256 in info
    assert "serving mnist-fast from " in log.read_text()


def test_a_model_of_the_store_can_be_loaded_by_its_tag(admin):
    tag = register(Generator.open(FAST))
    load(admin, tag)
    assert served(admin) == Generator.open(FAST).card.file_sha256


def test_a_file_that_fails_a_check_is_not_served_and_response_and_log_have_the_reason(admin, log):
    before = served(admin)
    response = admin.post("/models/main/load", json={"source": "damaged.onnx"})
    assert error_field(response) == (400, "source")
    assert "damaged.onnx: checksum" in error_of(response)["message"]
    assert "the model main was not replaced: " in log.read_text()
    assert served(admin) == before
    assert admin.post("/generate", json={"n": 1}).headers["X-Model"] == before


@pytest.mark.parametrize(
    "source",
    [
        "../outside/mnist-fast.onnx",
        "{outside}/mnist-fast.onnx",
        "link.onnx",
        "linked-folder/mnist-fast.onnx",
        ".",
        "pipe",
        "nothing.onnx",
        "mnist-gan:nothing",
        "other model:1",
        "a\0b",
        "x" * 4_000,
        "/dev/zero",
    ],
)
def test_only_files_below_the_folder_and_models_of_the_store_can_be_loaded(admin, folder, source):
    outside = folder.parent / "outside"
    if not outside.exists():
        outside.mkdir()
        shutil.copy(FAST, outside)
        (folder / "link.onnx").symlink_to(outside / "mnist-fast.onnx")
        (folder / "linked-folder").symlink_to(outside)
        os.mkfifo(folder / "pipe")
    response = admin.post("/models/main/load", json={"source": source.format(outside=outside)})
    assert error_field(response) == (400, "source")
    assert "neither a file below the folder of MNIST_GAN_LOAD_FOLDER nor a model" in error_of(response)["message"]
    assert len(response.content) < 500


def test_only_models_that_exist_can_be_replaced(admin):
    assert error_code(admin.post("/models/letters/load", json={"source": "mnist.onnx"})) == (404, "not_found")
    assert error_code(admin.get("/models/main/load")) == (405, "method_not_allowed")


def test_a_model_without_a_file_keeps_the_service_unready_until_one_is_loaded(admin):
    assert [model["state"] for model in admin.get("/models").json()["models"]] == ["ready", "failed"]
    assert admin.get("/readyz").status_code == 503
    assert error_code(admin.post("/generate", json={"model": "missing"})) == (503, "not_ready")
    assert admin.post("/generate").status_code == 200
    assert "with the model mnist," in admin.get("/docs.json").json()["info"]["description"]
    load(admin, "mnist-fast.onnx", "missing")
    assert admin.get("/readyz").status_code == 200
    assert admin.post("/generate", json={"model": "missing"}).status_code == 200


def test_a_request_in_flight_ends_with_the_file_that_it_began_with(admin):
    shipped = Generator.open(SHIPPED)
    with ThreadPoolExecutor(1) as pool:
        large = pool.submit(admin.post, "/dataset", json={"n": 10_000, "seed": 1})
        deadline = time.monotonic() + 10
        while 'mnist_gan_queued_images{model="main"} 0.0' in admin.get("/metrics").text:
            assert time.monotonic() < deadline
        load(admin, "mnist-fast.onnx")
        assert not large.done()
        response = large.result()
    assert response.headers["X-Model"] == shipped.card.file_sha256
    np.testing.assert_array_equal(npz_images(response)[-100:], shipped.images(1, 9_900, 100)[0][:, 0])


@pytest.mark.slow
def test_several_workers_refuse_to_load_and_say_to_restart(folder, tmp_path):
    environment = {
        "MNIST_GAN_MODEL": str(FAST),
        "MNIST_GAN_LOAD_FOLDER": str(folder),
        "MNIST_GAN_API_TOKEN": "secret",
        "MNIST_GAN_WORKERS": "2",
    }
    with serving(tmp_path, **environment) as (client, _):
        response = client.post("/models/mnist-gan/load", json={"source": "mnist.onnx"}, headers=TOKEN)
    assert error_code(response) == (409, "conflict")
    assert "restart the service" in error_of(response)["message"]
    assert "MNIST_GAN_LOAD_FOLDER has no effect with several workers" in (tmp_path / "service.log").read_text()


@pytest.fixture
def blocked_registry() -> Iterator[tuple[ModelRegistry, threading.Event]]:
    """A registry with the models `a` and `b`. It opens further files only when the event is set."""
    go = threading.Event()

    def open_file(path: Path) -> Generator:
        assert go.wait(30)
        return Generator.open(path)

    go.set()
    registry = ModelRegistry({"a": str(FAST), "b": str(FAST)}, open_file)
    go.clear()
    yield registry, go
    go.set()


def test_only_one_file_is_loaded_at_a_time(blocked_registry):
    registry, go = blocked_registry

    async def load_two() -> None:
        first = asyncio.create_task(registry.replace("a", SHIPPED))
        await asyncio.sleep(0)
        assert [model["state"] for model in registry.describe_all()] == ["loading", "ready"]
        assert registry.get("a").card.name == "mnist-fast"
        with pytest.raises(RequestError, match="A file for the model a is being loaded"):
            await registry.replace("b", SHIPPED)
        go.set()
        await first
        await registry.replace("b", SHIPPED)

    asyncio.run(load_two())
    assert [model["card_name"] for model in registry.describe_all()] == ["mnist", "mnist"]


def test_a_file_is_loaded_even_if_the_client_disconnects_meanwhile(blocked_registry):
    registry, go = blocked_registry

    async def disconnect() -> None:
        task = asyncio.create_task(registry.replace("a", SHIPPED))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        go.set()
        async with asyncio.timeout(30):
            while registry.get("a").card.name != "mnist":
                await asyncio.sleep(0.01)

    asyncio.run(disconnect())
    assert registry.describe("a")["state"] == "ready"


@pytest.mark.slow
def test_no_request_fails_and_no_memory_is_kept_when_files_are_replaced_under_load(server_and_admin, admin):
    server, _ = server_and_admin
    stop, statuses = threading.Event(), []

    def send_requests(n: int) -> None:
        with httpx.Client(base_url=admin.base_url, headers=TOKEN, timeout=60) as client:
            while not stop.is_set():
                statuses.append(client.post("/dataset", json={"n": n}).status_code)

    def replace(times: int) -> None:
        for i in range(times):
            load(admin, "mnist.onnx" if i % 2 else "mnist-fast.onnx")

    def resident_bytes_when_idle() -> int:
        replace(2)  # returns freed memory to the system
        time.sleep(0.5)
        return resident_bytes(server)

    def replace_under_load(times: int) -> None:
        stop.clear()
        with ThreadPoolExecutor(3) as pool:
            senders = [pool.submit(send_requests, n) for n in (1, 20, 300)]
            replace(times)
            stop.set()
        for sender in senders:
            sender.result()

    replace_under_load(20)
    before = resident_bytes_when_idle()
    for _ in range(3):
        replace_under_load(20)
    growth = (resident_bytes_when_idle() - before) / 3
    assert len(statuses) > 80
    assert set(statuses) == {200}
    assert growth < GROWTH_BYTES
