"""HTTP: queries, compression, media types, paths, headers, and the limits of responses."""

import gzip
import json
import socket
import time
import zlib
from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from tests.serving.http.messages import error_code, error_field, error_of, npy_body
from tools.service_process import serving

EXAMPLES = {
    "/generate": {"n": 1},
    "/dataset": {"n": 1},
    "/write": {"text": "1"},
    "/interpolate": {"from": {"seed": 1}, "to": {"seed": 2}, "frames": 2},
    "/decode": {"latents": [[0.0] * 16], "labels": "1"},
    "/card": {},
}
BODY = json.dumps({"n": 4, "seed": 9}).encode()
ORIGIN = "https://pages.example"


@pytest.fixture(scope="module")
def client(files, tmp_path_factory) -> Iterator[httpx.Client]:
    settings = {"MNIST_GAN_MODEL": str(files["conditional"]), "MNIST_GAN_CORS_ORIGINS": ORIGIN}
    with serving(tmp_path_factory.mktemp("http"), **settings) as (client, _):
        yield client


@pytest.mark.parametrize("route", EXAMPLES)
def test_a_field_in_the_query_of_a_json_route_is_a_400_that_names_it(client, route):
    response = client.post(route, json=EXAMPLES[route], params={"seed": "9"})
    assert error_field(response) == (400, "seed")
    assert "JSON body" in error_of(response)["message"]
    assert client.post(route, json=EXAMPLES[route]).status_code == 200


def test_the_query_may_have_labels_only_once(client):
    response = client.post("/decode?labels=1&labels=2", content=npy_body(np.zeros((1, 16), np.float32)))
    assert error_field(response) == (400, "labels")


def deflate_without_header(body: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(body) + compressor.flush()


COMPRESSED = {
    "gzip": ("gzip", gzip.compress(BODY)),
    "two gzip members": ("gzip", gzip.compress(BODY[:5]) + gzip.compress(BODY[5:])),
    "x-gzip": ("X-GZIP", gzip.compress(BODY)),
    "deflate": ("deflate", zlib.compress(BODY)),
    "deflate without zlib's header": ("deflate", deflate_without_header(BODY)),
    "identity": ("identity", BODY),
}


@pytest.mark.parametrize(("encoding", "body"), COMPRESSED.values(), ids=COMPRESSED)
@pytest.mark.parametrize("piece", [1_000, 3])
def test_a_compressed_body_is_read_in_pieces_of_any_size(client, encoding, body, piece):
    def pieces() -> Iterator[bytes]:
        for start in range(0, len(body), piece):
            yield body[start : start + piece]

    response = client.post("/generate", content=pieces(), headers={"content-encoding": encoding})
    assert response.status_code == 200, response.text
    assert response.content == client.post("/generate", content=BODY).content


def test_a_large_compressed_array_is_read(client):
    latents = np.random.default_rng(0).standard_normal((10_000, 16)).astype(np.float32)
    plain = client.post("/decode", content=npy_body(latents), params={"labels": "1"})
    headers = {"content-encoding": "gzip"}
    body = gzip.compress(npy_body(latents), 1)
    compressed = client.post("/decode", content=body, params={"labels": "1"}, headers=headers)
    assert plain.status_code == 200
    assert compressed.content == plain.content


@pytest.mark.parametrize("start", [b" ", b"\x93NUMPY"], ids=["json", "npy"])
@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress], ids=["gzip", "deflate"])
def test_decompression_stops_at_the_limit_of_the_body(client, start, compress):
    bomb = compress(start + bytes(200 << 20), 9)
    assert len(bomb) < 1 << 20
    encoding = "gzip" if compress is gzip.compress else "deflate"
    response = client.post("/decode", content=bomb, headers={"content-encoding": encoding})
    assert error_code(response) == (413, "too_large")


NOT_GZIP = {
    "without its end": gzip.compress(BODY)[:-9],
    "part of its header": gzip.compress(BODY)[:4],
    "not compressed": BODY,
    "damaged": b"\x1f\x8b" + bytes(50),
}


@pytest.mark.parametrize("body", NOT_GZIP.values(), ids=NOT_GZIP)
def test_a_body_that_is_not_compressed_as_its_header_says_is_a_400(client, body):
    response = client.post("/generate", content=body, headers={"content-encoding": "gzip"})
    assert error_code(response) == (400, "invalid_input")
    assert "compressed" in error_of(response)["message"]


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "compress"])
def test_an_unsupported_content_encoding_is_a_415_that_names_the_header(client, encoding):
    response = client.post("/generate", content=BODY, headers={"content-encoding": encoding})
    assert error_code(response) == (415, "unsupported_media_type")
    assert "Content-Encoding" in error_of(response)["message"]


def test_a_byte_order_mark_is_accepted(client):
    marked = client.post("/generate", content=b"\xef\xbb\xbf" + BODY)
    assert marked.content == client.post("/generate", content=BODY).content


@pytest.mark.parametrize("form", [{"data": {"n": "4"}}, {"files": {"n": b"4"}}])
def test_a_form_is_a_415_that_asks_for_json(client, form):
    response = client.post("/generate", **form)
    assert error_code(response) == (415, "unsupported_media_type")
    assert "send a JSON object" in error_of(response)["message"]


