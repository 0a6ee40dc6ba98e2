"""OpenAI's API for images: prompts, sizes, formats, seeds, and errors."""

import base64
import io
import re
import string
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from PIL import Image

from models.common.errors import InputError
from models.onnx_file.generator import Generator
from models.onnx_file.store import SHIPPED
from serving.http.protocols.prompts import PromptReader
from tools.service_process import ROOT, serving

PATH = "/v1/images/generations"
GENERATOR = Generator.open(SHIPPED)
CLASSES = {
    "0 to 9": tuple("0123456789"),
    "cat, dog, ankle boot": ("cat", "dog", "ankle boot"),
    "a to z": tuple(string.ascii_lowercase),
}
EXAMPLES = re.findall(r"^\| (.+?) \| `(.+?)` \| (.+?) \|$", (ROOT / "docs/openai.md").read_text(), flags=re.MULTILINE)
EXAMPLES = [example for example in EXAMPLES if example[0] in CLASSES]


@pytest.fixture(scope="module")
def client(tmp_path_factory) -> Iterator[httpx.Client]:
    with serving(tmp_path_factory.mktemp("openai"), MNIST_GAN_MODEL=str(SHIPPED)) as (client, _):
        yield client


def pictures(response: httpx.Response, format: str = "PNG") -> list[np.ndarray]:
    """Returns the pixels of all pictures of a response."""
    assert response.status_code == 200, response.text
    found = []
    for each in response.json()["data"]:
        with Image.open(io.BytesIO(base64.b64decode(each["b64_json"]))) as image:
            assert image.format == format
            found.append(np.asarray(image.convert("L")))
    return found


def error(response: httpx.Response) -> tuple[int, str, str | None, str]:
    """Returns status, message, parameter and code of an error, and checks its format."""
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return response.status_code, body["error"]["message"], body["error"]["param"], body["error"]["code"]


def row(text: str, first: int = 0, seed: int = 7) -> np.ndarray:
    """Returns the images of a text in a row."""
    return np.hstack([GENERATOR.images(seed, first + i, 1, character)[0][0, 0] for i, character in enumerate(text)])


def test_the_page_has_twelve_examples():
    assert len(EXAMPLES) == 12


@pytest.mark.parametrize(("classes", "prompt", "drawn"), EXAMPLES)
def test_a_prompt_of_the_page_draws_the_classes_that_it_says(classes, prompt, drawn):
    names = CLASSES[classes]
    reader = PromptReader(names)
    if drawn == "error":
        with pytest.raises(InputError, match=f"the classes are {names[0]}, {names[1]}"):
            reader.read(prompt)
    else:
        assert [names[index] for index in reader.read(prompt)] == drawn.split(", ")


@pytest.mark.parametrize(
    ("names", "prompt", "drawn"),
    [
        (("A", "a", "b"), "B a A", ["b", "a", "A"]),
        (("boot", "ankle boot"), "an ankle boot and a boot", ["ankle boot", "boot"]),
        (("1", "0", "10"), "10 and 01", ["10", "0", "1"]),
        (("cat", "a"), "a cat", ["a", "cat"]),
        (("cat", "a"), "draw a cat", ["cat"]),
        (("c++", "c"), "write c++ now", ["c++"]),
        (("straße",), "eine STRASSE", ["straße"]),
    ],
)
def test_further_prompts(names, prompt, drawn):
    assert [names[index] for index in PromptReader(names).read(prompt)] == drawn


def test_the_text_of_a_prompt_is_drawn_as_a_row(client):
    response = client.post(PATH, json={"prompt": "draw 42 please", "size": "56x28", "seed": 7})
    np.testing.assert_array_equal(pictures(response), [row("42")])
    assert response.headers["x-seed"] == "7"
    assert response.headers["x-model"] == GENERATOR.card.file_sha256


