"""The command export-site, and its page without a server in a real browser."""

import hashlib
import io
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from playwright.sync_api import Browser, Page, expect

from models.common.checksum import EMPTY_CHECKSUM
from models.common.errors import InputError, ModelFileError
from models.onnx_file.generator import Generator
from models.onnx_file.golden import GOLDEN_BOUNDS, pack_golden
from models.onnx_file.labels import LabelParser
from models.onnx_file.latents import INDEX_LIMIT, draw_latents
from models.onnx_file.session import open_session
from models.onnx_file.store import SHIPPED
from serving.offline.export_site import MODEL_FILE, ONNXRUNTIME_WEB
from tests.models.onnx_file.graph_draft import model_file, small_card
from tests.serving.playground import INSECURE_HOST, cell, expected_grid, picture, pixels, settle, violations
from tools.service_process import serving
from tools.static_server import StaticServer, static_server

BIN = Path(sys.executable).parent
MODEL = SHIPPED.with_stem("mnist-fast")
ULP = 1
"""Largest difference of a latent, in steps between neighbouring float32 numbers."""


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A site with the model mnist-fast."""
    if not shutil.which("npm"):
        pytest.skip("no npm: install it (Debian: apt-get install npm)")
    folder = tmp_path_factory.mktemp("export") / "site"
    done = export_site(MODEL, "--out", folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def server(site) -> Iterator[StaticServer]:
    with static_server(site) as server:
        yield server


@pytest.fixture(scope="module")
def scripts(browser: Browser, server: StaticServer) -> Iterator[Page]:
    """An open page, in which tests call functions of the scripts."""
    page = open_page(browser, server)
    yield page
    page.close()


def export_site(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [BIN / "export-site", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment or None)


def open_page(browser: Browser, server: StaticServer, fragment: str = "", **options) -> Page:
    """Opens the page of a site. Any message in its console, such as a violation of the policy, fails the test."""
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"], **options)
    page = context.new_page()
    messages: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.goto(server.url() + fragment)
    page.wait_for_selector("#grid[aria-busy=false], #error:not([hidden])")
    page.wait_for_timeout(300)
    assert messages == []
    return page


def assert_same_images(actual: np.ndarray, expected: np.ndarray) -> None:
    """Checks that two runtimes drew the same uint8 images.

    onnxruntime-web and onnxruntime add numbers in different orders, so a pixel near the edge between two levels may
    differ by one. Which pixels these are depends on the processor.
    """
    off = np.abs(actual.astype(int) - expected)
    assert off.max() <= 1
    assert (off > 0).sum() <= max(8, off.size / 10_000), f"{(off > 0).sum()} of {off.size} pixels differ"


def test_an_archive_with_another_hash_is_refused(tmp_path):
    archive = tmp_path / "onnxruntime-web.tgz"
    archive.write_bytes(b"changed")
    done = export_site(MODEL, "--out", tmp_path / "site", "--onnxruntime-web", archive)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"export-site: {archive}: its SHA-512 is {hashlib.sha512(b'changed').hexdigest()}; "
        f"onnxruntime-web {ONNXRUNTIME_WEB.version} has {ONNXRUNTIME_WEB.sha512}\n"
    )
    assert not (tmp_path / "site").exists()


def test_a_machine_without_npm_is_asked_for_the_archive(tmp_path):
    done = export_site(MODEL, "--out", tmp_path / "site", PATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith("export-site: npm is not installed, which downloads onnxruntime-web: install Node.js")
    assert f"`npm pack onnxruntime-web@{ONNXRUNTIME_WEB.version}`" in done.stderr


def test_a_damaged_model_file_is_refused_before_anything_is_downloaded(tmp_path):
    damaged = tmp_path / "a.onnx"
    damaged.write_bytes(MODEL.read_bytes()[:-1])
    done = export_site(damaged, "--out", tmp_path / "site", PATH=str(tmp_path))
    assert done.stderr.startswith(f"export-site: {damaged}: checksum: the file is damaged")


@pytest.mark.slow
def test_the_folder_is_complete_and_has_at_most_16_mb(site, tmp_path):
    files = [file for file in site.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 16_000_000
    assert (site / MODEL_FILE).read_bytes() == MODEL.read_bytes()
    done = export_site(MODEL, "--out", site / "index.html")
    assert done.stderr == (
        f"export-site: {site / 'index.html'}: is a file; give a folder, which export-site creates if it is missing\n"
    )


@pytest.mark.slow
def test_the_page_shows_the_images_of_the_service(browser, server, tmp_path):
    fields = {"seed": 2**53 - 1, "first": 2**53 - 300, "n": 256, "labels": "0123456789", "truncation": 0.9}
    page = open_page(browser, server, "#" + "&".join(f"{name}={value}" for name, value in fields.items()))
    shown = picture(page).reshape(26, 28, 10, 28).swapaxes(1, 2).reshape(-1, 28, 28)[:256]
    with serving(tmp_path, MNIST_GAN_MODEL=str(MODEL)) as (client, _):
        response = client.post("/dataset", json=fields)
    with np.load(io.BytesIO(response.content)) as arrays:
        assert_same_images(shown, arrays["images"])
        names = [f"Image {fields['first'] + i}, label {label}" for i, label in enumerate(arrays["labels"])]
    assert page.locator("#cells button").evaluate_all("cells => cells.map(cell => cell.ariaLabel)") == names
    page.close()


@pytest.mark.slow
def test_every_control_works_without_another_request(browser, server, tmp_path):
    page = open_page(browser, server)
    requests = len(server.log)
    assert_same_images(picture(page), expected_grid(80, 7, model=MODEL))
    page.get_by_label("Seed", exact=True).fill("11")
    page.get_by_label("First index").fill("5")
    page.get_by_label("Labels").fill("")
    page.get_by_role("slider", name="Number of images").fill("20")
    page.get_by_label("Truncation").press("Home")
    page.get_by_label("Truncation").fill("0.5")
    settle(page)
    assert_same_images(picture(page), expected_grid(20, 11, 5, None, 0.5, columns=16, model=MODEL))

    cell(page, 5).click()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    settle(page)
    page.get_by_role("button", name="Pause").click()
    page.get_by_label("Frame").fill("23")
    np.testing.assert_array_equal(picture(page, "animation"), picture(page, "image"))
    page.get_by_label("Text", exact=True).fill("2026")
    settle(page)
    assert_same_images(picture(page, "text-image"), expected_grid(4, 11, 0, "2026", 0.5, model=MODEL))

    with page.expect_download() as download:
        page.get_by_role("button", name="Download PNG").click()
    grid = pixels(download.value.path().read_bytes())
    np.testing.assert_array_equal(grid, np.kron(picture(page), np.ones((2, 2), np.uint8)))
    with page.expect_download() as download:
        page.get_by_role("button", name="Download image").click()
    image = pixels(download.value.path().read_bytes())
    np.testing.assert_array_equal(image, np.kron(picture(page, "image"), np.ones((8, 8), np.uint8)))
    with page.expect_download() as download:
        page.get_by_role("button", name="Download .npz").click()
    images, labels = Generator.open(MODEL).images(11, 5, 1000, truncation=0.5)
    with np.load(io.BytesIO(download.value.path().read_bytes())) as arrays:
        assert_same_images(arrays["images"], images[:, 0])
        np.testing.assert_array_equal(arrays["labels"], labels)

    page.get_by_role("button", name="Copy sample command").click()
    expect(page.get_by_role("status")).to_have_text("sample command copied")
    command = page.evaluate("navigator.clipboard.readText()")
    shutil.copy(MODEL, tmp_path / MODEL_FILE)
    subprocess.run(f"{BIN}/{command}", shell=True, check=True, cwd=tmp_path, capture_output=True)
    assert_same_images(pixels((tmp_path / "digits.png").read_bytes()), grid)
    page.get_by_role("button", name="Copy link", exact=True).click()
    expect(page.get_by_role("status")).to_have_text("Link copied")
    assert len(server.log) == requests

    linked = page.context.new_page()
    linked.goto(page.evaluate("navigator.clipboard.readText()"))
    settle(linked)
    np.testing.assert_array_equal(picture(linked), picture(page))
    assert linked.locator("#notice").is_hidden()
    page.context.close()


def changed_files() -> dict[str, bytes]:
    """Returns files that a check must reject, by the name of the change."""
    file = MODEL.read_bytes()
    model, card = onnx.load_from_string(file), replace(Generator.open(MODEL).card, file_sha256=EMPTY_CHECKSUM)
    brighter = np.clip(Generator.open(MODEL).images(0, 0, 16)[0].astype(int) + 2, 0, 255).astype(np.uint8)
    golden = replace(card.golden, pixels=pack_golden(brighter))
    return {
        "a flipped bit": file[:-50_000] + bytes([file[-50_000] ^ 1]) + file[-49_999:],
        "a truncated file": file[:100_000],
        "another card version": model_file(model, replace(card, card_version=2)),
        "another latents version": model_file(model, replace(card, latents_version=2)),
        "other golden images": model_file(model, replace(card, golden=golden)),
    }


@pytest.mark.slow
@pytest.mark.parametrize(("change", "file"), changed_files().items(), ids=list(changed_files()))
def test_a_file_that_python_refuses_is_refused_with_the_same_words(browser, site, change, file):
    with pytest.raises(ModelFileError) as refused:
        Generator.from_bytes(file)
    with static_server(site, {MODEL_FILE: file}) as server:
        page = open_page(browser, server)
        assert page.get_by_role("alert").inner_text() == str(refused.value)
        assert page.locator("#cells button").count() == 0
        page.close()


@pytest.mark.slow
def test_without_https_the_page_says_that_it_cannot_verify_the_file_and_stops(browser, server):
    page = browser.new_page()
    page.goto(server.url(INSECURE_HOST))
    page.get_by_role("alert").wait_for()
    assert page.get_by_role("alert").inner_text().startswith("This page cannot verify the model file: ")
    assert page.locator("#cells button").count() == 0
    page.close()


@pytest.mark.slow
def test_a_colour_model_without_classes_runs(browser, site, tmp_path):
    shape = (3, 8, 12)
    weights = np.random.default_rng(0).uniform(0, 255, (4, int(np.prod(shape)))).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["latent", "weights"], ["levels"]),
            helper.make_node("Reshape", ["levels", "shape"], ["shaped"]),
            helper.make_node("Round", ["shaped"], ["rounded"]),
            helper.make_node("Clip", ["rounded", "low", "high"], ["clipped"]),
            helper.make_node("Cast", ["clipped"], ["image"], to=TensorProto.UINT8),
        ],
        "colour",
        [helper.make_tensor_value_info("latent", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", *shape])],
        [
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(np.array([-1, *shape], np.int64), "shape"),
            numpy_helper.from_array(np.float32(0), "low"),
            numpy_helper.from_array(np.float32(255), "high"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    latents, _ = draw_latents(0, 0, 2, 4)
    (images,) = open_session(model.SerializeToString()).run(["image"], {"latent": latents})
    golden = replace(small_card().golden, pixels=pack_golden(images))
    file = model_file(model, replace(small_card(), image_shape=shape, conditional=False, golden=golden))
    (tmp_path / "colour.onnx").write_bytes(file)
    with static_server(site, {MODEL_FILE: file}) as server:
        page = open_page(browser, server)
        assert "colour images of 12" in page.locator("#model").inner_text()
        shown = picture(page, mode="RGB")
        drawn = expected_grid(80, 7, labels=None, columns=16, model=tmp_path / "colour.onnx")
        assert_same_images(shown, drawn)
        with page.expect_download() as download:
            page.get_by_role("button", name="Download PNG").click()
        downloaded = pixels(download.value.path().read_bytes(), "RGB")
        np.testing.assert_array_equal(downloaded, np.kron(shown, np.ones((2, 2, 1), np.uint8)))
        page.get_by_label("Images in the .npz").fill("70")
        with page.expect_download() as download:
            page.get_by_role("button", name="Download .npz").click()
        with np.load(io.BytesIO(download.value.path().read_bytes())) as arrays:
            expected, _ = Generator.from_bytes(file).images(7, 0, 70)
            assert list(arrays) == ["images"]
            assert_same_images(arrays["images"], expected.transpose(0, 2, 3, 1))
        page.close()


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_is_accessible_and_fits(browser, server, axe, width, tmp_path):
    page = open_page(browser, server, viewport={"width": width, "height": 900})
    cell(page, 3).click()
    cell(page, 4).click()
    settle(page)
    assert violations(page, axe) == []
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.screenshot(path=tmp_path / f"{width}.png", full_page=True)
    page.close()


@pytest.mark.slow
@given(
    seed=st.integers(0, INDEX_LIMIT - 1),
    first=st.integers(0, INDEX_LIMIT - 50),
    n=st.integers(1, 50),
    size=st.integers(1, 130),
    counts=st.lists(st.integers(0, 2**32 - 1), max_size=20).filter(lambda counts: not counts or sum(counts)),
)
@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_latents_and_labels_are_those_of_python(scripts, seed, first, n, size, counts):
    expected, expected_labels = draw_latents(seed, first, n, size, counts)
    drawn = scripts.evaluate(
        """async (values) => {
            const { drawLatents } = await import("./playground/browser/latents.js");
            const { latents, labels } = drawLatents(...values);
            return [Array.from(latents), labels];
        }""",
        [seed, first, n, size, counts],
    )
    latents, labels = np.array(drawn[0], np.float32).reshape(n, size), drawn[1]
    np.testing.assert_array_max_ulp(latents, expected, ULP, np.float32)
    assert labels == (None if expected_labels is None else expected_labels.tolist())


@pytest.mark.slow
@pytest.mark.parametrize("counter", [0, 2**32 - 3, 2**64 - 3, 2**128 - 2, 2**256 - 2])
@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1, 2**53 - 1, 2**64 - 1])
def test_random_words_are_those_of_numpy_where_the_counter_overflows(scripts, seed, counter):
    halves = scripts.evaluate(
        """async ([seed, counter]) => {
            const { randomWords } = await import("./playground/browser/philox.js");
            return Array.from(randomWords(BigInt(seed), BigInt(counter), 5));
        }""",
        [str(seed), str(counter)],
    )
    words = np.array(halves, np.uint32).view("<u8")
    np.testing.assert_array_equal(words, np.random.Philox(key=seed, counter=counter).random_raw(20))


NAMES = {
    "digits": list("0123456789"),
    "words": ["cats", "dogs"],
    "numbers": ["1", "2", "10"],
    "commas": ["cats, dogs", "birds"],
    "letters": list("aé'\"\\"),
    "many": [f"class {i}" for i in range(1_200)],
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", NAMES)
def test_labels_are_parsed_as_in_python(scripts, kind):
    names = NAMES[kind]
    texts = ["", "10", "3, 8", "0123456789", "dogs", "dogs, cats", "1,0", "cats, dogs", "dogs,0", "007", "-1", "x" * 80]
    texts += [",", " 1 ", "aé", "'", '"', "a'\"b", "\\", "٣", "class 7,class 1199", "1199", "1200", "birds,cats"]
    parser = LabelParser(names)
    expected: list[object] = []
    for text in texts:
        try:
            expected.append(parser.parse(text))
        except InputError as error:
            expected.append(str(error))
    parsed = scripts.evaluate(
        """async ([names, texts]) => {
            const { Labels } = await import("./playground/labels.js");
            const labels = new Labels(names);
            return texts.map((text) => { try { return labels.parse(text); } catch (error) { return error.message; } });
        }""",
        [names, texts],
    )
    assert dict(zip(texts, parsed, strict=True)) == dict(zip(texts, expected, strict=True))


@pytest.mark.slow
def test_the_bounds_of_golden_images_are_those_of_python(scripts):
    bounds = scripts.evaluate("import('./playground/browser/golden.js').then((golden) => golden.GOLDEN_BOUNDS)")
    assert {precision: tuple(bound) for precision, bound in bounds.items()} == GOLDEN_BOUNDS
