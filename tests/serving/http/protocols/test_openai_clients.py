"""OpenAI's API for images with the `openai` package, in an environment of its own."""

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from models.onnx_file.generator import Generator
from models.onnx_file.store import SHIPPED
from tests.serving.http.protocols.documented import commands, run
from tests.serving.http.protocols.environments import make_environment, run_client
from tools.service_process import serving

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    packages = ("openai==3.57.0", "numpy", "pillow")
    return make_environment(tmp_path_factory.mktemp("openai"), *packages)


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("service"), MNIST_GAN_MODEL=str(SHIPPED)) as (client, _):
        yield str(client.base_url).rstrip("/")


def test_the_client_calls_every_route_and_raises_its_exceptions(python, url, tmp_path):
    images, _ = Generator.open(SHIPPED).images(7, 0, 2, "42")
    np.savez(tmp_path / "expected.npz", row=np.hstack(images[:, 0]))
    run_client(python, "openai_client.py", url, tmp_path / "expected.npz")


SETTINGS = {
    "token": {"MNIST_GAN_MODEL": str(SHIPPED), "MNIST_GAN_API_TOKEN": "secret"},
    "full": {"MNIST_GAN_MODEL": str(SHIPPED), "MNIST_GAN_MAX_REQUESTS": "1"},
    "unready": {"MNIST_GAN_MODEL": "/nothing.onnx"},
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_the_client_raises_its_exceptions_and_retries(python, tmp_path, kind):
    with serving(tmp_path, **SETTINGS[kind]) as (client, _):
        run_client(python, "openai_errors.py", str(client.base_url).rstrip("/"), kind)
        metrics = client.get("/metrics").text
    if kind == "unready":
        pattern = r'_request_total\{endpoint="/v1/images/generations",http_response_code="503".*\} (\d+)'
        assert re.search(pattern, metrics)[1] == "3", "one request and two retries"


def test_the_commands_of_the_page_run(python, url, tmp_path):
    blocks = commands("openai.md")
    assert len(blocks) == 2
    outputs = [run(language, code, url, tmp_path, python) for language, code in blocks]
    with Image.open(tmp_path / "42.png") as image:
        assert image.size == (256, 256)
    addresses = re.findall(r'"url":"(.*?)"', outputs[1])
    assert len(addresses) == 2
    for address in addresses:
        assert httpx.get(address).raise_for_status().headers["content-type"] == "image/png"
