"""Who gets in, against a real server with narrow limits."""

import io
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

from serving.http.settings import SettingError, Settings
from tools.service_process import serving

TOKEN = {"authorization": "Bearer s3cret"}
LIMITS = {
    "API_TOKEN": "s3cret",
    "CORS_ORIGINS": "https://a.example, https://b.example",
    "MAX_SHEET_IMAGES": "10",
    "MAX_ARRAY_IMAGES": "500000",
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
    with serving(tmp_path_factory.mktemp("narrow"), MNIST_GAN_MODEL=str(files["conditional"]), **limits) as (client, _):
        client.headers.update(TOKEN)
        yield client


def code_of(answer: httpx.Response) -> tuple[int, str]:
    error = answer.json()["error"]
    assert set(error) == {"code", "message", "field"}
    return answer.status_code, error["code"]


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER   "])
def test_the_scheme_of_the_token_may_be_written_in_any_case_and_with_spaces(client, scheme):
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
def test_without_the_token_nothing_is_made(client, header):
    with httpx.Client(base_url=client.base_url) as stranger:
        answer = stranger.post("/generate", json={"n": 1}, headers=header)
        assert code_of(answer) == (401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"
        assert code_of(stranger.get("/card", headers=header)) == (401, "unauthorized")
        for free in ("/livez", "/readyz", "/metrics"):
            assert stranger.get(free).status_code == 200


def test_with_the_token_images_are_made(client):
    assert client.post("/generate", json={"n": 1}).status_code == 200
    assert client.get("/card").status_code == 200


def test_pages_of_a_site_that_may_can_read_the_seed_and_others_cannot(client):
    wanted = {"origin": "https://b.example", "access-control-request-method": "POST"}
    asked = httpx.options(
        f"{client.base_url}/generate", headers=wanted | {"access-control-request-headers": "authorization"}
    )
    assert asked.status_code == 200
    answer = client.post("/generate", json={"n": 1}, headers={"origin": "https://b.example"})
    assert answer.headers["access-control-allow-origin"] == "https://b.example"
    assert "X-Seed" in answer.headers["access-control-expose-headers"]
    refused = httpx.post(f"{client.base_url}/generate", headers={"origin": "https://b.example"})
    assert refused.headers["access-control-allow-origin"] == "https://b.example"
    other = client.post("/generate", json={"n": 1}, headers={"origin": "https://c.example"})
    assert "access-control-allow-origin" not in other.headers


def test_limits_of_images_are_settings(client):
    assert client.post("/generate", json={"n": 10}).status_code == 200
    answer = client.post("/generate", json={"n": 11})
    assert answer.json()["error"]["message"] == "Input should be less than or equal to 10, got 11"


def chunks(size: int) -> Iterator[bytes]:
    for _ in range(size // 100):
        yield b" " * 100


@pytest.mark.parametrize("body", [b" " * 1_001, b"\x93NUMPY" + b" " * 10_000, b" " * 10**7])
def test_a_body_over_its_limit_is_a_413(client, body):
    assert code_of(client.post("/decode", content=body)) == (413, "too_large")


def test_a_body_that_does_not_say_how_large_it_is_is_a_413_as_well(client):
    assert code_of(client.post("/decode", content=chunks(100_000))) == (413, "too_large")


def test_an_array_may_be_larger_than_json(client):
    body = io.BytesIO()
    np.save(body, np.zeros((100, 16), np.float32))
    assert client.post("/decode", content=body.getvalue(), params={"labels": "1"}).status_code == 200


def test_a_body_that_does_not_come_is_given_up(client):
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


def test_what_takes_too_long_is_a_504_and_stops_costing(client):
    started = time.monotonic()
    answer = client.post("/dataset", json={"n": 500_000})
    assert code_of(answer) == (504, "timeout")
    assert time.monotonic() - started < 5
    started = time.monotonic()
    assert client.post("/generate", json={"n": 1}).status_code == 200
    assert time.monotonic() - started < 2


def test_a_caller_who_leaves_stops_costing(client):
    with pytest.raises(httpx.ReadTimeout):
        client.post("/dataset", json={"n": 500_000}, timeout=1)
    time.sleep(0.5)  # for the news to get there; the images would take seconds
    assert client.post("/generate", json={"n": 1}).status_code == 200


def test_more_at_a_time_than_may_be_are_told_to_come_back(client):
    def ask(_: int) -> httpx.Response:
        return client.post("/dataset", json={"n": 100_000})

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(16)))
    told = [answer for answer in answers if answer.status_code == 429]
    assert told
    assert {answer.status_code for answer in answers} <= {200, 429, 504}
    for answer in told:
        assert code_of(answer) == (429, "overloaded")
        assert int(answer.headers["retry-after"]) > 0
    assert client.post("/generate", json={"n": 1}).status_code == 200


@pytest.mark.parametrize(
    ("name", "value"), [("THREADS", "0"), ("THREADS", "two"), ("TIMEOUT_SECONDS", "-1"), ("TIMEOUT_SECONDS", "nan")]
)
def test_a_setting_that_means_nothing_is_named(monkeypatch, name, value):
    monkeypatch.setenv(f"MNIST_GAN_{name}", value)
    with pytest.raises(SettingError, match=f"MNIST_GAN_{name}: '{value}'"):
        Settings.from_environment()
