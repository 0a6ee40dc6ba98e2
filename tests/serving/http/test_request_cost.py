"""The time and memory to read a request are bounded, even if the request is invalid."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.onnx_file.card import MAX_SIZE
from models.onnx_file.store import SHIPPED
from serving.http.body_parsing import MAX_COUNT, NPY_MAGIC
from serving.http.settings import SETTINGS
from tests.serving.http.messages import error_field, npy_body
from tools.expensive_bodies import SHAPES, latents, read
from tools.service_process import ROOT, serving

SECONDS = 0.5
"""Limit of the processor time to read one request: ten times what is intended, for slow test machines."""
MEBIBYTES = 64
"""Limit of the memory to read one request, in addition to its body."""
CHARACTERS = 500
"""Maximum length of an error message; the invalid body has up to 4 MiB."""


def test_no_body_takes_much_time_or_memory_to_read():
    command = [sys.executable, "-m", "tools.expensive_bodies"]
    # glibc returns freed memory to the system. Otherwise the process could reuse it, and its size would not grow.
    malloc = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(command, cwd=ROOT, env=os.environ | malloc, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    costs = json.loads(done.stdout)
    assert len(costs) > len(SHAPES)
    for name, cost in costs.items():
        assert cost["seconds"] < SECONDS, name
        assert cost["mebibytes"] < MEBIBYTES, name
        assert len(cost["message"]) < CHARACTERS, name


def repeated(value: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Generates JSON lists and objects that repeat a value."""
    return st.builds(
        lambda item, count, form: form % ",".join([item] * min(count, 1_000_000 // (len(item) + 1))),
        value,
        st.sampled_from([0, 1, 16, 17, 1_000, 100_000]),
        st.sampled_from(["[%s]", '{"a":%s}', '{"seed":1,"labels":[%s]}']),
    )


SCALARS = [
    "0",
    "-1",
    "1.5",
    "1e999",
    "NaN",
    "null",
    "true",
    '""',
    '"x"',
    '"\\ud800"',
    '"\\n"',
    "9" * 500,
    "x",
    '"',
    "{}",
]
VALUES = st.recursive(st.sampled_from(SCALARS), repeated, max_leaves=4)
FIELDS = ["latents", "labels", "n", "text", "from", "to", "seed", "unknown", "\\ud800", "é", ""]


@given(
    st.sampled_from(["/generate", "/dataset", "/write", "/interpolate", "/decode", "/card"]),
    st.lists(st.tuples(st.sampled_from(FIELDS), VALUES), max_size=3),
)
@settings(deadline=None, max_examples=100)
def test_combinations_of_values_are_accepted_or_rejected_quickly_with_a_short_message(route, fields):
    body = "{" + ",".join(f'"{name}":{value}' for name, value in fields) + "}"
    started = time.process_time()
    message = read(route, body.encode())
    assert time.process_time() - started < SECONDS
    assert len(message.encode()) < CHARACTERS


VALID = {
    "a full grid of latents": ("/decode", f'{{"latents":[{latents(1_024, 64, 62)}]}}'),
    "rows of 256 latents": ("/decode", f'{{"latents":[{latents(1_023, 256, 15)}]}}'),
    "the longest row": ("/decode", json.dumps({"latents": [[0.5] * MAX_SIZE]})),
    "integers as latents": ("/decode", json.dumps({"latents": [[0, 1, -(10**300)]]})),
    "the longest string of labels": ("/generate", json.dumps({"labels": "," * SETTINGS.max_array_images})),
    "the maximum number of labels": ("/dataset", json.dumps({"labels": ["a, [b] {c}"] * SETTINGS.max_array_images})),
    "escaped names": ("/dataset", json.dumps({"labels": ["数字的名字"] * SETTINGS.max_array_images})),
    "a long name": ("/generate", json.dumps({"labels": ["x" * 255]})),
    "all fields": (
        "/generate",
        json.dumps({"n": 3, "seed": 2**53 - 1, "first": 0, "truncation": 1, "columns": 3, "scale": 2, "labels": [1]}),
    ),
    "objects": ("/interpolate", json.dumps({"from": {"seed": 1, "index": 2, "label": 3}, "to": {"seed": 1}})),
}


@pytest.mark.parametrize("name", VALID)
def test_the_largest_valid_bodies_are_read(name):
    route, body = VALID[name]
    assert len(body) < SETTINGS.max_json_bytes
    assert read(route, body.encode()) == ""


@pytest.mark.parametrize(
    ("route", "body", "message"),
    [
        ("/generate", "[" * 500, "Invalid JSON"),
        ("/generate", "[" * 50_000, "A JSON body may contain the character '[' at most 40,000 times"),
        ("/decode", '{"latents": [[' + "0," * 300_000 + "0]]}", "send more latents as an .npy body to /decode"),
        ("/decode", '{"latents": [[1' + "0" * 5_000 + "]]}", "number out of range"),
        ("/generate", json.dumps({str(i): i for i in range(100)}), "An object may have at most 16 fields, got 100"),
        (
            "/interpolate",
            json.dumps({"from": {str(i): i for i in range(100)}}),
            "An object may have at most 16 fields, got 100",
        ),
        ("/generate", '{"\\ud800": 1}', ""),
        ("/generate", json.dumps({"n": "9" * 1_000_000}), ""),
        ("/generate", json.dumps({"n": ["9"] * 1_000}), "got a list of 1,000 items"),
        ("/generate", json.dumps({"n": {"a": 1}}), "got an object of 1 field"),
        ("/generate", "[1]", "Input should be an object, got [1]"),
        ("/interpolate", '{"from": 3, "to": {"seed": 1}}', "from: Input should be an object, got 3"),
    ],
)
def test_an_error_message_does_not_contain_the_whole_value(client, route, body, message):
    response = client.post(route, content=body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert message in f"{error['field']}: {error['message']}"
    assert len(response.content) < CHARACTERS


def npy_with_header(header: str) -> bytes:
    return NPY_MAGIC + b"\x01\x00" + len(header).to_bytes(2, "little") + header.encode()


def npy_with_shape(shape: str, descr: str = "'<f4'") -> bytes:
    return npy_with_header(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}")


@pytest.mark.parametrize(
    "body",
    [
        npy_with_shape(f"(0x{'f' * 5_000}, 16)"),
        npy_with_shape(f"(2, 0x{'f' * 5_000})"),
        npy_with_shape(f"(2, 0x{'f' * 800})"),
        npy_with_shape(f"({'9' * 4_200}, 16)"),
        npy_with_shape("(" + "1, " * 3_000 + ")"),
        npy_with_shape("(2, 16)", str([(f"x{i}", "<f4") for i in range(500)])),
        npy_with_shape("(" * 5_000),
        npy_with_header("1 " * 30_000),
        npy_with_header("-" * 9_000),
        npy_with_header("[" * 9_000),
    ],
)
def test_an_invalid_array_header_is_rejected_with_a_short_message(client, body):
    response = client.post("/decode", content=body, params={"labels": "1"})
    assert error_field(response) == (400, "latents")
    assert len(response.content) < CHARACTERS


@pytest.mark.parametrize("query", ["labels=1&labels=2", "labels=" + "1" * 20_000])
def test_labels_in_the_query_have_the_same_limits_as_in_json(client, query):
    response = client.post(f"/decode?{query}", content=npy_body(np.zeros((2, 64), np.float32)))
    assert error_field(response) == (400, "labels")


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("cost"), MNIST_GAN_MODEL=str(SHIPPED)) as (client, _):
        yield client


def test_health_checks_respond_while_expensive_bodies_arrive(client):
    names = ["a row of texts", "unknown fields", "a row of lists", "rows of 64 numbers", "labels of different texts"]

    def send(name: str) -> int:
        shape = SHAPES[name]
        with httpx.Client(base_url=client.base_url, timeout=60) as sender:
            return sender.post(shape.route, content=shape.body(SETTINGS.max_json_bytes, MAX_COUNT)).status_code

    with ThreadPoolExecutor(2) as pool:
        sent = [pool.submit(send, name) for name in names * 2]
        while not all(request.done() for request in sent):
            assert client.get("/livez", timeout=2).status_code == 200
        assert {request.result() for request in sent} == {400}
