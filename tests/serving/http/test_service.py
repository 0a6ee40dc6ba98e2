"""Against the real server, started as a user starts it."""

import io
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import bentoml
import httpx
import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from models.common.image_files import grid, png
from models.onnx_file.generator import Generator
from models.onnx_file.store import SHIPPED, register
from tests.serving.http.server import serving


@pytest.fixture(scope="module")
def servers(files, tmp_path_factory) -> Iterator[dict[str, httpx.Client]]:
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in files}
    with (
        serving(folders["unconditional"], MNIST_GAN_MODEL=str(files["unconditional"])) as (unconditional, _),
        serving(folders["conditional"], MNIST_GAN_MODEL=str(files["conditional"])) as (conditional, _),
    ):
        yield {"unconditional": unconditional, "conditional": conditional}


@pytest.fixture(scope="module")
def client(servers) -> httpx.Client:
    return servers["conditional"]


@pytest.fixture(scope="module")
def generator(files) -> Generator:
    return Generator.open(files["conditional"])


def images_of(answer: httpx.Response) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    return np.load(io.BytesIO(answer.content))["images"]


def test_it_is_ready(client):
    assert client.get("/readyz").status_code == 200


def test_generate_answers_a_sheet_of_the_addressed_images(client, generator):
    answer = client.post("/generate", json={"n": 10, "seed": 7, "first": 3, "columns": 4, "scale": 3})
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-seed"] == "7"
    assert answer.headers["x-model"] == generator.card.file_sha256
    assert answer.content == png(grid(generator.images(seed=7, first=3, n=10)[0], columns=4, scale=3))


def test_generate_without_fields_makes_16_images_of_a_seed_that_it_tells(client):
    answer = client.post("/generate")
    with Image.open(io.BytesIO(answer.content)) as image:
        assert image.size == (4 * 28 * 2, 4 * 28 * 2)
    again = client.post("/generate", json={"seed": int(answer.headers["x-seed"])})
    assert again.content == answer.content
    assert client.post("/generate").headers["x-seed"] != answer.headers["x-seed"]


@pytest.mark.parametrize("kind", ["unconditional", "conditional"])
def test_dataset_answers_npz(servers, files, kind):
    answer = servers[kind].post("/dataset", json={"n": 300, "seed": 1})
    assert answer.headers["content-type"] == "application/x-npz"
    arrays = np.load(io.BytesIO(answer.content))
    images, labels = Generator.open(files[kind]).images(seed=1, first=0, n=300)
    np.testing.assert_array_equal(arrays["images"], images[:, 0])
    if labels is None:
        assert arrays.files == ["images"]
    else:
        np.testing.assert_array_equal(arrays["labels"], labels)


def test_dataset_makes_a_thousand_by_default(client):
    assert images_of(client.post("/dataset")).shape == (1_000, 28, 28)


@given(st.integers(0, 2**53 - 1), st.integers(0, 2**53 - 100), st.integers(0, 60), st.integers(1, 30))
@settings(deadline=None, max_examples=25)
def test_a_range_is_the_same_in_whatever_range_it_is_asked_for(client, seed, first, skip, n):
    whole = images_of(client.post("/dataset", json={"seed": seed, "first": first, "n": skip + n}))
    part = images_of(client.post("/dataset", json={"seed": seed, "first": first + skip, "n": n}))
    np.testing.assert_array_equal(part, whole[skip:])


def test_images_do_not_depend_on_what_else_is_being_served(client):
    def ask(seed: int) -> bytes:
        return client.post("/dataset", json={"seed": seed, "n": 1 + seed % 70, "labels": "0123456789"}).content

    alone = [ask(seed) for seed in range(60)]
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, range(60))) == alone


@pytest.mark.parametrize("labels", ["37", ["3", 7], [3, 7]])
def test_labels_are_cycled_over_the_images(client, generator, labels):
    arrays = np.load(io.BytesIO(client.post("/dataset", json={"seed": 2, "n": 5, "labels": labels}).content))
    assert arrays["labels"].tolist() == [3, 7, 3, 7, 3]
    np.testing.assert_array_equal(arrays["images"], generator.images(2, 0, 5, [3, 7])[0][:, 0])


def test_truncation_reaches_the_model(client, generator):
    answer = client.post("/dataset", json={"seed": 2, "n": 5, "truncation": 0.5})
    np.testing.assert_array_equal(images_of(answer), generator.images(2, 0, 5, truncation=0.5)[0][:, 0])


