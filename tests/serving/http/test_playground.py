"""The page to play with, in a real browser against the real server."""

import io
import json
import shutil
import subprocess
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from models.common.image_files import grid, png
from models.onnx_file.generator import Generator
from models.onnx_file.store import SHIPPED
from tests.serving.http.server import ROOT, serving

PAGE = ROOT / "serving/http/playground"


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("playground"), MNIST_GAN_MODEL=str(SHIPPED)) as (client, _):
        yield str(client.base_url)


@pytest.fixture(scope="module")
def browser():
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if not executable:
        pytest.skip("no chromium: install it (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, server):
    """The page, opened; afterwards nothing may be in the console, violations of its policy included."""
    context = browser.new_context(
        accept_downloads=True,
        permissions=["clipboard-read", "clipboard-write"],
        viewport={"width": 1000, "height": 900},
    )
    page = context.new_page()
    told: list[str] = []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.goto(f"{server}/playground")
    settle(page)
    yield page
    context.close()
    assert told == []


def settle(page) -> None:
    """Waits until what was asked for is shown."""
    page.wait_for_timeout(300)
    page.wait_for_selector("#sheet[aria-busy=false]")
    page.wait_for_load_state("networkidle")


def picture(page, element: str = "picture") -> bytes:
    """The bytes behind an image of the page."""
    numbers = page.evaluate(
        """async (id) => [...new Uint8Array(await (await new Promise((done) => {
            const image = document.getElementById(id);
            const canvas = Object.assign(document.createElement("canvas"), {
                width: image.naturalWidth, height: image.naturalHeight });
            canvas.getContext("2d").drawImage(image, 0, 0);
            canvas.toBlob(done);
        })).arrayBuffer())]""",
        element,
    )
    return bytes(numbers)


def same_pixels(one: bytes, other: bytes) -> bool:
    pixels = [np.asarray(Image.open(io.BytesIO(data)).convert("L")) for data in (one, other)]
    return np.array_equal(*pixels)


def drawn(n: int, seed: int, first: int = 0, labels: str = "0123456789", truncation: float = 1.0) -> bytes:
    images, _ = Generator.open(SHIPPED).images(seed, first, n, labels, truncation)
    return png(grid(images, columns=min(n, 16), scale=2))


def test_the_page_is_small_and_its_policy_lets_nothing_in_from_elsewhere(tmp_path):
    assert sum(file.stat().st_size for file in PAGE.iterdir()) < 60_000
    with serving(tmp_path, MNIST_GAN_API_TOKEN="secret") as (client, _):
        for path, media_type in (("", "text/html"), ("/style.css", "text/css"), ("/script.js", "text/javascript")):
            answer = client.get(f"/playground{path}")
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith(media_type)
            assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
        assert client.get("/playground/nothing.js").status_code == 404


@pytest.mark.slow
def test_the_sheet_follows_seed_labels_truncation_and_count(page):
    assert same_pixels(picture(page), drawn(80, 7))
    page.get_by_label("Seed", exact=True).fill("11")
    page.get_by_label("First image").fill("5")
    page.get_by_label("Labels").fill("38")
    page.get_by_role("slider", name="Images").fill("20")
    page.get_by_label("Truncation").fill("0.5")
    settle(page)
    assert same_pixels(picture(page), drawn(20, 11, 5, "38", 0.5))
    page.get_by_role("button", name="Another seed").click()
    settle(page)
    seed = int(page.get_by_label("Seed", exact=True).input_value())
    assert same_pixels(picture(page), drawn(20, seed, 5, "38", 0.5))


@pytest.mark.slow
def test_two_images_chosen_with_the_mouse_or_the_keyboard_turn_into_each_other(page):
    assert page.locator("#film").is_hidden()
    page.get_by_role("button", name="Image 3", exact=True).click()
    page.get_by_role("button", name="Image 0", exact=True).focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    settle(page)
    assert page.get_by_role("button", name="Image 17", exact=True).get_attribute("aria-pressed") == "true"
    assert page.get_by_alt_text("Image 3 turning into image 17").is_visible()
    assert page.locator("#film").evaluate("image => image.naturalWidth") == 28 * 8


@pytest.mark.slow
def test_labels_go_to_the_service_as_they_are_typed(page):
    page.get_by_label("Labels").fill(" 3 , 8")
    settle(page)
    assert same_pixels(picture(page), drawn(80, 7, labels=" 3 , 8"))
    sent: list[dict] = []
    page.on("request", lambda request: sent.append(request.post_data_json) if request.method == "POST" else None)
    page.get_by_role("button", name="Image 3", exact=True).click()
    page.get_by_role("button", name="Image 4", exact=True).click()
    settle(page)
    assert sent[-1]["from"] == {"seed": 7, "index": 3, "labels": " 3 , 8"}
    assert page.get_by_alt_text("Image 3 turning into image 4").is_visible()


@pytest.mark.slow
def test_a_number_is_written(page):
    before = picture(page, "strip")
    page.get_by_label("A number").fill("2026")
    settle(page)
    assert picture(page, "strip") != before
    assert page.get_by_alt_text("2026 in generated handwriting").evaluate("image => image.naturalWidth") == 4 * 28 * 2


@pytest.mark.slow
def test_downloads_are_what_is_shown(page, tmp_path):
    with page.expect_download() as download:
        page.get_by_role("button", name="Download PNG").click()
    assert same_pixels(download.value.path().read_bytes(), drawn(80, 7))
    with page.expect_download() as download:
        page.get_by_role("button", name="Download .npz").click()
    arrays = np.load(io.BytesIO(download.value.path().read_bytes()))
    images, labels = Generator.open(SHIPPED).images(7, 0, 80, "0123456789")
    np.testing.assert_array_equal(arrays["images"], images[:, 0])
    np.testing.assert_array_equal(arrays["labels"], labels)


@pytest.mark.slow
def test_the_address_and_the_curl_that_it_copies_give_what_is_shown(page, tmp_path):
    page.get_by_role("button", name="Copy address").click()
    page.get_by_text("Address copied").wait_for()
    address = json.loads(page.evaluate("navigator.clipboard.readText()"))
    assert address.pop("model") == Generator.open(SHIPPED).card.file_sha256
    assert address == {"seed": 7, "first": 0, "n": 80, "labels": "0123456789"}
    page.get_by_role("button", name="Copy curl").click()
    page.get_by_text("curl copied").wait_for()
    subprocess.run(
        page.evaluate("navigator.clipboard.readText()"), shell=True, check=True, cwd=tmp_path, capture_output=True
    )
    assert same_pixels((tmp_path / "sheet.png").read_bytes(), drawn(80, 7))


@pytest.mark.slow
def test_what_the_page_can_see_is_wrong_is_told_and_gone_when_mended(page):
    page.get_by_label("Seed", exact=True).fill("-1")
    page.get_by_role("alert").wait_for()
    assert page.get_by_role("alert").inner_text().startswith("seed: ")
    page.get_by_label("Seed", exact=True).fill("1")
    page.get_by_role("alert").wait_for(state="hidden")


@pytest.mark.slow
def test_what_the_service_refuses_is_told_in_its_words(browser, server):
    page = browser.new_page()
    page.goto(f"{server}/playground")
    settle(page)
    page.get_by_label("Labels").fill("x")
    page.get_by_role("alert").wait_for()
    assert page.get_by_role("alert").inner_text().startswith("labels: ")
    page.close()


@pytest.mark.slow
def test_without_classes_there_is_nothing_to_label_or_to_write(browser, files, tmp_path):
    with serving(tmp_path, MNIST_GAN_MODEL=str(files["unconditional"])) as (client, _):
        page = browser.new_page()
        page.goto(f"{client.base_url}/playground")
        settle(page)
        assert page.get_by_alt_text("80 generated images, 16 a row").is_visible()
        assert page.get_by_label("Labels").is_hidden()
        assert page.get_by_label("A number").is_hidden()
        page.close()


@pytest.mark.slow
def test_a_token_typed_into_the_page_opens_the_service(browser, tmp_path):
    with serving(tmp_path, MNIST_GAN_API_TOKEN="secret") as (client, _):
        page = browser.new_page()
        page.goto(f"{client.base_url}/playground")
        page.get_by_role("alert").wait_for()
        page.get_by_text("Token", exact=True).click()
        page.get_by_label("If the service asks for one").fill("secret")
        page.get_by_alt_text("80 generated images").wait_for()
        page.get_by_role("alert").wait_for(state="hidden")
        page.close()
