"""The Open Inference Protocol: messages, invalid requests, limits, and the images by seed."""

import gzip
import json
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from models.onnx_file.generator import Generator
from models.onnx_file.store import SHIPPED
from serving.http.settings import SETTINGS
from tools.service_process import serving

INFER = "/v2/models/mnist-gan/infer"
GENERATOR = Generator.open(SHIPPED)
LATENTS, LABELS = GENERATOR.draw(seed=1, first=0, n=3)
IMAGES = GENERATOR.decode(LATENTS, LABELS)
LATENT = {"name": "latent", "datatype": "FP32", "shape": [3, 64], "data": LATENTS.tolist()}
LABEL = {"name": "label", "datatype": "INT64", "shape": [3], "data": LABELS.tolist()}
LENGTH = "inference-header-content-length"


@pytest.fixture(scope="module")
def client(tmp_path_factory) -> Iterator[httpx.Client]:
    with serving(tmp_path_factory.mktemp("inference"), MNIST_GAN_MODEL=str(SHIPPED)) as (client, _):
        yield client


def binary_request(head: dict[str, Any], *raw: bytes) -> tuple[bytes, dict[str, str]]:
    """Returns the body and the header field of a request with raw bytes after its JSON."""
    text = json.dumps(head).encode()
    return b"".join((text, *raw)), {LENGTH: str(len(text))}


def raw(array: np.ndarray, name: str, datatype: str) -> dict[str, Any]:
    """Describes an input whose raw bytes follow the JSON."""
    parameters = {"binary_data_size": array.nbytes}
    return {"name": name, "datatype": datatype, "shape": list(array.shape), "parameters": parameters}


RAW = [raw(LATENTS, "latent", "FP32"), raw(LABELS, "label", "INT64")]


def tensor(response: httpx.Response) -> np.ndarray:
    """Returns the output of a response."""
    assert response.status_code == 200, response.text
    assert response.headers["x-model"] == GENERATOR.card.file_sha256
    length = int(response.headers.get(LENGTH, len(response.content)))
    output = json.loads(response.content[:length])["outputs"][0]
    assert (output["name"], output["datatype"]) == ("image", "UINT8")
    if "data" in output:
        return np.array(output["data"], np.uint8).reshape(output["shape"])
    assert output["parameters"]["binary_data_size"] == len(response.content) - length
    return np.frombuffer(response.content, np.uint8, offset=length).reshape(output["shape"])


def error(response: httpx.Response) -> tuple[int, str]:
    """Returns status and text of an error, and checks its format."""
    body = response.json()
    assert set(body) == {"error"}
    assert isinstance(body["error"], str)
    return response.status_code, body["error"]


@pytest.mark.parametrize("nested", [True, False])
def test_json_data_may_be_nested_or_flat(client, nested):
    latent = LATENT if nested else LATENT | {"data": LATENTS.ravel().tolist()}
    response = client.post(INFER, json={"id": "abc", "inputs": [LABEL, latent]})
    np.testing.assert_array_equal(tensor(response), IMAGES)
    body = response.json()
    assert (body["id"], body["model_name"], body["model_version"]) == ("abc", "mnist-gan", "1")
    assert response.headers["content-type"] == "application/json"


