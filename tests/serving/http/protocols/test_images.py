"""Images by URL: pictures, fields, caching, and the token."""

import io
import re
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from PIL import Image

from models.onnx_file.generator import Generator
from models.onnx_file.store import SHIPPED
from serving.http.protocols.images import classes_of_text
from tests.serving.http.messages import error_field, error_of
from tests.serving.http.protocols.documented import commands, run
from tests.serving.http.renamed_classes import write_with_class_names
from tools.service_process import serving

HASH = Generator.open(SHIPPED).card.file_sha256
TOKEN = {"authorization": "Bearer secret"}


@pytest.fixture(scope="module")
def client(tmp_path_factory) -> Iterator[httpx.Client]:
    with serving(tmp_path_factory.mktemp("images"), MNIST_GAN_MODEL=str(SHIPPED)) as (client, _):
        yield client


def pixels(response: httpx.Response) -> np.ndarray:
    """Returns the pixels of a grey picture."""
    assert response.status_code == 200, response.text
    with Image.open(io.BytesIO(response.content)) as image:
        assert response.headers["content-type"] == image.get_format_mimetype()
        return np.asarray(image.convert("L"))


def generated_images(client: httpx.Client) -> float:
    """Returns the number of images that the network has made for responses."""
    lines = client.get("/metrics").raise_for_status().text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("mnist_gan_images_total"))


@pytest.mark.parametrize("format", ["png", "webp"])
def test_an_image_is_the_one_that_its_seed_index_and_label_identify(client, format):
    generator = Generator.open(SHIPPED)
    drawn = pixels(client.get(f"/images/7/3.{format}?scale=1"))
    np.testing.assert_array_equal(drawn, generator.images(7, 3, 1)[0][0, 0])
    labelled = pixels(client.get(f"/images/7/3.{format}", params={"label": "5", "scale": 3, "truncation": 0.5}))
    expected = generator.images(7, 3, 1, "5", 0.5)[0][0, 0]
    np.testing.assert_array_equal(labelled, expected.repeat(3, 0).repeat(3, 1))


@pytest.mark.parametrize("format", ["png", "webp"])
def test_a_text_is_the_one_that_post_write_returns(client, format):
    by_url = client.get(f"/write/9.{format}", params={"text": "2026", "scale": 3})
    posted = client.post("/write", json={"text": "2026", "seed": 9, "scale": 3})
    np.testing.assert_array_equal(pixels(by_url), pixels(posted))
    assert by_url.headers["x-seed"] == "9"
    assert by_url.headers["x-model"] == HASH


@pytest.mark.parametrize("first", [0, 1, 2, 3, 40, 2**53 - 3])
def test_the_text_begins_with_the_image_first(client, first):
    written = pixels(client.get("/write/9.png", params={"text": "374", "scale": 1, "first": first}))
    images = [Generator.open(SHIPPED).images(9, first + i, 1, text)[0][0, 0] for i, text in enumerate("374")]
    np.testing.assert_array_equal(written, np.hstack(images))


@pytest.mark.parametrize(("size", "scale"), [("56x28", 1), ("100x100", 1), ("256x64", 2), ("2048x2048", 36)])
def test_a_text_with_a_size_is_enlarged_as_much_as_fits_and_centred(client, size, scale):
    width, height = map(int, size.split("x"))
    picture = pixels(client.get("/write/9.png", params={"text": "37", "size": size}))
    assert picture.shape == (height, width)
    row = pixels(client.get("/write/9.png", params={"text": "37", "scale": 1})).repeat(scale, 0).repeat(scale, 1)
    top, left = (height - row.shape[0]) // 2, (width - row.shape[1]) // 2
    np.testing.assert_array_equal(picture[top : top + row.shape[0], left : left + row.shape[1]], row)
    assert picture.sum() == row.sum(), "the background is black"


