"""Invalid input: each error is a 400 that names the field."""

import httpx
import numpy as np
import pytest

from tests.serving.http.messages import error_code, error_field, error_of, npy_body

INVALID_FIELDS = [
    ("/generate", {"n": 0}, "n"),
    ("/generate", {"n": 1_025}, "n"),
    ("/generate", {"n": 1.5}, "n"),
    ("/generate", {"n": 2.0}, "n"),
    ("/generate", {"n": "2"}, "n"),
    ("/generate", {"n": None}, "n"),
    ("/generate", {"n": True}, "n"),
    ("/generate", {"n": [1]}, "n"),
    ("/generate", {"seed": -1}, "seed"),
    ("/generate", {"seed": 2**53}, "seed"),
    ("/generate", {"seed": None}, "seed"),
    ("/generate", {"first": 2**53}, "first"),
    ("/generate", {"first": 2**53 - 5, "n": 6}, "first"),
    ("/generate", {"truncation": 0}, "truncation"),
    ("/generate", {"truncation": 1.01}, "truncation"),
    ("/generate", {"truncation": "1"}, "truncation"),
    ("/generate", {"columns": 0}, "columns"),
    ("/generate", {"columns": 65}, "columns"),
    ("/generate", {"scale": 17}, "scale"),
    ("/generate", {"labels": ""}, "labels"),
    ("/generate", {"labels": []}, "labels"),
    ("/generate", {"labels": "x"}, "labels"),
    ("/generate", {"labels": [10]}, "labels"),
    ("/generate", {"labels": [-1]}, "labels"),
    ("/generate", {"labels": [1.0]}, "labels"),
    ("/generate", {"labels": [True]}, "labels"),
    ("/generate", {"labels": None}, "labels"),
    ("/generate", {"colums": 3}, "colums"),
    ("/dataset", {"n": 10_001}, "n"),
    ("/dataset", {"scale": 2}, "scale"),
    ("/decode", {"labels": "1"}, "latents"),
    ("/decode", {"latents": [], "labels": "1"}, "latents"),
    ("/decode", {"latents": [[]], "labels": "1"}, "latents"),
    ("/decode", {"latents": [[0] * 15], "labels": "1"}, "latents"),
    ("/decode", {"latents": [[0] * 16, [0] * 15], "labels": "1"}, "latents"),
    ("/decode", {"latents": [[1e300] * 16], "labels": "1"}, "latents"),
    ("/decode", {"latents": [["0"] * 16], "labels": "1"}, "latents.0.0"),
    ("/decode", {"latents": [[0] * 16]}, "labels"),
    ("/card", {"n": 1}, "n"),
    ("/write", {}, "text"),
    ("/write", {"text": ""}, "text"),
    ("/write", {"text": "1" * 65}, "text"),
    ("/write", {"text": "1,2"}, "text"),
    ("/write", {"text": "1x"}, "text"),
    ("/write", {"text": 12}, "text"),
    ("/interpolate", {"to": {"seed": 1}}, "from"),
    ("/interpolate", {"from": {"seed": 1}, "to": {}}, "to.seed"),
    ("/interpolate", {"from": {"seed": 1, "indx": 1}, "to": {"seed": 1}}, "from.indx"),
    ("/interpolate", {"from": {"seed": 1, "label": "x"}, "to": {"seed": 1}}, "from.label"),
    ("/interpolate", {"from": {"seed": 1}, "to": {"seed": 1, "label": None}}, "to.label"),
    ("/interpolate", {"from": {"seed": 1}, "to": {"seed": 1}, "frames": 1}, "frames"),
    ("/interpolate", {"from": {"seed": 1}, "to": {"seed": 1}, "frames": 241}, "frames"),
    ("/interpolate", {"from": {"seed": 1}, "to": {"seed": 1}, "format": "bmp"}, "format"),
]


@pytest.fixture
def client(conditional_client) -> httpx.Client:
    return conditional_client


@pytest.mark.parametrize(("route", "body", "field"), INVALID_FIELDS)
def test_an_invalid_field_is_a_400_that_names_it(client, route, body, field):
    response = client.post(route, json=body)
    assert error_code(response) == (400, "invalid_input")
    assert error_field(response) == (400, field)


def test_an_error_shortens_a_long_field_name(client):
    response = client.post("/generate", json={"x" * 100_000: 1})
    assert error_field(response) == (400, "x" * 100)
    assert len(response.content) < 1_000


def test_an_error_message_contains_the_value(client):
    message = error_of(client.post("/generate", json={"n": 5_000}))["message"]
    assert message == "Input should be less than or equal to 1024, got 5000"