@pytest.mark.parametrize("padding", range(4))
def test_raw_bytes_may_begin_at_any_position(client, padding):
    head = {"id": "x" * padding, "inputs": RAW, "outputs": [{"name": "image", "parameters": {"binary_data": True}}]}
    body, headers = binary_request(head, LATENTS.tobytes(), LABELS.tobytes())
    response = client.post(INFER, content=body, headers=headers)
    np.testing.assert_array_equal(tensor(response), IMAGES)
    assert response.headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize(
    ("request_wide", "of_the_output", "binary"),
    [(None, None, False), (True, None, True), (True, False, False), (False, True, True)],
)
def test_the_choice_of_an_output_comes_before_that_of_the_request(client, request_wide, of_the_output, binary):
    output = {"name": "image"} | ({} if of_the_output is None else {"parameters": {"binary_data": of_the_output}})
    parameters = {} if request_wide is None else {"binary_data_output": request_wide}
    response = client.post(INFER, json={"inputs": [LATENT, LABEL], "outputs": [output], "parameters": parameters})
    assert (LENGTH in response.headers) == binary
    np.testing.assert_array_equal(tensor(response), IMAGES)


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
@pytest.mark.parametrize("binary", [True, False])
def test_bodies_are_compressed_in_both_directions(client, encoding, compress, binary):
    head = {"inputs": RAW, "parameters": {"binary_data_output": binary}}
    body, headers = binary_request(head, LATENTS.tobytes(), LABELS.tobytes())
    headers |= {"content-encoding": encoding, "accept-encoding": encoding}
    response = client.post(INFER, content=compress(body), headers=headers)
    assert response.headers["content-encoding"] == encoding
    np.testing.assert_array_equal(tensor(response), IMAGES)


def test_a_client_that_lists_several_encodings_gets_an_uncompressed_response(client):
    response = client.post(INFER, json={"parameters": {"seed": 1}}, headers={"accept-encoding": "gzip, deflate"})
    assert "content-encoding" not in response.headers


@pytest.mark.parametrize(
    ("parameters", "labels", "arguments"),
    [
        ({"seed": 7}, None, (7, 0, 1)),
        ({"seed": 7, "first": 5, "n": 4, "truncation": 0.5}, None, (7, 5, 4, None, 0.5)),
        ({"seed": 7, "first": 5}, [3, 1, 4], (7, 5, 3, [1, 4, 3])),
        ({"seed": 2**53 - 1, "first": 2**53 - 1}, [3], (2**53 - 1, 2**53 - 1, 1, [3])),
    ],
)
def test_parameters_select_the_images_of_a_seed(client, parameters, labels, arguments):
    inputs = [] if labels is None else [LABEL | {"shape": [len(labels)], "data": labels}]
    response = client.post(INFER, json={"inputs": inputs, "parameters": parameters})
    np.testing.assert_array_equal(tensor(response), GENERATOR.images(*arguments)[0])
    assert response.headers["x-seed"] == str(response.json()["parameters"]["seed"]) == str(parameters["seed"])


def test_a_request_without_a_seed_gets_a_random_one_that_the_response_has(client):
    first = client.post(INFER, json={"parameters": {"n": 2}})
    seed = first.json()["parameters"]["seed"]
    again = client.post(INFER, json={"parameters": {"n": 2, "seed": seed}})
    np.testing.assert_array_equal(tensor(again), tensor(first))


