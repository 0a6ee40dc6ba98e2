"""The playground, in a real browser with the real server."""

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
from tools.service_process import ROOT, serving

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
    """The open playground. Fails if the console has messages afterwards, such as violations of the policy."""
    context = browser.new_context(
        accept_downloads=True,
        permissions=["clipboard-read", "clipboard-write"],
        viewport={"width": 1000, "height": 900},
    )
    page = context.new_page()
    messages: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.goto(f"{server}/playground")
    settle(page)
    yield page
    context.close()
    assert messages == []


def settle(page) -> None:
    """Waits until the page shows the requested images."""
    page.wait_for_timeout(300)
    page.wait_for_selector("#grid[aria-busy=false]")
    page.wait_for_load_state("networkidle")


def picture(page, element: str = "grid-image") -> bytes:
    """Returns an image element of the page as a PNG file."""
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


def same_pixels(a: bytes, b: bytes) -> bool:
    pixels = [np.asarray(Image.open(io.BytesIO(data)).convert("L")) for data in (a, b)]
    return np.array_equal(*pixels)


def expected_grid(n: int, seed: int, first: int = 0, labels: str = "0123456789", truncation: float = 1.0) -> bytes:
    images, _ = Generator.open(SHIPPED).images(seed, first, n, labels, truncation)
    return png(grid(images, columns=min(n, 16), scale=2))


def test_the_page_is_small_and_its_policy_allows_only_its_own_files(tmp_path):
    assert sum(file.stat().st_size for file in PAGE.iterdir()) < 60_000
    with serving(tmp_path, MNIST_GAN_API_TOKEN="secret") as (client, _):
        for path, media_type in (("", "text/html"), ("/style.css", "text/css"), ("/script.js", "text/javascript")):
            response = client.get(f"/playground{path}")
            assert response.status_code == 200
            assert response.headers["content-type"].startswith(media_type)
            assert response.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
        assert client.get("/playground/nothing.js").status_code == 404


@pytest.mark.slow
def test_the_grid_follows_seed_labels_truncation_and_count(page):
    assert same_pixels(picture(page), expected_grid(80, 7))
    page.get_by_label("Seed", exact=True).fill("11")
    page.get_by_label("First index").fill("5")
    page.get_by_label("Labels").fill("38")
    page.get_by_role("slider", name="Number of images").fill("20")
    page.get_by_label("Truncation").fill("0.5")
    settle(page)
    assert same_pixels(picture(page), expected_grid(20, 11, 5, "38", 0.5))
    page.get_by_role("button", name="Random seed").click()
    settle(page)
    seed = int(page.get_by_label("Seed", exact=True).input_value())
    assert same_pixels(picture(page), expected_grid(20, seed, 5, "38", 0.5))


@pytest.mark.slow
def test_two_images_selected_by_mouse_or_keyboard_are_interpolated(page):
    assert page.locator("#animation").is_hidden()
    page.get_by_role("button", name="Image 3", exact=True).click()
    page.get_by_role("button", name="Image 0", exact=True).focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    settle(page)
    assert page.get_by_role("button", name="Image 17", exact=True).get_attribute("aria-pressed") == "true"
    assert page.get_by_alt_text("Interpolation from image 3 to image 17").is_visible()
    assert page.locator("#animation").evaluate("image => image.naturalWidth") == 28 * 8


@pytest.mark.slow
def test_labels_are_sent_to_the_service_as_they_are_typed(page):
    page.get_by_label("Labels").fill(" 3 , 8")
    settle(page)
    assert same_pixels(picture(page), expected_grid(80, 7, labels=" 3 , 8"))
    sent: list[dict] = []
    page.on("request", lambda request: sent.append(request.post_data_json) if request.method == "POST" else None)
    page.get_by_role("button", name="Image 3", exact=True).click()
    page.get_by_role("button", name="Image 4", exact=True).click()
    settle(page)
    assert sent[-1]["from"] == {"seed": 7, "index": 3, "labels": " 3 , 8"}
    assert page.get_by_alt_text("Interpolation from image 3 to image 4").is_visible()


