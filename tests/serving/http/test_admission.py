"""Token, CORS and limits, with a server that has a token and small limits."""

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

from serving.http.settings import SettingError, Settings
from tests.serving.http.messages import error_code, error_of, npy_body
from tools.service_process import serving

TOKEN = {"authorization": "Bearer s3cret"}
LIMITS = {
    "API_TOKEN": "s3cret",
    "CORS_ORIGINS": "https://a.example, https://b.example",
    "MAX_SHEET_IMAGES": "10",
    "MAX_ARRAY_IMAGES": "1200000",
    "MAX_BODY_BYTES": "10000",
    "MAX_JSON_BYTES": "1000",
    "MAX_REQUESTS": "4",
    "MAX_RESPONSE_BYTES": "1000000000",
    "MAX_TOTAL_RESPONSE_BYTES": "4000000000",
    "MAX_WAITING_IMAGES": "50000",
    "TIMEOUT_SECONDS": "2",
    "THREADS": "1",
}


@pytest.fixture(scope="module")
def client(files, tmp_path_factory) -> Iterator[httpx.Client]:
    limits = {f"MNIST_GAN_{name}": value for name, value in LIMITS.items()}
    with serving(tmp_path_factory.mktemp("limits"), MNIST_GAN_MODEL=str(files["conditional"]), **limits) as (client, _):
        client.headers.update(TOKEN)
        yield client


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER   "])
def test_the_scheme_of_the_token_may_have_any_case_and_spaces(client, scheme):
    headers = {"authorization": f"{scheme}s3cret"}
    assert client.post("/generate", json={"n": 1}, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        {},
        *(
            {"authorization": value}
            for value in (
                "Bearer x",
                "s3cret",
                "Bearer",
                "Basic s3cret",
                "Bearers3cret",
                "Bearer s3cret x",
                "Bearer S3CRET",
            )
        ),
    ],
)
def test_a_request_without_the_token_is_a_401(client, header):
    with httpx.Client(base_url=client.base_url) as unauthorized:
        response = unauthorized.post("/generate", json={"n": 1}, headers=header)
        assert error_code(response) == (401, "unauthorized")
        assert response.headers["www-authenticate"] == "Bearer"
        assert error_code(unauthorized.get("/card", headers=header)) == (401, "unauthorized")
        for free in ("/livez", "/readyz", "/metrics", "/", "/docs.json", "/playground"):
            assert unauthorized.get(free).status_code == 200


def test_a_request_with_the_token_is_accepted(client):
    assert client.post("/generate", json={"n": 1}).status_code == 200
    assert client.get("/card").status_code == 200


def test_only_pages_of_allowed_sites_can_read_responses(client):
    headers = {
        "origin": "https://b.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization",
    }
    assert httpx.options(f"{client.base_url}/generate", headers=headers).status_code == 200
    response = client.post("/generate", json={"n": 1}, headers={"origin": "https://b.example"})
    assert response.headers["access-control-allow-origin"] == "https://b.example"
    assert "X-Seed" in response.headers["access-control-expose-headers"]
    unauthorized = httpx.post(f"{client.base_url}/generate", headers={"origin": "https://b.example"})
    assert unauthorized.headers["access-control-allow-origin"] == "https://b.example"
    other = client.post("/generate", json={"n": 1}, headers={"origin": "https://c.example"})
    assert "access-control-allow-origin" not in other.headers


def test_the_maximum_number_of_images_is_a_setting(client):
    assert client.post("/generate", json={"n": 10}).status_code == 200
    response = client.post("/generate", json={"n": 11})
    assert error_of(response)["message"] == "Input should be less than or equal to 10, got 11"


def chunks(size: int) -> Iterator[bytes]:
    for _ in range(size // 100):
        yield b" " * 100


@pytest.mark.parametrize("body", [b" " * 1_001, b"\x93NUMPY" + b" " * 10_000, b" " * 10**7])
def test_a_body_over_its_limit_is_a_413(client, body):
    assert error_code(client.post("/decode", content=body)) == (413, "too_large")


def test_a_body_over_its_limit_without_a_content_length_is_a_413(client):
    assert error_code(client.post("/decode", content=chunks(100_000))) == (413, "too_large")


def test_an_npy_body_may_be_larger_than_a_json_body(client):
    body = npy_body(np.zeros((100, 16), np.float32))
    assert client.post("/decode", content=body, params={"labels": "1"}).status_code == 200


def test_an_incomplete_body_is_a_504_after_the_timeout(client):
    with socket.create_connection((client.base_url.host, client.base_url.port)) as slow:
        slow.sendall(
            b"POST /generate HTTP/1.1\r\nhost: a\r\nauthorization: Bearer s3cret\r\ncontent-length: 9\r\n\r\n{"
        )
        slow.settimeout(20)
        response = b""
        while not response.endswith(b"}}"):
            response += slow.recv(1_000)
    assert response.startswith(b"HTTP/1.1 504 ")
    assert b"The body of the request did not arrive within 2 s" in response


def test_a_request_over_the_timeout_is_a_504_and_its_work_is_cancelled(client):
    started = time.monotonic()
    response = client.post("/dataset", json={"n": 1_200_000})
    assert error_code(response) == (504, "timeout")
    assert time.monotonic() - started < 5
    started = time.monotonic()
    assert client.post("/generate", json={"n": 1}).status_code == 200
    assert time.monotonic() - started < 2


def test_the_work_of_a_client_that_disconnects_is_cancelled(client):
    with pytest.raises(httpx.ReadTimeout):
        client.post("/dataset", json={"n": 1_200_000}, timeout=1)
    time.sleep(0.5)  # for the service to notice the disconnect; the images would take seconds
    assert client.post("/generate", json={"n": 1}).status_code == 200


def test_requests_over_the_limit_are_a_429_with_retry_after(client):
    def request(_: int) -> httpx.Response:
        return client.post("/dataset", json={"n": 100_000})

    with ThreadPoolExecutor(16) as pool:
        responses = list(pool.map(request, range(16)))
    rejected = [response for response in responses if response.status_code == 429]
    assert rejected
    assert {response.status_code for response in responses} <= {200, 429, 504}
    for response in rejected:
        assert error_code(response) == (429, "overloaded")
        assert int(response.headers["retry-after"]) > 0
    assert client.post("/generate", json={"n": 1}).status_code == 200


@pytest.mark.parametrize(
    ("name", "value"), [("THREADS", "0"), ("THREADS", "two"), ("TIMEOUT_SECONDS", "-1"), ("TIMEOUT_SECONDS", "nan")]
)
def test_the_error_for_an_invalid_setting_names_the_variable(monkeypatch, name, value):
    monkeypatch.setenv(f"MNIST_GAN_{name}", value)
    with pytest.raises(SettingError, match=f"MNIST_GAN_{name}: '{value}'"):
        Settings.from_environment()
