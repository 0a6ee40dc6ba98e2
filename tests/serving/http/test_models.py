"""Several models in one service: how requests choose one."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

from models.onnx_file.generator import Generator
from tests.serving.http.messages import error_code, error_field, error_of, npy_array, npy_body, npz_arrays, npz_images
from tools.service_process import serving


@pytest.fixture(scope="module")
def client(files, tmp_path_factory) -> Iterator[httpx.Client]:
    """A client of a server with the default model `digits`, which has classes, and `plain`, which has none."""
    models = f"digits={files['conditional']},plain={files['unconditional']}"
    with serving(tmp_path_factory.mktemp("models"), MNIST_GAN_MODEL=models) as (client, _):
        yield client


@pytest.fixture(scope="module")
def generators(files) -> dict[str, Generator]:
    return {"digits": Generator.open(files["conditional"]), "plain": Generator.open(files["unconditional"])}


@pytest.mark.parametrize("name", ["digits", "plain", None])
def test_every_route_uses_the_model_that_the_request_names(client, generators, name):
    generator = generators[name or "digits"]
    field = {} if name is None else {"model": name}
    label = {"labels": [3]} if generator.card.conditional else {}

    data = client.post("/dataset", json={"n": 40, "seed": 5} | field)
    images, labels = generator.images(5, 0, 40)
    np.testing.assert_array_equal(npz_images(data), images[:, 0])
    assert ("labels" in npz_arrays(data)) == (labels is not None)

    latents, drawn = generator.draw(5, 0, 4, **label)
    decoded = client.post("/decode", content=npy_body(latents), params=field | ({"labels": "3"} if label else {}))
    np.testing.assert_array_equal(npy_array(decoded), generator.decode(latents, drawn))

    responses = [
        data,
        decoded,
        client.post("/generate", json={"n": 4} | field),
        client.post("/decode", json={"latents": latents.tolist()} | label | field),
        client.post("/interpolate", json={"from": {"seed": 1}, "to": {"seed": 2}, "frames": 3} | field),
        client.post("/card", json=field),
        client.get("/card", params=field),
    ]
    assert [response.status_code for response in responses] == [200] * 7
    assert {response.headers["X-Model"] for response in responses} == {generator.card.file_sha256}


def test_write_uses_the_classes_of_the_model_that_the_request_names(client):
    assert client.post("/write", json={"text": "42", "model": "digits"}).status_code == 200
    assert error_field(client.post("/write", json={"text": "42", "model": "plain"})) == (400, "text")


@pytest.mark.parametrize("name", ["letters", "", "x" * 1_000, 3, None])
def test_an_unknown_model_is_rejected_with_the_names_of_the_models(client, name):
    response = client.post("/generate", json={"model": name})
    assert error_field(response) == (400, "model")
    assert len(response.content) < 500
    if name == "letters":
        assert error_of(response)["message"] == "There is no model 'letters'; the models are digits, plain"


def test_the_query_of_an_npy_body_may_name_a_model_once(client):
    body = npy_body(np.zeros((2, 16), np.float32))
    assert error_field(client.post("/decode?model=letters", content=body)) == (400, "model")
    assert error_field(client.post("/decode?model=plain&model=plain", content=body)) == (400, "model")
    assert client.post("/decode?model=plain", content=body).status_code == 200


def test_the_query_of_a_card_may_only_name_a_model_once(client):
    assert error_field(client.get("/card?model=letters")) == (400, "model")
    assert error_field(client.get("/card?name=plain")) == (400, "name")
    assert error_field(client.get("/card?model=plain&model=plain")) == (400, None)


def test_the_list_of_models_has_their_hashes_and_states(client, generators):
    assert client.get("/models").json() == {
        "models": [
            {
                "name": name,
                "default": name == "digits",
                "state": "ready",
                "card_name": generator.card.name,
                "file_sha256": generator.card.file_sha256,
            }
            for name, generator in generators.items()
        ]
    }


def test_requests_for_several_models_at_the_same_time_get_the_images_of_their_own_model(client, generators):
    requests = [(name, n, seed) for seed, n in enumerate([1, 3, 30, 200] * 6) for name in generators]

    def send(request: tuple[str, int, int]) -> httpx.Response:
        name, n, seed = request
        return client.post("/dataset", json={"model": name, "n": n, "seed": seed})

    with ThreadPoolExecutor(8) as pool:
        for (name, n, seed), response in zip(requests, pool.map(send, requests), strict=True):
            np.testing.assert_array_equal(npz_images(response), generators[name].images(seed, 0, n)[0][:, 0])


def test_metrics_have_the_name_of_the_model(client):
    client.post("/generate", json={"n": 3, "model": "plain"}).raise_for_status()
    text = client.get("/metrics").text
    for metric in (
        "images_total",
        "encode_seconds_count",
        "batch_images_count",
        "model_seconds_count",
        "queued_images",
    ):
        lines = [line for line in text.splitlines() if line.startswith(f"mnist_gan_{metric}{{")]
        assert any('model="plain"' in line for line in lines), metric
        assert all('model="' in line for line in lines), metric
    assert text.count("mnist_gan_model_info{") == 2


def test_loading_is_disabled_unless_a_setting_enables_it(client):
    response = client.post("/models/plain/load", json={"source": "a.onnx"})
    assert error_code(response) == (403, "forbidden")
    assert "MNIST_GAN_LOAD_FOLDER" in error_of(response)["message"]