@pytest.mark.parametrize(
    ("path", "field", "message"),
    [
        ("/images/x/3.png", "seed", "integer"),
        ("/images/-1/3.png", "seed", "integer"),
        ("/images/1_0/3.png", "seed", "digits"),
        (f"/images/{2**53}/3.png", "seed", "less than"),
        ("/images/7/3.5.png", "index", "digits"),
        (f"/images/7/{2**53}.png", "index", "less than"),
        ("/images/7/3.png?label=37", "label", "give one class"),
        ("/images/7/3.png?label=x", "label", "the classes are"),
        ("/images/7/3.png?scale=17", "scale", "16"),
        ("/images/7/3.png?truncation=nan", "truncation", "finite"),
        ("/images/7/3.png?seed=8", "seed", "part of the path"),
        ("/images/7/3.png?labels=3", "labels", "label, scale"),
        ("/images/7/3.png?scale=2&scale=2", None, "only once"),
        ("/images/7/3.png?v=123", "v", "pattern"),
        ("/write/7.png", "text", "required"),
        ("/write/7.png?text=3x", "text", "'x' is not a class"),
        (f"/write/7.png?text={'3' * 65}", "text", "at most 64"),
        ("/write/7.png?text=37&size=256", "size", "pattern"),
        ("/write/7.png?text=37&size=15x100", "size", "16 to 2,048"),
        ("/write/7.png?text=37&size=100x2049", "size", "16 to 2,048"),
        ("/write/7.png?text=37&size=55x28", "size", "the smallest size is 56x28"),
        ("/write/7.png?text=37&size=64x64&scale=2", "scale", "either size or scale"),
        (f"/write/7.png?text=37&first={2**53 - 1}", "first", "2^53"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_invalid_field_is_a_400_that_names_it_and_is_not_cached(client, method, path, field, message):
    response = client.request(method, path)
    assert response.status_code == 400
    assert response.headers["cache-control"] == "no-store"
    if method == "GET":
        assert error_field(response) == (400, field)
        assert message in error_of(response)["message"]


@pytest.mark.parametrize(
    "path", ["/images/7", "/images/7/3", "/images/7/3.gif", "/images/7/3/4.png", "/images/7/3.png/", "/write/.png"]
)
def test_another_path_is_a_404(client, path):
    assert client.get(path).status_code == 404


def test_an_unknown_model_is_a_404_that_names_the_model_of_the_service(client):
    response = client.get("/images/7/3.png?model=other")
    assert error_field(response) == (404, "model")
    assert "mnist-gan" in error_of(response)["message"]
    assert client.get("/images/7/3.png?model=mnist-gan").status_code == 200


@pytest.mark.parametrize("path", ["/images/7/3.png?label=5", "/write/7.webp?text=37"])
def test_a_picture_with_the_hash_of_the_model_file_never_changes(client, path):
    for digits in (12, 64):
        response = client.get(f"{path}&v={HASH[:digits]}")
        assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert response.content == client.get(path).content
    assert client.get(path).headers["cache-control"] == "no-cache"


def test_the_hash_of_another_model_file_is_a_404_with_the_hash_of_the_served_one(client):
    response = client.get(f"/images/7/3.png?v={'0' * 12}")
    assert error_field(response) == (404, "v")
    assert HASH in error_of(response)["message"]
    assert response.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("form", ["{0}", '"x", {0}', "{1}", "*"])
def test_a_valid_tag_is_a_304_that_does_not_run_the_network(client, form):
    first = client.get("/images/7/3.png")
    before = generated_images(client)
    tag = first.headers["etag"]
    assert re.fullmatch(r'W/"[0-9a-f]{32}"', tag)
    for path in ("/images/7/3.png", "/images/7/3.png?scale=2", "/images/07/3.png?truncation=1"):
        for method in ("GET", "HEAD"):
            headers = {"if-none-match": form.format(tag, tag.removeprefix("W/"))}
            response = client.request(method, path, headers=headers)
            assert (response.status_code, response.content) == (304, b"")
            assert {name: response.headers[name] for name in ("etag", "cache-control", "x-model")} == {
                name: first.headers[name] for name in ("etag", "cache-control", "x-model")
            }
    assert generated_images(client) == before


def test_pictures_that_differ_have_different_tags(client):
    label = Generator.open(SHIPPED).images(7, 3, 1)[1][0]
    paths = [
        *("/images/7/3.png", "/images/7/3.webp", "/images/8/3.png", "/images/7/4.png", "/images/7/3.png?scale=3"),
        *("/images/7/3.png?truncation=0.9", f"/images/7/3.png?label={(label + 1) % 10}"),
        *("/write/7.png?text=37", "/write/7.png?text=73", "/write/7.png?text=37&first=2", "/write/7.webp?text=37"),
        *("/write/7.png?text=37&size=56x28", "/write/7.png?text=37&size=60x28", "/write/7.png?text=37&scale=1"),
    ]
    tags = [client.head(path).headers["etag"] for path in paths]
    assert len(set(tags)) == len(paths)
    other = client.get("/images/7/4.png", headers={"if-none-match": tags[0]})
    assert other.status_code == 200


def test_head_has_the_headers_of_get_and_does_not_run_the_network(client):
    path = f"/write/7.png?text=37&v={HASH}"
    get = client.get(path)
    before = generated_images(client)
    head = client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    varying = {"date", "content-length"}
    assert {name: value for name, value in head.headers.items() if name not in varying} == {
        name: value for name, value in get.headers.items() if name not in varying
    }
    assert generated_images(client) == before


def test_the_metrics_have_templates_instead_of_paths(client):
    client.get("/images/31/41.png").raise_for_status()
    client.get("/images/31/41.nothing")
    text = client.get("/metrics").text
    assert 'mnist_gan_images_total{model="mnist-gan",route="/images/{seed}/{index}.png"}' in text
    assert 'endpoint="/images/{seed}/{index}.png",http_response_code="200"' in text
    assert "41" not in "".join(re.findall(r'"(/[^"]*)"', text))


@pytest.mark.parametrize(
    ("names", "text", "written"),
    [
        (["cat", "dog"], "dog,cat", ["dog", "cat"]),
        (["cat", "dog"], "dog", ["dog"]),
        (["a", "b", "ten"], "ba", ["b", "a"]),
        (["a", "b", "ten"], "ten", ["ten"]),
        (["a", "b", "ten"], "ten,a", ["ten", "a"]),
    ],
)
def test_longer_class_names_are_separated_by_commas(tmp_path_factory, names, text, written):
    names = names + [f"other {i}" for i in range(10 - len(names))]
    folder = tmp_path_factory.mktemp("names")
    write_with_class_names(folder / "names.onnx", names)
    assert [names[index] for index in classes_of_text(Generator.open(folder / "names.onnx").card, text)] == written


def test_a_model_without_classes_has_images_but_no_labels_and_no_texts(unconditional_client):
    assert unconditional_client.get("/images/7/3.png").status_code == 200
    assert error_field(unconditional_client.get("/images/7/3.png?label=3")) == (400, "label")
    assert error_field(unconditional_client.get("/write/7.png?text=3")) == (400, "text")
    paths = unconditional_client.get("/docs.json").json()["paths"]
    assert "/images/{seed}/{index}.png" in paths
    assert "/write/{seed}.png" not in paths


def test_with_a_token_the_pictures_need_it_and_are_private(tmp_path):
    with serving(tmp_path, MNIST_GAN_MODEL=str(SHIPPED), MNIST_GAN_API_TOKEN="secret") as (client, _):
        response = client.get("/images/7/3.png")
        assert error_field(response) == (401, None)
        assert (response.headers["cache-control"], response.headers["www-authenticate"]) == ("no-store", "Bearer")
        response = client.get("/images/7/3.png", headers=TOKEN)
        assert (response.status_code, response.headers["cache-control"]) == (200, "private, no-cache")
        response = client.get(f"/images/7/3.png?v={HASH}", headers=TOKEN)
        assert response.headers["cache-control"] == "private, max-age=31536000, immutable"


def test_public_images_need_no_token_and_the_other_routes_do(tmp_path):
    settings = {"MNIST_GAN_API_TOKEN": "secret", "MNIST_GAN_PUBLIC_IMAGES": "1"}
    with serving(tmp_path, MNIST_GAN_MODEL=str(SHIPPED), **settings) as (client, _):
        response = client.get(f"/images/7/3.png?v={HASH}")
        assert (response.status_code, response.headers["cache-control"]) == (200, "public, max-age=31536000, immutable")
        assert client.get("/write/7.png?text=3").status_code == 200
        assert client.post("/write", json={"text": "3"}).status_code == 401
        assert "security" not in client.get("/docs.json").json()["paths"]["/write/{seed}.png"]["get"]


def test_protocols_that_are_turned_off_have_no_routes(tmp_path):
    with serving(tmp_path, MNIST_GAN_MODEL=str(SHIPPED), MNIST_GAN_PROTOCOLS="none") as (client, _):
        assert error_field(client.get("/images/7/3.png")) == (404, None)
        assert client.post("/write", json={"text": "3"}).status_code == 200
        assert not [path for path in client.get("/docs.json").json()["paths"] if "{" in path]


@pytest.mark.slow
def test_the_commands_of_the_page_run(client, tmp_path):
    blocks = commands("images.md")
    assert len(blocks) == 2
    output = [run(language, code, str(client.base_url).rstrip("/"), tmp_path) for language, code in blocks]
    for name, size in (("five.png", (112, 112)), ("year.webp", (512, 128))):
        with Image.open(tmp_path / name) as image:
            assert image.size == size
    (address,) = re.findall(r'src="(.*?)"', output[1])
    assert "immutable" in httpx.get(address).raise_for_status().headers["cache-control"]