def test_each_picture_begins_where_the_previous_one_ended(client):
    response = client.post(PATH, json={"prompt": "374", "size": "84x28", "seed": 7, "n": 10})
    np.testing.assert_array_equal(pictures(response), [row("374", first=3 * i) for i in range(10)])


def test_the_same_prompt_and_seed_give_the_same_bytes_and_no_seed_gives_others(client):
    data = [client.post(PATH, json={"prompt": "3", "seed": 7}).json()["data"] for _ in range(2)]
    assert data[0] == data[1]
    random = [client.post(PATH, json={"prompt": "3"}).json() for _ in range(2)]
    assert random[0]["data"] != random[1]["data"]
    again = client.post(PATH, json={"prompt": "3", "seed": random[0]["seed"]}).json()
    assert again["data"] == random[0]["data"]


@pytest.mark.parametrize(
    ("size", "shape", "scale"),
    [("256x256", (256, 256), 4), ("100x300", (300, 100), 1), ("56x28", (28, 56), 1), ("2048x16", None, 0)],
)
def test_the_row_is_enlarged_by_a_whole_factor_and_centred(client, size, shape, scale):
    response = client.post(PATH, json={"prompt": "37", "size": size, "seed": 7})
    if shape is None:
        assert error(response)[:3] == (400, error(response)[1], "size")
        assert "the smallest size is 56x28" in error(response)[1]
        return
    (picture,) = pictures(response)
    expected = row("37").repeat(scale, 0).repeat(scale, 1)
    top, left = (shape[0] - expected.shape[0]) // 2, (shape[1] - expected.shape[1]) // 2
    assert picture.shape == shape
    np.testing.assert_array_equal(picture[top:, left:][: expected.shape[0], : expected.shape[1]], expected)
    assert picture.sum() == expected.sum()


@pytest.mark.parametrize(("text", "size"), [("3", "252x252"), ("1234567890", "1960x196"), ("1" * 64, "1792x28")])
@pytest.mark.parametrize("auto", [{}, {"size": "auto"}, {"size": None}])
def test_the_automatic_size_has_no_margin(client, text, size, auto):
    response = client.post(PATH, json={"prompt": text, "seed": 7, **auto})
    assert response.json()["size"] == size
    assert pictures(response)[0].shape == tuple(map(int, reversed(size.split("x"))))


@pytest.mark.parametrize("format", ["png", "webp", "jpeg"])
def test_each_format_has_the_picture(client, format):
    response = client.post(PATH, json={"prompt": "3", "size": "28x28", "seed": 7, "output_format": format})
    (picture,) = pictures(response, format.upper())
    assert np.abs(picture.astype(int) - row("3")).max() <= (8 if format == "jpeg" else 0)


@pytest.mark.parametrize("format", ["webp", "jpeg"])
def test_a_lower_quality_gives_smaller_files(client, format):
    request = {"prompt": "0123456789", "seed": 7, "output_format": format, "size": "2048x256"}
    sizes = [
        len(client.post(PATH, json=request | {"output_compression": quality}).json()["data"][0]["b64_json"])
        for quality in (0, 50, 99)
    ]
    assert sizes == sorted(set(sizes))


def test_null_and_fields_without_effect_are_accepted(client):
    plain = client.post(PATH, json={"prompt": "3", "seed": 7}).json()["data"]
    ignored = {"background": "transparent", "moderation": "low", "partial_images": 2, "quality": "hd", "style": 3}
    ignored |= {"user": "me", "stream": False}
    assert client.post(PATH, json={"prompt": "3", "seed": 7, **ignored}).json()["data"] == plain
    names = [*ignored, "n", "size", "model", "response_format", "output_format", "output_compression", "truncation"]
    assert client.post(PATH, json={"prompt": "3", "seed": 7, **dict.fromkeys(names)}).json()["data"] == plain