def test_an_error_message_shortens_a_long_value(client):
    assert len(client.post("/generate", json={"n": "9" * 100_000}).content) < 500


@pytest.mark.parametrize(
    "body", [b"nonsense", b"[]", b"1", b"null", b'"n"', b'{"n": 1', b'{"n": 1}{}', b"\xff\xfe", b"\x00" * 9]
)
@pytest.mark.parametrize("media_type", ["application/json", "text/plain", "image/png", None])
def test_a_body_that_is_not_a_json_object_is_a_400(client, body, media_type):
    headers = {"content-type": media_type} if media_type else {}
    assert error_code(client.post("/generate", content=body, headers=headers)) == (400, "invalid_input")


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999"])
@pytest.mark.parametrize(
    ("route", "body", "field"),
    [
        ("/generate", b'{"truncation": %b}', "truncation"),
        ("/decode", b'{"labels": "1", "latents": [[%b,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]]}', "latents.0.0"),
    ],
)
def test_a_number_that_is_not_finite_is_a_400(client, route, body, field, number):
    assert error_field(client.post(route, content=body % number)) == (400, field)


def npy_with_shape(shape: str, numbers: bytes) -> bytes:
    """Returns an .npy file whose header contains `shape`, whatever its numbers are."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + numbers


VALID_NPY = npy_body(np.zeros((2, 16), np.float32))


@pytest.mark.parametrize(
    ("body", "query", "field"),
    [
        (VALID_NPY[:-1], {"labels": "1"}, "latents"),
        (VALID_NPY + b"!", {"labels": "1"}, "latents"),
        (VALID_NPY[:40], {"labels": "1"}, "latents"),
        (VALID_NPY.replace(b"(2, 16)", b"(9, 16)"), {"labels": "1"}, "latents"),
        (VALID_NPY.replace(b"(2, 16), } ", b"(9999999999, 16), } ")[:128], {"labels": "1"}, "latents"),
        (npy_body(np.zeros((2, 15))), {"labels": "1"}, "latents"),
        (npy_body(np.zeros(16)), {"labels": "1"}, "latents"),
        (npy_body(np.zeros((0, 16))), {"labels": "1"}, "latents"),
        (npy_body(np.zeros((2, 16), int)), {"labels": "1"}, "latents"),
        (npy_body(np.full((2, 16), np.nan)), {"labels": "1"}, "latents"),
        (npy_body(np.zeros((10_001, 16))), {"labels": "1"}, "latents"),
        (npy_body(np.array([["pickle"]], object)), {"labels": "1"}, "latents"),
        (npy_body(np.float32(1)), {"labels": "1"}, "latents"),
        (npy_with_shape("(-1, 16)", bytes(4 * 16 * 12_000)), {"labels": "1"}, "latents"),
        (npy_with_shape("(10**9, 16)", b""), {"labels": "1"}, "latents"),
        (npy_with_shape("(2, 16)", bytes(4 * 33)), {"labels": "1"}, "latents"),
        (VALID_NPY[:10] + b"{'descr':'<f4'".ljust(118), {"labels": "1"}, "latents"),
        (VALID_NPY[:10] + b"{[]:1}".ljust(118), {"labels": "1"}, "latents"),
        (VALID_NPY, {}, "labels"),
        (VALID_NPY, {"labels": "x"}, "labels"),
        (VALID_NPY, {"labels": "1", "scale": "2"}, "scale"),
    ],
)
def test_an_invalid_npy_body_is_a_400(client, body, query, field):
    response = client.post("/decode", content=body, params=query)
    assert error_field(response) == (400, field)
    assert " object at 0x" not in response.text


def test_a_generator_without_classes_rejects_labels(unconditional_client):
    assert error_field(unconditional_client.post("/write", json={"text": "1"})) == (400, "text")
    for route, body in (("/generate", {"n": 1}), ("/decode", {"latents": [[0] * 16]})):
        response = unconditional_client.post(route, json=body | {"labels": "3"})
        assert error_field(response) == (400, "labels")
        assert "without classes" in error_of(response)["message"]


@pytest.mark.parametrize(
    ("method", "route", "status", "code"),
    [("GET", "/nothing", 404, "not_found"), ("GET", "/generate", 405, "method_not_allowed")],
)
def test_an_unknown_route_has_the_same_error_format(client, method, route, status, code):
    assert error_code(client.request(method, route)) == (status, code)


def test_the_service_stays_ready_after_invalid_requests(client):
    for route, body, _ in INVALID_FIELDS:
        client.post(route, json=body)
    assert client.get("/readyz").status_code == 200