@pytest.mark.parametrize(
    ("request_json", "text"),
    [
        ({}, "latent is missing"),
        ({"inputs": [LATENT]}, "label: mnist is class-conditional"),
        ({"inputs": [LATENT, LATENT]}, "occurs twice"),
        ({"inputs": [LATENT | {"name": "z"}, LABEL]}, "no input 'z'; the inputs are latent, label"),
        ({"inputs": [LATENT | {"datatype": "FP64"}, LABEL]}, "datatype FP64; it must be FP32"),
        ({"inputs": [LATENT, LABEL | {"datatype": "INT32"}]}, "must be INT64"),
        ({"inputs": [LATENT | {"shape": [64, 3]}, LABEL]}, "must have shape (n, 64), got (64, 3)"),
        ({"inputs": [LATENT | {"shape": [192]}, LABEL]}, "must have shape"),
        ({"inputs": [LATENT | {"shape": [2, 64]}, LABEL]}, "128 values, got 192"),
        ({"inputs": [LATENT | {"shape": [3, -64]}, LABEL]}, "inputs.0.shape.1"),
        ({"inputs": [LATENT | {"shape": [0, 64], "data": []}, LABEL]}, "must have shape"),
        ({"inputs": [LATENT | {"data": [[1.0] * 63, [1.0] * 64, [1.0] * 65]}, LABEL]}, "differ in length"),
        ({"inputs": [LATENT | {"data": ["a"] * 192}, LABEL]}, "not all numbers"),
        ({"inputs": [LATENT | {"data": [None] * 192}, LABEL]}, "not all numbers"),
        ({"inputs": [LATENT | {"data": [True] * 192}, LABEL]}, "not all numbers"),
        ({"inputs": [LATENT | {"data": [[[1.0] * 64]] * 3}, LABEL]}, "not all numbers"),
        ({"inputs": [LATENT | {"data": ["x" * 1_000_000, *["y"] * 100_000]}, LABEL]}, "not all numbers"),
        ({"inputs": [LATENT | {"data": [1e300] * 192}, LABEL]}, "finite"),
        ({"inputs": [LATENT | {"data": [10**300] * 192}, LABEL]}, "finite"),
        ({"inputs": [LATENT, LABEL | {"data": [2**63, 1, 2]}]}, "does not fit into INT64"),
        ({"inputs": [LATENT, LABEL | {"data": [1.5, 2.0, 3.0]}]}, "not all numbers"),
        ({"inputs": [LATENT, LABEL | {"data": [1, 2, 10]}]}, "from 0 to 9"),
        ({"inputs": [LATENT, LABEL | {"shape": [3, 1]}]}, "must have the shape [n]"),
        ({"inputs": [LATENT, LABEL | {"shape": [2], "data": [1, 2]}]}, "3 class indices"),
        ({"inputs": [{name: LATENT[name] for name in ("name", "shape", "datatype")}, LABEL]}, "neither data nor"),
        ({"inputs": [LATENT | {"parameters": {"shared_memory_region": "r"}}, LABEL]}, "shared_memory_region"),
        ({"inputs": [LATENT, LABEL], "outputs": [{"name": "images"}]}, "no output 'images'; the output is image"),
        ({"inputs": [LATENT, LABEL], "parameters": {"seed": 1}}, "either the input latent or the parameter seed"),
        ({"inputs": [LABEL], "parameters": {"seed": 1, "n": 4}}, "3 values for n = 4"),
        ({"parameters": {"seed": -1}}, "parameters.seed"),
        ({"parameters": {"seed": 1, "n": 1.5}}, "parameters.n"),
        ({"parameters": {"seed": 1, "truncation": 2}}, "parameters.truncation"),
        ({"parameters": {"seed": 1, "first": 2**53 - 1, "n": 2}}, "2^53"),
        ({"parameters": {"sed": 1}}, "parameters.sed"),
        ({"parameters": {"seed": 1, "n": 1_025}}, "1,025 images; at most 1,024 are allowed; send and request raw"),
        ({"parameters": {"seed": 1, "n": 10_001, "binary_data_output": True}}, "at most 10,000 are allowed"),
        ([], "should be an object"),
    ],
)
def test_an_invalid_request_is_a_400_with_a_text(client, request_json, text):
    status, message = error(client.post(INFER, json=request_json))
    assert status == 400
    assert text in message


@pytest.mark.parametrize(
    ("head", "raw_bytes", "length", "text"),
    [
        ({"inputs": RAW}, LATENTS.tobytes(), None, "ends before the 24 bytes of the input label"),
        ({"inputs": RAW}, LATENTS.tobytes() + bytes(25), None, "793 bytes after the JSON"),
        ({"inputs": RAW}, b"", "100000", "is 100000, but the body has"),
        ({"inputs": RAW}, b"", "-1", "is -1"),
        ({"inputs": RAW}, b"", "9" * 500, "Inference-Header-Content-Length is 9999"),
        ({"inputs": RAW}, LATENTS.tobytes(), "10", "Invalid JSON"),
        ({"inputs": [RAW[0] | {"shape": [4, 64]}, RAW[1]]}, b"", None, "has 1,024 bytes; its binary_data_size is 768"),
        ({"inputs": [RAW[0] | {"shape": [2**31 - 1] * 8}]}, b"", None, "its binary_data_size is 768"),
        ({"inputs": [LATENT | {"parameters": {"binary_data_size": 768}}]}, b"", None, "send one of them"),
    ],
)
def test_sizes_that_do_not_add_up_are_a_400(client, head, raw_bytes, length, text):
    body, headers = binary_request(head, raw_bytes)
    status, message = error(client.post(INFER, content=body, headers=headers if length is None else {LENGTH: length}))
    assert status == 400
    assert text in message
    assert len(message) < 500


