"""Images by URL behind nginx, with the configuration of docs/images.md."""

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from models.onnx_file.generator import Generator
from models.onnx_file.store import SHIPPED
from tools.ports import free_port
from tools.service_process import ROOT, serving

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("nginx"), reason="no nginx: install it (Debian: apt-get install nginx)"),
]
HASH = Generator.open(SHIPPED).card.file_sha256


@pytest.fixture(scope="module")
def service(tmp_path_factory) -> Iterator[httpx.Client]:
    settings = {"MNIST_GAN_MODEL": str(SHIPPED), "MNIST_GAN_API_TOKEN": "secret", "MNIST_GAN_PUBLIC_IMAGES": "1"}
    with serving(tmp_path_factory.mktemp("service"), **settings) as (client, _):
        yield client


@pytest.fixture(scope="module")
def cache(service, tmp_path_factory) -> Iterator[httpx.Client]:
    """A client of nginx in front of the service."""
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    configuration = folder / "nginx.conf"
    configuration.write_text(documented_configuration(folder, port, str(service.base_url).rstrip("/")))
    with (folder / "log").open("w") as log:
        nginx = subprocess.Popen(["nginx", "-c", configuration, "-p", folder], stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            deadline = time.monotonic() + 20
            while True:
                try:
                    client.get("/livez")
                    break
                except httpx.TransportError:
                    assert nginx.poll() is None, (folder / "log").read_text()
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
            yield client
    finally:
        nginx.terminate()
        nginx.wait(timeout=20)


def documented_configuration(folder: Path, port: int, url: str) -> str:
    (documented,) = re.findall(r"```nginx\n(.*?)```", (ROOT / "docs/images.md").read_text(), flags=re.DOTALL)
    for placeholder, value in (
        ("/var/cache/nginx/images", f"{folder}/cache"),
        ("listen 8080", f"listen 127.0.0.1:{port}"),
        ("http://localhost:3000", url),
    ):
        assert placeholder in documented
        documented = documented.replace(placeholder, value)
    return (
        f"daemon off; user root; pid {folder}/pid; error_log {folder}/error.log; events {{}}\n"
        f"http {{ access_log off;\n{documented}\n}}"
    )


def requests_to_the_service(service: httpx.Client) -> float:
    lines = service.get("/metrics").text.splitlines()
    return sum(
        float(line.rsplit(" ", 1)[1]) for line in lines if re.match(r"bentoml_\w+_request_total.*(images|write)", line)
    )


@pytest.mark.parametrize("path", ["/images/7/3.png?label=5", "/write/7.webp?text=2026&size=512x128"])
def test_the_second_request_for_a_picture_with_a_hash_does_not_reach_the_service(service, cache, path):
    first = cache.get(f"{path}&v={HASH}")
    assert (first.status_code, first.headers["x-cache-status"]) == (200, "MISS")
    before = requests_to_the_service(service)
    second = cache.get(f"{path}&v={HASH}")
    assert (second.status_code, second.headers["x-cache-status"]) == (200, "HIT")
    assert second.content == first.content
    unchanged = cache.get(f"{path}&v={HASH}", headers={"if-none-match": first.headers["etag"]})
    assert unchanged.status_code == 304
    assert requests_to_the_service(service) == before


def test_a_picture_without_a_hash_and_an_error_reach_the_service_at_each_request(service, cache):
    for path in ("/images/7/3.png", f"/images/7/3.png?v={'0' * 12}"):
        before = requests_to_the_service(service)
        responses = [cache.get(path) for _ in range(2)]
        assert [response.headers["x-cache-status"] for response in responses if response.status_code == 200] != ["HIT"]
        assert requests_to_the_service(service) == before + 2
