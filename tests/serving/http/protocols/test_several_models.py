"""Each protocol chooses among several models by their names."""

import base64
import io
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from PIL import Image

from models.onnx_file.generator import Generator
from models.onnx_file.store import SHIPPED
from tools.service_process import serving

FILES = {"digits": SHIPPED, "fast": SHIPPED.with_name("mnist-fast.onnx")}
GENERATORS = {name: Generator.open(path) for name, path in FILES.items()}


@pytest.fixture(scope="module")
def client(tmp_path_factory) -> Iterator[httpx.Client]:
    models = ",".join(f"{name}={path}" for name, path in FILES.items())
    with serving(tmp_path_factory.mktemp("several"), MNIST_GAN_MODEL=models) as (client, _):
        yield client


def expected(name: str) -> np.ndarray:
    """Returns image 0 of seed 7 with the label 3."""
    return GENERATORS[name].images(7, 0, 1, "3")[0][0, 0]


def picture(content: bytes) -> np.ndarray:
    """Returns the pixels of a picture."""
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image)


@pytest.mark.parametrize("name", FILES)
def test_each_protocol_uses_the_model_that_is_named(client, name):
    card = GENERATORS[name].card
    query = {"label": "3", "scale": 1, "model": name, "v": card.file_sha256[:12]}
    by_url = client.get("/images/7/0.png", params=query)
    np.testing.assert_array_equal(picture(by_url.content), expected(name))
    assert by_url.headers["x-model"] == card.file_sha256

    label = {"name": "label", "datatype": "INT64", "shape": [1], "data": [3]}
    request = {"inputs": [label], "parameters": {"seed": 7}}
    inferred = client.post(f"/v2/models/{name}/versions/1/infer", json=request).json()
    assert inferred["model_name"] == name
    np.testing.assert_array_equal(np.reshape(inferred["outputs"][0]["data"], (28, 28)), expected(name))
    assert client.get(f"/v2/models/{name}").json()["parameters"]["file_sha256"] == card.file_sha256

    request = {"prompt": "3", "seed": 7, "size": "28x28", "model": name}
    (drawn,) = client.post("/v1/images/generations", json=request).json()["data"]
    np.testing.assert_array_equal(picture(base64.b64decode(drawn["b64_json"])), expected(name))
    (drawn,) = client.post("/v1/images/generations", json=request | {"response_format": "url"}).json()["data"]
    np.testing.assert_array_equal(picture(httpx.get(drawn["url"]).content), expected(name))


def test_a_request_that_names_no_model_is_for_the_first(client):
    for path in ("/images/7/0.png?label=3&scale=1", "/write/7.png?text=3&scale=1"):
        np.testing.assert_array_equal(picture(client.get(path).content), expected("digits"))
    request = {"prompt": "3", "seed": 7, "size": "28x28"}
    (drawn,) = client.post("/v1/images/generations", json=request).json()["data"]
    np.testing.assert_array_equal(picture(base64.b64decode(drawn["b64_json"])), expected("digits"))


def test_pictures_of_different_models_have_different_tags(client):
    tags = {client.head(f"/images/7/0.png?label=3&model={name}").headers["etag"] for name in FILES}
    assert len(tags) == len(FILES)


def test_the_protocols_list_all_models(client):
    assert [model["name"] for model in client.post("/v2/repository/index").json()] == [*FILES]
    assert [model["id"] for model in client.get("/v1/models").json()["data"]] == [*FILES]
