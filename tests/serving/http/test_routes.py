"""Responses of each route to valid requests."""

import io
from concurrent.futures import ThreadPoolExecutor

import bentoml
import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from models.common.image_files import grid, png
from models.onnx_file.generator import Generator
from tests.serving.http.messages import npy_array, npy_body, npz_arrays, npz_images


@pytest.fixture
def generator(conditional_generator) -> Generator:
    return conditional_generator


@pytest.fixture
def client(conditional_client) -> httpx.Client:
    return conditional_client


def pixels_of(response: httpx.Response) -> np.ndarray:
    """Returns the pixels of a successful PNG response."""
    assert response.status_code == 200, response.text
    with Image.open(io.BytesIO(response.content)) as image:
        return np.asarray(image)


def test_generate_returns_a_grid_of_the_requested_images(client, generator):
    response = client.post("/generate", json={"n": 10, "seed": 7, "first": 3, "columns": 4, "scale": 3})
    assert response.headers["content-type"] == "image/png"
    assert response.headers["x-seed"] == "7"
    assert response.headers["x-model"] == generator.card.file_sha256
    assert response.content == png(grid(generator.images(seed=7, first=3, n=10)[0], columns=4, scale=3))


def test_generate_without_fields_returns_16_images_of_a_new_seed(client):
    response = client.post("/generate")
    assert pixels_of(response).shape == (4 * 28 * 2, 4 * 28 * 2)
    repeated = client.post("/generate", json={"seed": int(response.headers["x-seed"])})
    assert repeated.content == response.content
    assert client.post("/generate").headers["x-seed"] != response.headers["x-seed"]


@pytest.mark.parametrize("kind", ["unconditional", "conditional"])
def test_dataset_returns_images_and_labels_as_npz(clients, files, kind):
    response = clients[kind].post("/dataset", json={"n": 300, "seed": 1})
    assert response.headers["content-type"] == "application/x-npz"
    arrays = npz_arrays(response)
    images, labels = Generator.open(files[kind]).images(seed=1, first=0, n=300)
    np.testing.assert_array_equal(arrays["images"], images[:, 0])
    if labels is None:
        assert list(arrays) == ["images"]
    else:
        np.testing.assert_array_equal(arrays["labels"], labels)


def test_dataset_returns_a_thousand_images_by_default(client):
    assert npz_images(client.post("/dataset")).shape == (1_000, 28, 28)


@given(st.integers(0, 2**53 - 1), st.integers(0, 2**53 - 100), st.integers(0, 60), st.integers(1, 30))
@settings(deadline=None, max_examples=25)
def test_an_image_does_not_depend_on_the_range_of_the_request(conditional_client, seed, first, skip, n):
    whole = npz_images(conditional_client.post("/dataset", json={"seed": seed, "first": first, "n": skip + n}))
    part = npz_images(conditional_client.post("/dataset", json={"seed": seed, "first": first + skip, "n": n}))
    np.testing.assert_array_equal(part, whole[skip:])


def test_images_do_not_depend_on_concurrent_requests(client):
    def request(seed: int) -> bytes:
        return client.post("/dataset", json={"seed": seed, "n": 1 + seed % 70, "labels": "0123456789"}).content

    sequential = [request(seed) for seed in range(60)]
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(request, range(60))) == sequential


@pytest.mark.parametrize("labels", ["37", ["3", 7], [3, 7]])
def test_labels_are_repeated_over_the_images(client, generator, labels):
    arrays = npz_arrays(client.post("/dataset", json={"seed": 2, "n": 5, "labels": labels}))
    assert arrays["labels"].tolist() == [3, 7, 3, 7, 3]
    np.testing.assert_array_equal(arrays["images"], generator.images(2, 0, 5, [3, 7])[0][:, 0])


def test_truncation_is_passed_to_the_generator(client, generator):
    response = client.post("/dataset", json={"seed": 2, "n": 5, "truncation": 0.5})
    np.testing.assert_array_equal(npz_images(response), generator.images(2, 0, 5, truncation=0.5)[0][:, 0])