@pytest.mark.slow
def test_a_typed_number_is_shown_in_generated_handwriting(page):
    before = picture(page, "text-image")
    page.get_by_label("Text", exact=True).fill("2026")
    settle(page)
    assert picture(page, "text-image") != before
    assert page.get_by_alt_text("2026 in generated handwriting").evaluate("image => image.naturalWidth") == 4 * 28 * 2


@pytest.mark.slow
def test_downloads_have_the_images_that_are_shown(page, tmp_path):
    with page.expect_download() as download:
        page.get_by_role("button", name="Download PNG").click()
    assert same_pixels(download.value.path().read_bytes(), expected_grid(80, 7))
    with page.expect_download() as download:
        page.get_by_role("button", name="Download .npz").click()
    arrays = np.load(io.BytesIO(download.value.path().read_bytes()))
    images, labels = Generator.open(SHIPPED).images(7, 0, 80, "0123456789")
    np.testing.assert_array_equal(arrays["images"], images[:, 0])
    np.testing.assert_array_equal(arrays["labels"], labels)


@pytest.mark.slow
def test_the_copied_request_and_curl_command_reproduce_the_images(page, tmp_path):
    page.get_by_role("button", name="Copy request as JSON").click()
    page.get_by_text("Request copied").wait_for()
    address = json.loads(page.evaluate("navigator.clipboard.readText()"))
    assert address.pop("model") == Generator.open(SHIPPED).card.file_sha256
    assert address == {"seed": 7, "first": 0, "n": 80, "labels": "0123456789"}
    page.get_by_role("button", name="Copy curl command").click()
    page.get_by_text("curl command copied").wait_for()
    subprocess.run(
        page.evaluate("navigator.clipboard.readText()"), shell=True, check=True, cwd=tmp_path, capture_output=True
    )
    assert same_pixels((tmp_path / "digits.png").read_bytes(), expected_grid(80, 7))


@pytest.mark.slow
def test_an_invalid_seed_shows_an_error_until_it_is_corrected(page):
    page.get_by_label("Seed", exact=True).fill("-1")
    page.get_by_role("alert").wait_for()
    assert page.get_by_role("alert").inner_text().startswith("seed: ")
    page.get_by_label("Seed", exact=True).fill("1")
    page.get_by_role("alert").wait_for(state="hidden")


@pytest.mark.slow
def test_an_error_of_the_service_is_shown(browser, server):
    page = browser.new_page()
    page.goto(f"{server}/playground")
    settle(page)
    page.get_by_label("Labels").fill("x")
    page.get_by_role("alert").wait_for()
    assert page.get_by_role("alert").inner_text().startswith("labels: ")
    page.close()


@pytest.mark.slow
def test_a_model_without_classes_has_no_fields_for_labels_and_text(browser, files, tmp_path):
    with serving(tmp_path, MNIST_GAN_MODEL=str(files["unconditional"])) as (client, _):
        page = browser.new_page()
        page.goto(f"{client.base_url}/playground")
        settle(page)
        assert page.get_by_alt_text("80 generated images, 16 per row").is_visible()
        assert page.get_by_label("Labels").is_hidden()
        assert page.get_by_label("Text", exact=True).is_hidden()
        page.close()


@pytest.mark.slow
def test_the_page_sends_the_token_that_is_typed_into_it(browser, tmp_path):
    with serving(tmp_path, MNIST_GAN_API_TOKEN="secret") as (client, _):
        page = browser.new_page()
        page.goto(f"{client.base_url}/playground")
        page.get_by_role("alert").wait_for()
        page.get_by_text("API token", exact=True).click()
        page.get_by_label("Token, if the service requires one").fill("secret")
        page.get_by_alt_text("80 generated images").wait_for()
        page.get_by_role("alert").wait_for(state="hidden")
        page.close()