def test_decode_turns_latents_into_a_sheet(client, generator):
    latents = np.random.default_rng(0).standard_normal((3, 16)).astype(np.float32)
    answer = client.post("/decode", json={"latents": latents.tolist(), "labels": "5", "scale": 1})
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-model"] == generator.card.file_sha256
    assert answer.content == png(grid(generator.decode(latents, np.array([5, 5, 5]))))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_decode_turns_an_array_into_an_array(client, generator, dtype):
    latents = np.random.default_rng(0).standard_normal((300, 16)).astype(dtype)
    body = io.BytesIO()
    np.save(body, latents)
    answer = client.post("/decode", content=body.getvalue(), params={"labels": "0123"})
    assert answer.headers["content-type"] == "application/x-npy"
    expected = generator.decode(latents, np.arange(300) % 4)
    np.testing.assert_array_equal(np.load(io.BytesIO(answer.content)), expected)


def test_the_card_is_there_by_get_and_by_post(client, generator):
    assert client.get("/card").json() == client.post("/card").json()
    assert client.get("/card").json()["file_sha256"] == generator.card.file_sha256


def test_a_text_is_written_as_one_strip(client, generator):
    answer = client.post("/write", json={"text": "2024", "seed": 5, "scale": 1})
    assert (answer.headers["content-type"], answer.headers["x-seed"]) == ("image/png", "5")
    assert answer.content == png(grid(generator.images(5, 0, 4, ["2", "0", "2", "4"])[0], columns=4))


def test_an_interpolation_goes_from_one_image_to_the_other(client, generator):
    body = {"from": {"seed": 1, "index": 4, "label": 3}, "to": {"seed": 2, "label": "8"}, "frames": 7, "scale": 1}
    answer = client.post("/interpolate", json=body)
    assert answer.headers["content-type"] == "image/png"
    with Image.open(io.BytesIO(answer.content)) as strip:
        pixels = np.asarray(strip)
    assert pixels.shape == (28, 7 * 28)
    np.testing.assert_array_equal(pixels[:, :28], generator.images(1, 4, 1, [3])[0][0, 0])
    np.testing.assert_array_equal(pixels[:, -28:], generator.images(2, 0, 1, [8])[0][0, 0])
    assert client.post("/interpolate", json=body).content == answer.content


@pytest.mark.parametrize("format", ["gif", "webp"])
@pytest.mark.parametrize("kind", ["unconditional", "conditional"])
def test_an_animation_goes_there_and_back(servers, kind, format):
    body = {"from": {"seed": 1}, "to": {"seed": 2}, "frames": 5, "format": format, "scale": 3}
    answer = servers[kind].post("/interpolate", json=body)
    assert answer.headers["content-type"] == f"image/{format}"
    with Image.open(io.BytesIO(answer.content)) as animation:
        assert (animation.n_frames, animation.size) == (2 * 5 - 2, (84, 84))