@pytest.mark.parametrize(
    ("method", "path", "text"),
    [
        ("POST", "/v2/models/other/infer", "no model 'other'"),
        ("POST", "/v2/models/mnist-gan/versions/2/infer", "no version '2'; its only version is 1"),
        ("GET", "/v2/models/other", "the models are mnist-gan"),
        ("GET", "/v2/models/other/ready", "no model"),
        ("GET", f"/v2/models/{'x' * 10_000}/ready", "no model"),
        ("GET", "/v2/models/mnist-gan/versions/2/config", "no version"),
        ("GET", "/v2/models/mnist-gan/stats", "does not exist"),
    ],
)
def test_an_unknown_model_version_or_path_is_a_404(client, method, path, text):
    status, message = error(client.request(method, path))
    assert status == 404
    assert text in message
    assert len(message) < 500


def test_another_method_is_a_405(client):
    response = client.get(INFER)
    assert error(response)[0] == 405
    assert response.headers["allow"] == "POST"


def test_raw_bytes_have_the_limit_of_arrays_and_json_its_own(client):
    latents = np.zeros((10_000, 64), np.float32)
    labels = np.zeros(10_000, np.int64)
    inputs = [raw(latents, "latent", "FP32"), raw(labels, "label", "INT64")]
    head = {"inputs": inputs, "parameters": {"binary_data_output": True}}
    body, headers = binary_request(head, latents.tobytes(), labels.tobytes())
    assert len(body) > SETTINGS.max_json_bytes // 2
    assert tensor(client.post(INFER, content=body, headers=headers)).shape == (10_000, 1, 28, 28)
    too_long = b" " * (SETTINGS.max_json_bytes + 1)
    status, message = error(client.post(INFER, content=too_long))
    assert (status, "raw bytes at most 33,554,432" in message) == (413, True)
    status, message = error(client.post(INFER, content=too_long, headers={LENGTH: str(len(too_long))}))
    assert (status, "The JSON of the request has 4,194,305 bytes" in message) == (413, True)
    status, _ = error(client.post(INFER, content=bytes(SETTINGS.max_body_bytes + 1), headers={LENGTH: "2"}))
    assert status == 413


def test_the_metadata_of_a_model_without_classes_have_no_label(unconditional_client):
    metadata = unconditional_client.get("/v2/models/mnist-gan").json()
    assert [each["name"] for each in metadata["inputs"]] == ["latent"]
    label = LABEL | {"shape": [1], "data": [3]}
    status, message = error(unconditional_client.post(INFER, json={"inputs": [label], "parameters": {"seed": 1}}))
    assert status == 400
    assert "label: " in message


def test_a_service_whose_model_cannot_be_opened_is_live_and_not_ready(tmp_path):
    with serving(tmp_path, MNIST_GAN_MODEL="/nothing.onnx") as (client, _):
        assert client.get("/v2/health/live").json() == {"live": True}
        for path in ("/v2/health/ready", "/v2/models/mnist-gan/ready"):
            assert error(client.get(path))[0] == 503
        assert error(client.post(INFER, json={"parameters": {"seed": 1}}))[0] == 503
        (model,) = client.post("/v2/repository/index").json()
        assert (model["name"], model["state"]) == ("mnist-gan", "UNAVAILABLE")


def test_the_metrics_have_templates_instead_of_names(client):
    client.post(INFER, json={"parameters": {"seed": 1}}).raise_for_status()
    client.get("/v2/models/unknown-name")
    text = client.get("/metrics").text
    assert 'route="/v2/models/{model}/infer"' in text
    assert 'endpoint="/v2/models/{model}",http_response_code="404"' in text
    assert "unknown-name" not in text