def test_json_with_the_content_type_of_a_form_is_read(client):
    headers = {"content-type": "application/x-www-form-urlencoded"}
    assert client.post("/generate", content=BODY, headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/generate/", "/livez/", "/card/", "/playground/", "/generate//", "/docs.json/"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_path_with_a_trailing_slash_is_a_404_and_no_redirect(client, method, path):
    response = client.request(method, path, headers={"x-forwarded-prefix": "/mnist"})
    assert error_code(response) == (404, "not_found")
    assert "location" not in response.headers


def test_a_404_suggests_the_path_without_the_slash(client):
    for path in ("/generate", "/write"):
        assert f"did you mean {path}?" in error_of(client.post(f"{path}/"))["message"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/generate", "POST"),
        ("DELETE", "/card", "GET, POST"),
        ("POST", "/playground", "GET"),
        ("PUT", "/", "GET"),
    ],
)
def test_a_405_names_the_methods_that_are_allowed(client, method, path, allowed):
    response = client.request(method, path)
    assert error_code(response) == (405, "method_not_allowed")
    assert response.headers["allow"] == allowed


@pytest.mark.parametrize("path", ["/", "/docs.json", "/card", "/playground", "/playground/script.js"])
def test_head_of_a_page_has_the_headers_of_get_and_no_body(client, path):
    head, get = client.head(path), client.get(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == get.headers["content-type"]


@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        ("/static_content/swagger-ui.css", {"range": "bytes=99999999-"}, 416, "range_not_satisfiable"),
        ("/static_content/nothing.css", {}, 404, "not_found"),
        ("/static_content/../serving/service.py", {}, 404, "not_found"),
    ],
)
def test_errors_of_bentoml_have_the_same_json_format(client, path, headers, status, code):
    response = client.get(path, headers=headers)
    assert error_code(response) == (status, code)


def test_a_page_of_an_allowed_site_can_read_the_headers_that_clients_need(client):
    exposed = client.post("/generate", headers={"origin": ORIGIN}).headers["access-control-expose-headers"]
    for name in ("X-Seed", "X-Model", "X-Request-Id", "Retry-After", "Content-Disposition"):
        assert name in exposed


def test_a_preflight_request_of_an_unknown_site_is_an_error_in_the_same_json_format(client):
    headers = {"origin": "https://other.example", "access-control-request-method": "POST"}
    response = client.options("/generate", headers=headers)
    assert error_code(response) == (400, "invalid_input")
    assert "origin" in error_of(response)["message"]


def test_the_error_for_labels_in_the_query_without_an_array_mentions_the_body(client):
    for body in (b"", b"PK\x03\x04", b"\x89PNG"):
        response = client.post("/decode", content=body, params={"labels": "3"})
        assert error_field(response) == (400, "labels")
        assert ".npy body" in error_of(response)["message"]


@pytest.mark.parametrize(
    ("body", "fields"),
    [({"sede": 1}, "labels, seed, first"), (EXAMPLES["/interpolate"] | {"x": 1}, "from, to, frames")],
)
def test_the_error_for_an_unknown_field_lists_the_known_fields(client, body, fields):
    route = "/generate" if "sede" in body else "/interpolate"
    message = error_of(client.post(route, json=body))["message"]
    assert message.startswith("Unknown field; the fields are ")
    assert all(name in message for name in fields.split(", "))


@pytest.fixture(scope="module")
def limited_client(files, tmp_path_factory) -> Iterator[httpx.Client]:
    """A client of a server with small limits for responses."""
    settings = {
        "MAX_ARRAY_IMAGES": "20000",
        "MAX_RESPONSE_BYTES": "7850000",
        "MAX_TOTAL_RESPONSE_BYTES": "9000000",
        "RESPONSE_TIMEOUT_SECONDS": "8",
    }
    environment = {f"MNIST_GAN_{name}": value for name, value in settings.items()}
    with serving(tmp_path_factory.mktemp("small"), MNIST_GAN_MODEL=str(files["conditional"]), **environment) as (
        client,
        _,
    ):
        yield client


@pytest.mark.parametrize(
    ("route", "body", "size"),
    [
        ("/generate", {"n": 1_024, "scale": 4}, 1_024 * 784 * 16),
        ("/generate", {"n": 65, "columns": 64, "scale": 9}, 128 * 784 * 81),
        ("/dataset", {"n": 10_013}, 10_013 * 784),
        ("/write", {"text": "1" * 64, "scale": 16}, 64 * 784 * 256),
        ("/interpolate", EXAMPLES["/interpolate"] | {"frames": 200, "scale": 8}, 200 * 784 * 64),
        (
            "/interpolate",
            EXAMPLES["/interpolate"] | {"frames": 200, "scale": 6, "format": "gif"},
            398 * 784 * 36,
        ),
        ("/decode", {"latents": [[0.0] * 16] * 1_000, "labels": "1", "scale": 4}, 1_024 * 784 * 16),
    ],
)
def test_the_error_for_a_too_large_response_has_its_size_and_the_limit(limited_client, route, body, size):
    message = error_of(limited_client.post(route, json=body))["message"]
    assert f"would have {size:,} bytes of pixels; the limit is 7,850,000." in message


def connect_slow_reader(client: httpx.Client) -> socket.socket:
    """Opens a connection that requests 7.8 MB, more than the kernel buffers, and does not read the response."""
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    slow.connect((client.base_url.host, client.base_url.port))
    body = json.dumps({"n": 10_000}).encode()
    slow.sendall(f"POST /dataset HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    return slow


@pytest.mark.slow
def test_responses_that_are_too_large_together_are_rejected_until_one_of_them_ends(limited_client):
    deadline = time.monotonic() + 60
    with connect_slow_reader(limited_client) as slow:
        assert slow.recv(12) == b"HTTP/1.1 200"  # its response now counts in the total
        response = limited_client.post("/dataset", json={"n": 1_500})
        assert error_code(response) == (429, "overloaded")
        assert "the limit is 9,000,000" in error_of(response)["message"]
        # The slow reader is disconnected after RESPONSE_TIMEOUT_SECONDS, although it reads a little all the time.
        while limited_client.post("/dataset", json={"n": 10_000}).status_code != 200:
            slow.recv(1_000)
            assert time.monotonic() < deadline
            time.sleep(0.01)
