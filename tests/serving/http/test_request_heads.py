"""Limits of request heads, and requests that are not valid HTTP."""

import re

import pytest

from tests.serving.http.processes import resident_bytes
from tests.serving.http.raw_http import (
    BODY,
    CARD,
    CHUNKED,
    LIVE,
    POST,
    exchange,
    last_error_code,
    serving_with_low_limits,
    statuses,
)


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with serving_with_low_limits(tmp_path_factory.mktemp("service")) as started:
        yield started


LARGE_HEADS = {
    "a long field": CARD + b"a: " + b"x" * (64 << 10) + b"\r\n\r\n",
    "a long field name": CARD + b"x" * (64 << 10) + b": a\r\n\r\n",
    "many fields": CARD + b"".join(b"x-%d: a\r\n" % number for number in range(100)) + b"\r\n",
    "many short fields": CARD + b"x:\r\n" * 10_000 + b"\r\n",
    "a long path": b"GET /" + b"x" * (64 << 10) + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "a long query": b"GET /card?" + b"x" * (64 << 10) + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "many fields before a body": POST + b"a: b\r\n" * 101 + b"Content-Length: 8\r\n\r\n" + BODY,
}
INVALID_REQUESTS = {
    "null bytes": [b"\0\0\0\0"],
    "no path": [b"GET\r\n\r\n"],
    "a field without a colon": [b"GET / HTTP/1.1\r\nbad header\r\n\r\n"],
    "a path outside ASCII": [b"GET /\xff HTTP/1.1\r\n\r\n"],
    "an invalid chunk": [CHUNKED, b"x\r\n"],
}
REJECTED = [
    *(pytest.param([head], 431, "head_too_large", id=name) for name, head in LARGE_HEADS.items()),
    *(pytest.param(pieces, 400, "invalid_input", id=name) for name, pieces in INVALID_REQUESTS.items()),
]


@pytest.mark.parametrize(("pieces", "status", "code"), REJECTED)
def test_a_rejected_request_gets_a_json_error_and_its_connection_is_closed(service, pieces, status, code):
    client, _ = service
    response = exchange(client, *pieces)
    assert statuses(response) == [status]
    assert last_error_code(response) == code
    assert client.get("/readyz").status_code == 200


def test_rejected_heads_are_counted(service):
    client, _ = service

    def counted() -> float:
        found = re.search(r'mnist_gan_errors_total\{code="head_too_large"\} (\S+)', client.get("/metrics").text)
        return float(found[1]) if found else 0

    before = counted()
    exchange(client, LARGE_HEADS["a long field"])
    assert counted() == before + 1


@pytest.mark.parametrize(
    "fields",
    [b"a: " + b"x" * 65_000, b"".join(b"x-%d: a\r\n" % number for number in range(96)) + b"b: c"],
    ids=["a long field", "many fields"],
)
def test_a_head_within_the_limits_is_accepted(service, fields):
    client, _ = service
    assert statuses(exchange(client, CARD + fields + b"\r\nConnection: close\r\n\r\n")) == [200]


@pytest.mark.parametrize("endless", [b"a: " + b"x" * (1 << 20), b"a: b\r\n" * (1 << 17)], ids=["field", "fields"])
def test_an_endless_head_does_not_use_memory(service, endless):
    client, server = service
    exchange(client, CARD, endless)
    before = resident_bytes(server)
    for _ in range(4):
        assert last_error_code(exchange(client, CARD, *[endless] * 64)) == "head_too_large"
    assert resident_bytes(server) < before + (8 << 20)


CHUNK_OVERHEAD = {
    "a long extension": b"1;" + b"x" * (100 << 10),
    "many trailers": b"8\r\n" + BODY + b"\r\n0\r\n" + b"x: a\r\n" * 102,
    "a long trailer": b"8\r\n" + BODY + b"\r\n0\r\nx: " + b"a" * (100 << 10),
}


@pytest.mark.parametrize("overhead", CHUNK_OVERHEAD.values(), ids=CHUNK_OVERHEAD.keys())
def test_extensions_and_trailers_of_a_chunked_body_are_limited(service, overhead):
    client, server = service
    before = resident_bytes(server)
    for repeats in (0, 32):
        response = exchange(client, CHUNKED, overhead, *[b"x" * (1 << 20)] * repeats)
        assert last_error_code(response) == "head_too_large"
    assert resident_bytes(server) < before + (8 << 20)


def test_a_body_of_small_chunks_with_extensions_and_trailers_is_accepted(service):
    client, _ = service
    body = BODY.ljust(20_000)
    chunks = b"".join(b"1;a=b\r\n%c\r\n" % byte for byte in body) + b"0\r\nx: a\r\n\r\n"
    assert statuses(exchange(client, CHUNKED + chunks + CARD + b"Connection: close\r\n\r\n")) == [200, 200]


def test_requests_before_an_invalid_one_get_their_responses(service):
    client, _ = service
    request = POST + b"Content-Length: 8\r\n\r\n" + BODY
    response = exchange(client, request * 2 + b"\0")
    assert statuses(response) == [200, 200, 400]
    assert last_error_code(response) == "invalid_input"


def test_the_number_of_pipelined_requests_is_limited(service):
    client, server = service
    before = resident_bytes(server)
    request = POST + b"Content-Length: 8\r\n\r\n" + BODY
    response = exchange(client, request + LIVE * 100_000)
    assert statuses(response) == [200] * 101 + [429]
    assert last_error_code(response) == "overloaded"
    assert resident_bytes(server) < before + (8 << 20)


def test_an_upgrade_is_ignored(service):
    client, _ = service
    upgrade = CARD + b"Connection: Upgrade, close\r\nUpgrade: %b\r\nSec-WebSocket-Key: eA==\r\n\r\n"
    for protocol in (b"h2c", b"websocket"):
        assert statuses(exchange(client, upgrade % protocol)) == [200]
