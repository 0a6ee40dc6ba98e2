"""Errors of the layers around the routes have the format of the protocol whose path was requested."""

import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from models.onnx_file.store import SHIPPED
from tests.serving.http.messages import error_of
from tools.service_process import serving

TOKEN = {"authorization": "Bearer secret"}


def inference_text(response: httpx.Response) -> str:
    body = response.json()
    assert set(body) == {"error"}
    return body["error"]


def own_text(response: httpx.Response) -> str:
    return error_of(response)["message"]


def openai_text(response: httpx.Response) -> str:
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return body["error"]["message"]


REQUESTS: dict[str, tuple[str, str, dict[str, Any], Any]] = {
    "inference": ("POST", "/v2/models/mnist-gan/infer", {"json": {"parameters": {"seed": 1}}}, inference_text),
    "images": ("GET", "/images/1/2.png", {}, own_text),
    "openai": ("POST", "/v1/images/generations", {"json": {"prompt": "3", "size": "28x28"}}, openai_text),
}
"""A valid request of each protocol, and a function that checks the format of an error and returns its text."""


@pytest.fixture(scope="module")
def client(tmp_path_factory) -> Iterator[httpx.Client]:
    settings = {
        "MNIST_GAN_API_TOKEN": "secret",
        "MNIST_GAN_MAX_REQUESTS": "1",
        "MNIST_GAN_TIMEOUT_SECONDS": "3",
        "MNIST_GAN_MAX_JSON_BYTES": "1000",
    }
    with serving(tmp_path_factory.mktemp("errors"), MNIST_GAN_MODEL=str(SHIPPED), **settings) as (client, _):
        yield client


@pytest.mark.parametrize("name", REQUESTS)
def test_a_missing_token(client, name):
    method, path, options, text = REQUESTS[name]
    response = client.request(method, path, **options)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert "token" in text(response)
    assert client.request(method, path, headers=TOKEN, **options).status_code == 200


@pytest.mark.parametrize("path", ["/v2/health/live", "/v2/health/ready", "/v2/models/mnist-gan/ready"])
def test_health_routes_need_no_token(client, path):
    assert client.get(path).status_code == 200


@pytest.mark.parametrize("path", ["/v2", "/v2/models/mnist-gan", "/v2/models/mnist-gan/config"])
def test_metadata_need_the_token(client, path):
    assert client.get(path).status_code == 401
    assert client.get(path, headers=TOKEN).status_code == 200


@pytest.mark.parametrize("name", REQUESTS)
def test_a_body_over_its_limit(client, name):
    method, path, _, text = REQUESTS[name]
    response = client.request(method, path, headers=TOKEN, content=b" " * 1_001)
    assert response.status_code == 413
    assert "1,000" in text(response)


@pytest.mark.parametrize("name", REQUESTS)
def test_a_path_that_does_not_exist_and_another_method(client, name):
    method, path, _, text = REQUESTS[name]
    missing = client.request(method, path + "/nothing", headers=TOKEN)
    assert (missing.status_code, "does not exist" in text(missing)) == (404, True)
    other = client.delete(path, headers=TOKEN)
    assert (other.status_code, other.headers["allow"]) == (405, method)
    assert "allows only" in text(other)


@pytest.mark.parametrize("name", REQUESTS)
def test_an_overloaded_service(client, name):
    method, path, options, text = REQUESTS[name]
    with ThreadPoolExecutor(1) as pool, httpx.Client(base_url=client.base_url, headers=TOKEN, timeout=60) as other:
        deadline, occupied = time.monotonic() + 60, None
        while (response := client.request(method, path, headers=TOKEN, **options)).status_code != 429:
            assert time.monotonic() < deadline
            if occupied is None or occupied.done():  # it may have been rejected instead of the other request
                occupied = pool.submit(other.post, "/generate", json={"n": 1_024, "scale": 16})
        assert response.headers["retry-after"] == "1"
        assert "in progress" in text(response)


@pytest.mark.parametrize("name", REQUESTS)
def test_a_body_that_does_not_arrive_in_time(client, name):
    method, path, _, text = REQUESTS[name]
    head = f"{method} {path} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer secret\r\ncontent-length: 10\r\n\r\n"
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=30) as connection:
        connection.sendall(head.encode())
        received = b""
        while b"\r\n\r\n" not in received or not received.endswith(b"}"):
            received += connection.recv(10_000)
    start, _, body = received.partition(b"\r\n\r\n")
    status = int(re.match(rb"HTTP/1.1 (\d+)", start)[1])
    assert status == 504
    assert "did not arrive" in text(httpx.Response(status, content=body))


def test_a_service_without_a_model(tmp_path):
    with serving(tmp_path, MNIST_GAN_MODEL="/nothing.onnx") as (client, _):
        for method, path, options, text in REQUESTS.values():
            response = client.request(method, path, **options)
            assert (response.status_code, response.headers["retry-after"]) == (503, "1")
            assert "model file" in text(response)