BAD_FIELDS = [
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


@pytest.mark.parametrize(("route", "body", "field"), BAD_FIELDS)
def test_a_bad_field_is_a_400_that_names_it(client, route, body, field):
    answer = client.post(route, json=body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert set(error) == {"code", "message", "field"}
    assert (error["code"], error["field"]) == ("invalid_input", field)
    assert error["message"]


def test_a_field_of_a_very_long_name_is_not_echoed_whole(client):
    answer = client.post("/generate", json={"x" * 100_000: 1})
    assert (answer.status_code, answer.json()["error"]["field"]) == (400, "x" * 100)
    assert len(answer.content) < 1_000


def test_an_error_tells_the_value(client):
    message = client.post("/generate", json={"n": 5_000}).json()["error"]["message"]
    assert message == "Input should be less than or equal to 1024, got 5000"


def test_a_long_value_is_not_repeated_whole(client):
    assert len(client.post("/generate", json={"n": "9" * 100_000}).content) < 500


@pytest.mark.parametrize(
    "body", [b"nonsense", b"[]", b"1", b"null", b'"n"', b'{"n": 1', b'{"n": 1}{}', b"\xff\xfe", b"\x00" * 9]
)
@pytest.mark.parametrize("media_type", ["application/json", "text/plain", "image/png", None])
def test_a_body_that_is_no_json_object_is_a_400(client, body, media_type):
    headers = {"content-type": media_type} if media_type else {}
    answer = client.post("/generate", content=body, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_input"


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999"])
@pytest.mark.parametrize(
    ("route", "body", "field"),
    [
        ("/generate", b'{"truncation": %b}', "truncation"),
        ("/decode", b'{"labels": "1", "latents": [[%b,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]]}', "latents.0.0"),
    ],
)
def test_a_number_that_is_not_finite_is_a_400(client, route, body, field, number):
    answer = client.post(route, content=body % number)
    assert (answer.status_code, answer.json()["error"]["field"]) == (400, field)


def npy_body(array: np.ndarray) -> bytes:
    body = io.BytesIO()
    np.save(body, array)
    return body.getvalue()


def npy_headed(shape: str, numbers: bytes) -> bytes:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + numbers


GOOD_NPY = npy_body(np.zeros((2, 16), np.float32))


@pytest.mark.parametrize(
    ("body", "query", "field"),
    [
        (GOOD_NPY[:-1], {"labels": "1"}, "latents"),
        (GOOD_NPY + b"!", {"labels": "1"}, "latents"),
        (GOOD_NPY[:40], {"labels": "1"}, "latents"),
        (GOOD_NPY.replace(b"(2, 16)", b"(9, 16)"), {"labels": "1"}, "latents"),
        (GOOD_NPY.replace(b"(2, 16), } ", b"(9999999999, 16), } ")[:128], {"labels": "1"}, "latents"),
        (npy_body(np.zeros((2, 15))), {"labels": "1"}, "latents"),
        (npy_body(np.zeros(16)), {"labels": "1"}, "latents"),
        (npy_body(np.zeros((0, 16))), {"labels": "1"}, "latents"),
        (npy_body(np.zeros((2, 16), int)), {"labels": "1"}, "latents"),
        (npy_body(np.full((2, 16), np.nan)), {"labels": "1"}, "latents"),
        (npy_body(np.zeros((10_001, 16))), {"labels": "1"}, "latents"),
        (npy_body(np.array([["pickle"]], object)), {"labels": "1"}, "latents"),
        (npy_body(np.float32(1)), {"labels": "1"}, "latents"),
        (npy_headed("(-1, 16)", bytes(4 * 16 * 12_000)), {"labels": "1"}, "latents"),
        (npy_headed("(10**9, 16)", b""), {"labels": "1"}, "latents"),
        (npy_headed("(2, 16)", bytes(4 * 33)), {"labels": "1"}, "latents"),
        (GOOD_NPY[:10] + b"{'descr':'<f4'".ljust(118), {"labels": "1"}, "latents"),
        (GOOD_NPY[:10] + b"{[]:1}".ljust(118), {"labels": "1"}, "latents"),
        (GOOD_NPY, {}, "labels"),
        (GOOD_NPY, {"labels": "x"}, "labels"),
        (GOOD_NPY, {"labels": "1", "scale": "2"}, "scale"),
    ],
)
def test_a_bad_array_is_a_400(client, body, query, field):
    answer = client.post("/decode", content=body, params=query)
    assert (answer.status_code, answer.json()["error"]["field"]) == (400, field)
    assert " object at 0x" not in answer.text


def test_a_generator_without_classes_refuses_labels(servers):
    written = servers["unconditional"].post("/write", json={"text": "1"})
    assert (written.status_code, written.json()["error"]["field"]) == (400, "text")
    for route, body in (("/generate", {"n": 1}), ("/decode", {"latents": [[0] * 16]})):
        answer = servers["unconditional"].post(route, json=body | {"labels": "3"})
        assert (answer.status_code, answer.json()["error"]["field"]) == (400, "labels")
        assert "without classes" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("method", "route", "status", "code"),
    [("GET", "/nothing", 404, "not_found"), ("GET", "/generate", 405, "method_not_allowed")],
)
def test_an_unknown_route_has_the_same_shape_of_error(client, method, route, status, code):
    answer = client.request(method, route)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_bad_input_does_not_stop_the_service(client):
    for route, body, _ in BAD_FIELDS:
        client.post(route, json=body)
    assert client.get("/readyz").status_code == 200


def test_metrics_and_swagger_are_there(client):
    client.post("/generate")
    assert "bentoml_service" in client.get("/metrics").text
    assert client.get("/").status_code == 200
    paths = client.get("/docs.json").json()["paths"]
    assert {"/generate", "/dataset", "/decode", "/write", "/interpolate", "/card"} <= set(paths)
    content = paths["/generate"]["post"]["responses"]["200"]["content"]
    assert list(content) == ["image/png"]


def test_the_bentoml_client_takes_typed_arguments(client, generator):
    with bentoml.SyncHTTPClient(str(client.base_url)) as typed:
        answer = typed.generate(n=4, seed=7)
    assert answer == client.post("/generate", json={"n": 4, "seed": 7}).content


def test_where_the_store_is_empty_it_serves_the_generator_that_ships(tmp_path):
    with serving(tmp_path) as (client, _):
        shipped = Generator.open(SHIPPED)
        assert client.get("/card").json()["file_sha256"] == shipped.card.file_sha256
        answer = client.post("/dataset", json={"n": 20, "seed": 3})
        np.testing.assert_array_equal(images_of(answer), shipped.images(3, 0, 20)[0][:, 0])


def test_without_a_model_it_is_alive_but_not_ready_and_the_log_says_why(tmp_path):
    with serving(tmp_path, MNIST_GAN_MODEL=str(tmp_path / "nothing.onnx")) as (client, _):
        assert client.get("/livez").status_code == 200
        for answer in (client.get("/readyz"), client.post("/generate"), client.post("/card"), client.get("/card")):
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready")
    log = (tmp_path / "service.log").read_text()
    assert "nothing.onnx: No such file or directory" in log
    assert "Traceback" not in log


@pytest.mark.slow
def test_a_gpu_that_was_asked_for_and_cannot_be_used_is_an_error(files, tmp_path):
    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("onnxruntime-gpu is installed, there may be a GPU")
    with serving(tmp_path, MNIST_GAN_MODEL=str(files["conditional"]), MNIST_GAN_DEVICE="cuda") as (client, _):
        assert client.get("/readyz").status_code == 503
    assert "CUDAExecutionProvider" in (tmp_path / "service.log").read_text()


@pytest.mark.slow
def test_a_damaged_model_is_not_served_and_the_log_says_why(files, tmp_path):
    (tmp_path / "a.onnx").write_bytes(files["conditional"].read_bytes()[:-7])
    with serving(tmp_path, MNIST_GAN_MODEL=str(tmp_path / "a.onnx")) as (client, _):
        assert client.get("/readyz").status_code == 503
    assert "a.onnx: checksum: the file is " in (tmp_path / "service.log").read_text()


def test_the_newest_model_of_the_store_is_served_and_sigterm_ends_it(files, tmp_path):
    register(Generator.open(files["unconditional"]))
    newest = Generator.open(files["conditional"])
    register(newest)
    with serving(tmp_path, BENTOML_HOME=os.environ["BENTOML_HOME"]) as (client, server):
        assert client.get("/card").json()["file_sha256"] == newest.card.file_sha256
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=20) in (0, -signal.SIGTERM)


@pytest.mark.parametrize("kind", ["unconditional", "conditional"])
def test_the_openapi_examples_work_as_they_stand_and_answer_what_is_declared(servers, kind):
    client = servers[kind]
    paths = client.get("/docs.json").json()["paths"]
    assert ("/write" in paths) == (kind == "conditional")
    for path, operations in paths.items():
        if "post" in operations:
            body = operations["post"]["requestBody"]["content"]["application/json"]["example"]
            answer = client.post(path, json=body)
            declared = operations["post"]["responses"]["200"]
            assert answer.status_code == 200, (path, answer.text)
            assert answer.headers["content-type"] in declared["content"]
            assert {"x-seed", "x-model"} & set(answer.headers) == {name.lower() for name in declared["headers"]}
        else:
            assert client.get(path).status_code == 200


def test_the_page_that_tries_the_api_out_loads_nothing_from_elsewhere(client):
    page = client.get("/")
    assert page.status_code == 200
    assert "swagger-ui" in page.text
    assert "//" not in page.text.replace("<!DOCTYPE", "")


def metric(client: httpx.Client, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def test_metrics_keep_nothing_of_paths_that_are_not_there(client):
    for number in range(3):
        assert client.get(f"/in-vain/{number}").status_code == 404
    told = client.get("/metrics").text
    assert "in-vain" not in told
    assert 'endpoint="/generate"' in told


def test_metrics_count_the_images_of_a_route_the_runs_that_made_them_and_what_was_refused(client, generator):
    names = {
        'mnist_gan_images_total{route="/dataset"}': 300,
        "mnist_gan_batch_images_sum": 300,
        "mnist_gan_queue_seconds_count": 1,
        'mnist_gan_encode_seconds_count{route="/dataset"}': 1,
        'mnist_gan_rejected_total{reason="invalid_input"}': 1,
        "mnist_gan_waiting_images": 0,
    }
    before = {name: metric(client, name) for name in names}
    client.post("/dataset", json={"n": 300})
    client.post("/dataset", json={"n": 0})
    assert {name: metric(client, name) - before[name] for name in names} == names
    assert f'file_sha256="{generator.card.file_sha256}"' in client.get("/metrics").text