@pytest.mark.parametrize("format", ["png", "webp"])
def test_an_address_gives_the_picture(client, format):
    request = {"prompt": "37", "size": "100x64", "seed": 7, "n": 3, "truncation": 0.7, "output_format": format}
    expected = pictures(client.post(PATH, json=request), format.upper())
    response = client.post(PATH, json=request | {"response_format": "url", "model": "mnist-gan"}).json()
    for picture, each in zip(expected, response["data"], strict=True):
        answer = httpx.get(each["url"])
        assert "immutable" in answer.headers["cache-control"]
        with Image.open(io.BytesIO(answer.content)) as image:
            np.testing.assert_array_equal(np.asarray(image.convert("L")), picture)


@pytest.mark.parametrize(
    ("request_json", "param", "text"),
    [
        ({}, "prompt", "required"),
        ({"prompt": ""}, "prompt", "at least 1"),
        ({"prompt": "3" * 4_001}, "prompt", "4000"),
        ({"prompt": "3" * 65}, "prompt", "at most 64"),
        ({"prompt": "a cat"}, "prompt", "the classes are 0, 1, 2"),
        ({"prompt": "3", "n": 0}, "n", "greater than"),
        ({"prompt": "3", "n": 11}, "n", "less than"),
        ({"prompt": "3", "n": "1"}, "n", "integer"),
        ({"prompt": "3", "size": "15x20"}, "size", "16 to 2,048"),
        ({"prompt": "3", "size": "large"}, "size", "pattern"),
        ({"prompt": "3", "output_format": "gif"}, "output_format", "png"),
        ({"prompt": "3", "output_compression": 101}, "output_compression", "less than"),
        ({"prompt": "3", "seed": -1}, "seed", "greater than"),
        ({"prompt": "3", "stream": True}, "stream", "no partial images"),
        ({"prompt": "3", "sead": 1}, "sead", "not permitted"),
        ({"prompt": "3", "response_format": "url", "output_format": "jpeg"}, "response_format", "Use b64_json"),
        ([], None, "should be an object"),
    ],
)
def test_an_invalid_field_is_an_error_that_names_it(client, request_json, param, text):
    status, message, name, code = error(client.post(PATH, json=request_json))
    assert (status, name, code) == (400, param, "invalid_input")
    assert text in message


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/models/other", 404, "model_not_found"),
        ("GET", "/v1/other", 404, "unknown_url"),
        ("POST", "/v1/images/edits", 400, "invalid_input"),
        ("POST", "/v1/images/variations", 400, "invalid_input"),
        ("GET", PATH, 405, "method_not_allowed"),
    ],
)
def test_other_routes_are_errors_in_the_format_of_openai(client, method, path, status, code):
    response = client.request(method, path)
    assert (error(response)[0], error(response)[3]) == (status, code)


def test_an_unknown_model_is_a_404(client):
    assert error(client.post(PATH, json={"prompt": "3", "model": "gpt-image-1"}))[2:] == ("model", "model_not_found")


def test_the_models_are_listed(client):
    (model,) = client.get("/v1/models").json()["data"]
    assert (model["id"], model["object"], model["owned_by"]) == ("mnist-gan", "model", "mnist-gan")
    assert client.get("/v1/models/mnist-gan").json() == model


def test_addresses_need_images_by_url_without_a_token(tmp_path):
    settings = {"MNIST_GAN_MODEL": str(SHIPPED), "MNIST_GAN_API_TOKEN": "secret"}
    with serving(tmp_path, **settings) as (client, _):
        request = {"prompt": "3", "response_format": "url"}
        response = client.post(PATH, json=request, headers={"authorization": "Bearer secret"})
        assert error(response)[2] == "response_format"
        assert "need the token" in error(response)[1]


def test_a_model_without_classes_draws_no_prompt(unconditional_client):
    status, message, param, _ = error(unconditional_client.post(PATH, json={"prompt": "3"}))
    assert (status, param) == (400, "prompt")
    assert "without classes" in message
    assert PATH not in unconditional_client.get("/docs.json").json()["paths"]