def test_decode_returns_a_grid_for_latents_as_json(client, generator):
    latents = np.random.default_rng(0).standard_normal((3, 16)).astype(np.float32)
    response = client.post("/decode", json={"latents": latents.tolist(), "labels": "5", "scale": 1})
    assert response.headers["content-type"] == "image/png"
    assert response.headers["x-model"] == generator.card.file_sha256
    assert response.content == png(grid(generator.decode(latents, np.array([5, 5, 5]))))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_decode_returns_an_array_for_latents_as_an_array(client, generator, dtype):
    latents = np.random.default_rng(0).standard_normal((300, 16)).astype(dtype)
    response = client.post("/decode", content=npy_body(latents), params={"labels": "0123"})
    assert response.headers["content-type"] == "application/x-npy"
    np.testing.assert_array_equal(npy_array(response), generator.decode(latents, np.arange(300) % 4))


def test_card_returns_the_same_for_get_and_post(client, generator):
    assert client.get("/card").json() == client.post("/card").json()
    assert client.get("/card").json()["file_sha256"] == generator.card.file_sha256


def test_write_returns_one_row_of_images(client, generator):
    response = client.post("/write", json={"text": "2024", "seed": 5, "scale": 1})
    assert (response.headers["content-type"], response.headers["x-seed"]) == ("image/png", "5")
    assert response.content == png(grid(generator.images(5, 0, 4, ["2", "0", "2", "4"])[0], columns=4))


def test_interpolate_starts_and_ends_with_the_given_images(client, generator):
    body = {"from": {"seed": 1, "index": 4, "label": 3}, "to": {"seed": 2, "label": "8"}, "frames": 7, "scale": 1}
    response = client.post("/interpolate", json=body)
    assert response.headers["content-type"] == "image/png"
    row = pixels_of(response)
    assert row.shape == (28, 7 * 28)
    np.testing.assert_array_equal(row[:, :28], generator.images(1, 4, 1, [3])[0][0, 0])
    np.testing.assert_array_equal(row[:, -28:], generator.images(2, 0, 1, [8])[0][0, 0])
    assert client.post("/interpolate", json=body).content == response.content


@pytest.mark.parametrize("format", ["gif", "webp"])
@pytest.mark.parametrize("kind", ["unconditional", "conditional"])
def test_an_animation_plays_forward_and_backward(clients, kind, format):
    body = {"from": {"seed": 1}, "to": {"seed": 2}, "frames": 5, "format": format, "scale": 3}
    response = clients[kind].post("/interpolate", json=body)
    assert response.headers["content-type"] == f"image/{format}"
    with Image.open(io.BytesIO(response.content)) as animation:
        assert (animation.n_frames, animation.size) == (2 * 5 - 2, (84, 84))


def test_the_bentoml_client_calls_a_route_with_typed_arguments(client):
    with bentoml.SyncHTTPClient(str(client.base_url)) as typed:
        content = typed.generate(n=4, seed=7)
    assert content == client.post("/generate", json={"n": 4, "seed": 7}).content


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_bentoml_client_sends_latents_as_an_array(client, generator, dtype):
    latents = np.random.default_rng(0).standard_normal((3, 16)).astype(dtype)
    with bentoml.SyncHTTPClient(str(client.base_url)) as typed:
        content = typed.decode(latents=latents, labels="123")
    expected = generator.decode(latents.astype(np.float32), np.array([1, 2, 3]))
    assert content == png(grid(expected, scale=2))


def test_metrics_count_images_batches_and_errors(client, generator):
    names = {
        'mnist_gan_images_total{model="mnist-gan",route="/dataset"}': 300,
        'mnist_gan_batch_images_sum{model="mnist-gan"}': 300,
        'mnist_gan_queue_seconds_count{model="mnist-gan"}': 1,
        'mnist_gan_encode_seconds_count{model="mnist-gan",route="/dataset"}': 1,
        'mnist_gan_errors_total{code="invalid_input"}': 1,
        'mnist_gan_queued_images{model="mnist-gan"}': 0,
    }

    def read_metrics() -> dict[str, float]:
        lines = client.get("/metrics").text.splitlines()
        return {name: sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name)) for name in names}

    before = read_metrics()
    client.post("/dataset", json={"n": 300})
    client.post("/dataset", json={"n": 0})
    after = read_metrics()
    assert {name: after[name] - before[name] for name in names} == names
    assert f'file_sha256="{generator.card.file_sha256}"' in client.get("/metrics").text


def test_metrics_have_no_series_for_unknown_paths(client):
    client.post("/generate")
    for number in range(3):
        assert client.get(f"/unknown/{number}").status_code == 404
    text = client.get("/metrics").text
    assert "unknown" not in text
    assert 'endpoint="/generate"' in text
    assert "bentoml_service" in text
