"""HTTP itself: queries, encodings, media types, paths, headers and limits of responses, against a real server."""

import gzip
import io
import json
import socket
import time
import zlib
from collections.abc import Iterator

import bentoml
import httpx
import numpy as np
import pytest

from models.common.image_files import grid, png
from models.onnx_file.generator import Generator
from tests.serving.http.server import serving

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


def error_of(response: httpx.Response) -> dict:
    error = response.json()["error"]
    assert set(error) == {"code", "message", "field"}
    return error


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@pytest.mark.parametrize("route", EXAMPLES)
def test_a_field_in_the_query_of_a_json_route_is_refused_by_name(client, route):
    response = client.post(route, json=EXAMPLES[route], params={"seed": "9"})
    assert (response.status_code, error_of(response)["field"]) == (400, "seed")
    assert "JSON body" in error_of(response)["message"]
    assert client.post(route, json=EXAMPLES[route]).status_code == 200


def test_labels_of_an_array_may_not_be_given_twice(client):
    response = client.post("/decode?labels=1&labels=2", content=npy(np.zeros((1, 16), np.float32)))
    assert (response.status_code, error_of(response)["field"]) == (400, "labels")


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
def test_a_compressed_body_is_read_however_it_is_split(client, encoding, body, piece):
    def pieces() -> Iterator[bytes]:
        for start in range(0, len(body), piece):
            yield body[start : start + piece]

    response = client.post("/generate", content=pieces(), headers={"content-encoding": encoding})
    assert response.status_code == 200, response.text
    assert response.content == client.post("/generate", content=BODY).content


def test_a_compressed_array_of_many_megabytes_is_read(client):
    latents = np.random.default_rng(0).standard_normal((10_000, 16)).astype(np.float32)
    headers = {"content-encoding": "gzip"}
    zipped = gzip.compress(npy(latents), 1)
    plain, packed = (
        client.post("/decode", content=body, params={"labels": "1"}, headers=how)
        for body, how in ((npy(latents), {}), (zipped, headers))
    )
    assert plain.status_code == 200
    assert plain.content == packed.content


@pytest.mark.parametrize("start", [b" ", b"\x93NUMPY"], ids=["json", "npy"])
@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress], ids=["gzip", "deflate"])
def test_a_compression_bomb_is_cut_off_at_the_limit_of_the_body(client, start, compress):
    bomb = compress(start + bytes(200 << 20), 9)
    assert len(bomb) < 1 << 20
    encoding = "gzip" if compress is gzip.compress else "deflate"
    response = client.post("/decode", content=bomb, headers={"content-encoding": encoding})
    assert (response.status_code, error_of(response)["code"]) == (413, "too_large")


WRONG = {
    "without its end": gzip.compress(BODY)[:-9],
    "a part of its head": gzip.compress(BODY)[:4],
    "not compressed": BODY,
    "damaged": b"\x1f\x8b" + bytes(50),
}


@pytest.mark.parametrize("body", WRONG.values(), ids=WRONG)
def test_a_body_that_is_not_compressed_as_its_header_says_is_a_400(client, body):
    response = client.post("/generate", content=body, headers={"content-encoding": "gzip"})
    assert (response.status_code, error_of(response)["code"]) == (400, "invalid_input")
    assert "compressed" in error_of(response)["message"]


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "compress"])
def test_another_content_encoding_is_a_415_that_names_the_header(client, encoding):
    response = client.post("/generate", content=BODY, headers={"content-encoding": encoding})
    assert (response.status_code, error_of(response)["code"]) == (415, "unsupported_media_type")
    assert "Content-Encoding" in error_of(response)["message"]


def test_a_byte_order_mark_is_accepted(client):
    marked = client.post("/generate", content=b"\xef\xbb\xbf" + BODY)
    assert marked.content == client.post("/generate", content=BODY).content


@pytest.mark.parametrize("form", [{"data": {"n": "4"}}, {"files": {"n": b"4"}}])
def test_a_form_is_a_415_that_asks_for_json(client, form):
    response = client.post("/generate", **form)
    assert (response.status_code, error_of(response)["code"]) == (415, "unsupported_media_type")
    assert "send a JSON object" in error_of(response)["message"]


def test_json_that_curl_sends_as_a_form_is_read(client):
    headers = {"content-type": "application/x-www-form-urlencoded"}
    assert client.post("/generate", content=BODY, headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/generate/", "/livez/", "/card/", "/playground/", "/generate//", "/docs.json/"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_path_with_a_trailing_slash_is_a_404_and_no_redirect(client, method, path):
    response = client.request(method, path, headers={"x-forwarded-prefix": "/mnist"})
    assert (response.status_code, error_of(response)["code"]) == (404, "not_found")
    assert "location" not in response.headers


def test_a_404_suggests_the_path_without_the_slash(client):
    assert "did you mean /generate?" in error_of(client.post("/generate/"))["message"]


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
    assert (response.status_code, error_of(response)["code"]) == (405, "method_not_allowed")
    assert response.headers["allow"] == allowed


@pytest.mark.parametrize("path", ["/", "/docs.json", "/card", "/playground", "/playground/script.js"])
def test_head_of_a_page_has_the_headers_of_get_and_no_body(client, path):
    head, get = client.head(path), client.get(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == get.headers["content-type"]


@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        ("/static_content/swagger-ui.css", {"range": "bytes=99999999-"}, 416, "requested_range_not_satisfiable"),
        ("/static_content/nothing.css", {}, 404, "not_found"),
        ("/static_content/../serving/service.py", {}, 404, "not_found"),
    ],
)
def test_errors_of_bentomls_own_files_have_the_projects_format(client, path, headers, status, code):
    response = client.get(path, headers=headers)
    assert (response.status_code, error_of(response)["code"]) == (status, code)


def test_a_page_of_another_site_can_read_the_headers_that_clients_need(client):
    exposed = client.post("/generate", headers={"origin": ORIGIN}).headers["access-control-expose-headers"]
    for name in ("X-Seed", "X-Model", "X-Request-Id", "Retry-After", "Content-Disposition"):
        assert name in exposed


def test_a_preflight_request_of_another_site_is_refused_in_the_format_of_all_errors(client):
    headers = {"origin": "https://other.example", "access-control-request-method": "POST"}
    response = client.options("/generate", headers=headers)
    assert (response.status_code, error_of(response)["code"]) == (400, "invalid_input")
    assert "origin" in error_of(response)["message"]


def test_labels_in_the_query_without_an_array_are_an_error_about_the_body(client):
    for body in (b"", b"PK\x03\x04", b"\x89PNG"):
        response = client.post("/decode", content=body, params={"labels": "3"})
        assert (response.status_code, error_of(response)["field"]) == (400, "labels")
        assert ".npy body" in error_of(response)["message"]


@pytest.mark.parametrize(
    ("body", "fields"),
    [({"sede": 1}, "labels, seed, first"), (EXAMPLES["/interpolate"] | {"x": 1}, "from, to, frames")],
)
def test_an_unknown_field_is_answered_with_the_fields_that_there_are(client, body, fields):
    route = "/generate" if "sede" in body else "/interpolate"
    message = error_of(client.post(route, json=body))["message"]
    assert message.startswith("Unknown field; the fields are ")
    assert all(name in message for name in fields.split(", "))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_bentoml_client_sends_an_array_of_latents(client, files, dtype):
    latents = np.random.default_rng(0).standard_normal((3, 16)).astype(dtype)
    with bentoml.SyncHTTPClient(str(client.base_url)) as typed:
        response = typed.decode(latents=latents, labels="123")
    expected = Generator.open(files["conditional"]).decode(latents.astype(np.float32), np.array([1, 2, 3]))
    assert response == png(grid(expected, scale=2))


@pytest.fixture(scope="module")
def narrow(files, tmp_path_factory) -> Iterator[httpx.Client]:
    """A server with small limits for responses."""
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
def test_a_response_over_its_limit_is_refused_with_both_sizes(narrow, route, body, size):
    message = error_of(narrow.post(route, json=body))["message"]
    assert f"would hold {size:,} bytes of pixels, at most 7,850,000 are allowed" in message


def slow_client(client: httpx.Client) -> socket.socket:
    """Requests 7.8 MB, more than the kernel buffers, and does not read the response."""
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    slow.connect((client.base_url.host, client.base_url.port))
    body = json.dumps({"n": 10_000}).encode()
    slow.sendall(f"POST /dataset HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    return slow


def test_responses_that_are_too_large_together_are_refused_and_their_bytes_are_given_back(narrow):
    deadline = time.monotonic() + 60
    with slow_client(narrow) as slow:
        assert slow.recv(12) == b"HTTP/1.1 200"  # from here on, its response counts
        response = narrow.post("/dataset", json={"n": 1_500})
        assert (response.status_code, error_of(response)["code"]) == (429, "overloaded")
        assert "the limit is 9,000,000" in error_of(response)["message"]
        # The client reads a little all the time, and is disconnected after RESPONSE_TIMEOUT_SECONDS all the same.
        while narrow.post("/dataset", json={"n": 10_000}).status_code != 200:
            slow.recv(1_000)
            assert time.monotonic() < deadline
            time.sleep(0.01)
