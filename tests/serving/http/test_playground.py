"""The playground, in a real browser with the real server."""

import io
import re
import subprocess
from collections.abc import Iterator

import numpy as np
import pytest
from playwright.sync_api import expect

from models.onnx_file.generator import Generator
from models.onnx_file.store import SHIPPED
from tests.serving.http.renamed_classes import write_with_class_names
from tests.serving.playground import INSECURE_HOST, cell, expected_grid, picture, pixels, settle, violations
from tools.service_process import ROOT, serving

PAGE = ROOT / "serving/http/playground"
OTHER_MODEL = SHIPPED.with_stem("mnist-fast")


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("playground"), MNIST_GAN_MODEL=str(SHIPPED)) as (client, _):
        yield str(client.base_url)


@pytest.fixture
def context(browser) -> Iterator:
    """A browser window that may use the clipboard."""
    context = browser.new_context(
        accept_downloads=True,
        permissions=["clipboard-read", "clipboard-write"],
        viewport={"width": 1000, "height": 900},
    )
    yield context
    context.close()


@pytest.fixture
def page(context, server):
    """The open playground. Fails if the console has messages afterwards, such as violations of the policy."""
    page = context.new_page()
    messages: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.goto(f"{server}/playground")
    settle(page)
    yield page
    assert messages == []


def contrast(*colours: str) -> float:
    """Returns the contrast of two colours, such as "rgb(1, 2, 3)", as WCAG 2.2 defines it."""
    levels = [np.array(re.findall(r"[\d.]+", colour)[:3], float) / 255 for colour in colours]
    linear = [np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4) for level in levels]
    dark, light = sorted(float(level @ (0.2126, 0.7152, 0.0722)) for level in linear)
    return (light + 0.05) / (dark + 0.05)


def clipboard(page) -> str:
    return page.evaluate("navigator.clipboard.readText()")


def test_the_page_is_small_and_its_policy_allows_only_its_own_files(tmp_path):
    assert sum(file.stat().st_size for file in PAGE.rglob("*") if file.is_file()) < 90_000
    media_types = {".css": "text/css", ".js": "text/javascript"}
    paths = {f"/{file.name}": media_types[file.suffix] for file in PAGE.iterdir() if file.suffix in media_types}
    with serving(tmp_path, MNIST_GAN_API_TOKEN="secret") as (client, _):
        for path, media_type in {"": "text/html", **paths}.items():
            response = client.get(f"/playground{path}")
            assert response.status_code == 200
            assert response.headers["content-type"].startswith(media_type)
            assert response.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
        assert client.get("/playground/nothing.js").status_code == 404


@pytest.mark.slow
def test_the_grid_follows_seed_labels_truncation_and_count(page):
    np.testing.assert_array_equal(picture(page), expected_grid(80, 7))
    page.get_by_label("Seed", exact=True).fill("11")
    page.get_by_label("First index").fill("5")
    page.get_by_label("Labels").fill("38")
    page.get_by_role("slider", name="Number of images").fill("20")
    page.get_by_label("Truncation").fill("0.5")
    settle(page)
    np.testing.assert_array_equal(picture(page), expected_grid(20, 11, 5, "38", 0.5, columns=16))
    page.get_by_role("button", name="Random seed").click()
    settle(page)
    seed = int(page.get_by_label("Seed", exact=True).input_value())
    np.testing.assert_array_equal(picture(page), expected_grid(20, seed, 5, "38", 0.5, columns=16))


@pytest.mark.slow
def test_the_page_describes_the_model(page):
    header = page.locator("header").inner_text()
    assert header.startswith("mnist\n")
    assert "28 \N{MULTIPLICATION SIGN} 28 pixels of the classes 0 1 2 3 4 5 6 7 8 9" in header
    assert "1.1 MB" in header
    assert "FID 0.0605, 2.1 times the value of real images, 99.0 %" in header


@pytest.mark.slow
def test_an_image_is_enlarged_and_two_are_interpolated(page):
    expect(page.locator("#selection")).to_be_hidden()
    cell(page, 3).click()
    assert page.get_by_text("Image 3, label 3, seed 7").is_visible()
    np.testing.assert_array_equal(picture(page, "image"), expected_grid(1, 7, 3))
    expect(page.locator("#interpolation")).to_be_hidden()
    expect(page.get_by_role("status")).to_have_text("Image 3 is selected; select another to interpolate")
    cell(page, 0).focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    settle(page)
    assert cell(page, 11).get_attribute("aria-selected") == "true"
    assert page.get_by_role("img", name="Interpolation from image 3 to image 11").is_visible()
    expect(page.get_by_role("status")).to_have_text("Images 3 and 11 are selected; the interpolation is shown")
    page.keyboard.press("Escape")
    expect(page.locator("#selection")).to_be_hidden()
    expect(page.get_by_role("status")).to_have_text("No image is selected")


@pytest.mark.slow
def test_the_image_of_the_page_can_be_downloaded_and_linked(page, context):
    cell(page, 13).click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download image").click()
    np.testing.assert_array_equal(pixels(download.value.path().read_bytes()), expected_grid(1, 7, 13, scale=8))
    page.get_by_role("button", name="Copy link to image").click()
    expect(page.get_by_role("status")).to_have_text("Link to the image copied")
    linked = context.new_page()
    linked.goto(clipboard(page))
    settle(linked)
    assert linked.get_by_text("Image 13, label 3, seed 7").is_visible()


@pytest.mark.slow
@pytest.mark.parametrize("fields", [None, ["seed", "index", "label", "scale", "truncation"]])
def test_the_url_of_an_image_is_shown_if_the_service_has_a_route_for_it(browser, server, fields):
    page = browser.new_page()

    def change_route(route) -> None:
        document = route.fetch().json()
        operation = document["paths"].pop("/images/{seed}/{index}.png")
        if fields:
            operation["get"]["parameters"] = [{"name": name} for name in fields]
            document["paths"]["/images/{seed}/{index}.png"] = operation
        route.fulfill(json=document)

    page.route("**/docs.json", change_route)
    page.goto(f"{server}/playground#truncation=0.5")
    settle(page)
    cell(page, 13).click()
    shown = [f"{server}/images/7/13.png?label=3&truncation=0.5&scale=8"] if fields else []
    assert page.locator("#image-url a:visible").all_inner_texts() == shown
    page.close()


@pytest.mark.slow
def test_another_model_than_before_is_reported(browser, server):
    page = browser.new_page()
    page.goto(f"{server}/playground")
    settle(page)
    page.route("**/dataset", lambda route: route.fulfill(body=b"", headers={"x-model": "0" * 64}))
    page.get_by_role("button", name="Random seed").click()
    expect(page.get_by_role("alert")).to_have_text("The service serves another model than before: reload the page")
    page.close()


@pytest.mark.slow
def test_keys_move_by_the_rows_that_are_shown_and_focus_survives_a_redraw(page):
    cell(page, 12).focus()
    page.keyboard.press("ArrowUp")
    assert page.evaluate("document.activeElement.ariaLabel") == "Image 2, label 2"
    page.keyboard.press("End")
    assert page.evaluate("document.activeElement.ariaLabel") == "Image 9, label 9"
    page.evaluate("document.querySelector('[name=labels]').value = '012'")
    page.evaluate("document.querySelector('#request').dispatchEvent(new Event('input'))")
    settle(page)
    assert page.evaluate("document.activeElement.ariaLabel") == "Image 9, label 0"
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.ariaLabel") == "Image 24, label 0"  # three classes: 15 in a row


@pytest.mark.slow
def test_the_animation_can_be_paused_and_its_frames_chosen(page):
    cell(page, 3).click()
    cell(page, 4).click()
    settle(page)
    page.get_by_role("button", name="Pause").click()
    paused = picture(page, "animation")
    page.wait_for_timeout(200)
    np.testing.assert_array_equal(picture(page, "animation"), paused)
    page.get_by_label("Frame").fill("0")
    np.testing.assert_array_equal(picture(page, "animation"), expected_grid(1, 7, 3))
    page.get_by_label("Frame").fill("23")
    np.testing.assert_array_equal(picture(page, "animation"), expected_grid(1, 7, 4))
    page.get_by_role("button", name="Play").click()
    page.wait_for_timeout(200)
    assert page.get_by_label("Frame").input_value() != "23"


@pytest.mark.slow
def test_the_animation_does_not_start_for_users_who_prefer_reduced_motion(browser, server):
    page = browser.new_page(reduced_motion="reduce")
    page.goto(f"{server}/playground")
    settle(page)
    cell(page, 3).click()
    cell(page, 4).click()
    settle(page)
    page.wait_for_timeout(200)
    assert page.get_by_label("Frame").input_value() == "0"
    assert page.get_by_role("button", name="Play").is_visible()
    page.close()


@pytest.mark.slow
def test_labels_are_sent_to_the_service_as_they_are_typed(page):
    page.get_by_label("Labels").fill(" 3 , 8")
    settle(page)
    np.testing.assert_array_equal(picture(page), expected_grid(80, 7, labels=" 3 , 8", columns=16))
    sent: list[dict] = []
    page.on("request", lambda request: sent.append(request.post_data_json) if request.method == "POST" else None)
    cell(page, 3).click()
    cell(page, 4).click()
    settle(page)
    assert sent[-1]["from"] == {"seed": 7, "index": 3, "labels": " 3 , 8"}


@pytest.mark.slow
def test_a_typed_number_is_shown_in_generated_handwriting(page):
    page.get_by_label("Text", exact=True).fill("2026")
    settle(page)
    assert page.get_by_role("img", name="2026 in generated handwriting").is_visible()
    np.testing.assert_array_equal(picture(page, "text-image"), expected_grid(4, 7, labels="2026"))
    page.get_by_label("Text", exact=True).fill("20x6")
    expect(page.get_by_role("alert")).to_have_text(
        re.compile("^text: 'x' is not a class; the classes of one character")
    )


@pytest.mark.slow
def test_downloads_have_the_images_that_are_shown_and_npz_any_allowed_number(page):
    with page.expect_download() as download:
        page.get_by_role("button", name="Download PNG").click()
    np.testing.assert_array_equal(pixels(download.value.path().read_bytes()), expected_grid(80, 7, scale=2))
    page.get_by_label("Images in the .npz").fill("2500")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download .npz").click()
    arrays = np.load(io.BytesIO(download.value.path().read_bytes()))
    images, labels = Generator.open(SHIPPED).images(7, 0, 2500, "0123456789")
    np.testing.assert_array_equal(arrays["images"], images[:, 0])
    np.testing.assert_array_equal(arrays["labels"], labels)
    assert page.get_by_label("Images in the .npz").get_attribute("max") == "10000"


@pytest.mark.slow
def test_the_copied_curl_command_requests_the_grid(page, tmp_path):
    page.get_by_role("button", name="Copy curl command").click()
    expect(page.get_by_role("status")).to_have_text("curl command copied")
    subprocess.run(clipboard(page), shell=True, check=True, cwd=tmp_path, capture_output=True)
    np.testing.assert_array_equal(pixels((tmp_path / "digits.png").read_bytes()), expected_grid(80, 7, scale=2))
    command = page.locator("#command")
    assert command.evaluate("element => element.scrollWidth <= element.clientWidth")  # it wraps


@pytest.mark.slow
def test_a_link_shows_the_same_images(page, context):
    page.get_by_label("Seed", exact=True).fill("9007199254740991")
    page.get_by_label("First index").fill("17")
    page.get_by_label("Labels").fill("")
    page.get_by_label("Truncation").fill("0.37")
    settle(page)
    cell(page, 20).click()
    page.get_by_role("button", name="Copy link", exact=True).click()
    expect(page.get_by_role("status")).to_have_text("Link copied")
    linked = context.new_page()
    linked.goto(clipboard(page))
    settle(linked)
    expected = expected_grid(80, 2**53 - 1, 17, None, 0.37, columns=16)
    np.testing.assert_array_equal(picture(page), expected)
    np.testing.assert_array_equal(picture(linked), expected)
    assert linked.get_by_text(re.compile("^Image 20, label ., seed 9007199254740991$")).is_visible()
    assert linked.locator("#notice").is_hidden()


@pytest.mark.slow
def test_a_link_to_another_model_says_so(page, server):
    sha256 = Generator.open(OTHER_MODEL).card.file_sha256
    page.goto(f"{server}/playground#model={sha256}&seed=3")
    settle(page)
    assert page.locator("#notice").inner_text().startswith(f"The link is to another model, {sha256}.")
    np.testing.assert_array_equal(picture(page), expected_grid(80, 3, labels=None, columns=16))


@pytest.mark.slow
def test_copying_works_without_https(browser, server):
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{server.replace('127.0.0.1', INSECURE_HOST)}/playground")
    settle(page)
    assert page.evaluate("[isSecureContext, typeof navigator.clipboard]") == [False, "undefined"]
    page.get_by_role("button", name="Copy curl command").click()
    expect(page.get_by_role("status")).to_have_text("curl command copied")
    assert page.evaluate("document.activeElement.id") == "copy-command"
    page.get_by_label("Text", exact=True).fill("")
    page.get_by_label("Text", exact=True).press("Control+V")
    assert page.get_by_label("Text", exact=True).input_value().startswith("curl -X POST")
    context.close()


@pytest.mark.slow
def test_an_invalid_seed_shows_an_error_until_it_is_corrected(page):
    page.get_by_label("Seed", exact=True).fill("-1")
    page.get_by_role("alert").wait_for()
    assert page.get_by_role("alert").inner_text().startswith("seed: ")
    page.get_by_label("Seed", exact=True).fill("1")
    page.get_by_role("alert").wait_for(state="hidden")


@pytest.mark.slow
def test_an_error_of_the_service_is_shown_and_leaves_nothing_dimmed(browser, server):
    page = browser.new_page()
    page.goto(f"{server}/playground")
    settle(page)
    page.get_by_label("Labels").fill("x")
    page.get_by_role("alert").wait_for()
    assert page.get_by_role("alert").inner_text().startswith("labels: ")
    assert page.locator("#grid").get_attribute("aria-busy") == "false"
    with page.expect_download() as download:  # of the images that are still shown
        page.get_by_role("button", name="Download PNG").click()
    np.testing.assert_array_equal(pixels(download.value.path().read_bytes()), expected_grid(80, 7, scale=2))
    page.close()


@pytest.mark.slow
@pytest.mark.parametrize(("text", "shown"), [("upstream is down", "upstream is down"), ("", "HTTP 502 Bad Gateway")])
def test_an_error_that_is_not_json_is_shown_as_text(browser, server, text, shown):
    page = browser.new_page()
    page.goto(f"{server}/playground")
    settle(page)
    page.route("**/dataset", lambda route: route.fulfill(status=502, body=text))
    page.get_by_role("button", name="Random seed").click()
    page.get_by_role("alert").wait_for()
    assert page.get_by_role("alert").inner_text() == shown
    assert page.locator("#grid").get_attribute("aria-busy") == "false"
    page.close()


@pytest.mark.slow
def test_a_model_without_classes_has_no_fields_for_labels_and_text(browser, unconditional_client):
    page = browser.new_page()
    page.goto(f"{unconditional_client.base_url}/playground")
    settle(page)
    assert page.locator("#grid-image").evaluate("canvas => canvas.width") == 16 * 28
    page.get_by_role("gridcell", name="Image 3", exact=True).click()
    assert page.get_by_text("Image 3, seed 7").is_visible()
    assert page.get_by_label("Labels").is_hidden()
    assert page.get_by_label("Text", exact=True).is_hidden()
    page.close()


@pytest.mark.slow
def test_each_model_of_the_service_has_a_link_and_all_requests_are_for_the_chosen_one(browser, axe, tmp_path):
    with serving(tmp_path, MNIST_GAN_MODEL=f"large={SHIPPED},small={OTHER_MODEL}") as (client, _):
        page = browser.new_page(accept_downloads=True)
        page.goto(f"{client.base_url}/playground")
        settle(page)
        links = page.get_by_role("navigation", name="Models of the service")
        expect(links.locator("[aria-current=page]")).to_have_text("large")
        links.get_by_role("link", name="small").click()
        settle(page)
        expect(links.locator("[aria-current=page]")).to_have_text("small")
        expect(page.locator("#name")).to_have_text("mnist-fast")
        np.testing.assert_array_equal(picture(page), expected_grid(80, 7, model=OTHER_MODEL))
        assert '"model":"small"' in page.locator("#command").inner_text()
        cell(page, 3).click()
        settle(page)
        png = page.request.get(page.locator("#image-url a").get_attribute("href")).body()
        np.testing.assert_array_equal(pixels(png), expected_grid(1, 7, 3, "3", scale=8, model=OTHER_MODEL))
        assert violations(page, axe) == []
        page.goto(f"{client.base_url}/playground?model=medium")
        message = "model: There is no model 'medium'; the models are large, small"
        expect(page.get_by_role("alert")).to_have_text(message)
        page.close()


@pytest.mark.slow
def test_a_model_whose_classes_are_words_has_labels_but_no_handwriting(browser, tmp_path):
    names = ("t-shirt", "ankle boot", "bag")
    write_with_class_names(tmp_path / "clothes.onnx", [*names, *(f"item {i}" for i in range(7))])
    with serving(tmp_path, MNIST_GAN_MODEL=str(tmp_path / "clothes.onnx")) as (client, _):
        page = browser.new_page()
        page.goto(f"{client.base_url}/playground")
        settle(page)
        assert page.get_by_label("Labels").input_value().startswith("t-shirt, ankle boot, bag, item 0")
        assert page.get_by_role("gridcell", name="Image 12, label bag", exact=True).is_visible()
        assert page.locator("#handwriting").is_hidden()
        page.close()


@pytest.mark.slow
def test_the_token_panel_opens_and_sends_the_token_when_it_is_submitted(browser, axe, tmp_path):
    with serving(tmp_path, MNIST_GAN_API_TOKEN="secret") as (client, _):
        page = browser.new_page()
        sent: list[str] = []
        page.on("request", lambda request: sent.append(request.url))
        page.goto(f"{client.base_url}/playground")
        page.get_by_role("alert").wait_for()
        field = page.get_by_label("Token that the service requires")
        expect(field).to_be_focused()
        expect(page.get_by_role("alert")).to_have_text("The service requires its API token: enter it below")
        assert violations(page, axe) == []
        page.wait_for_load_state("networkidle")
        before = len(sent)
        page.keyboard.type("secret")
        page.wait_for_timeout(300)
        assert len(sent) == before
        page.keyboard.press("Enter")
        settle(page)
        np.testing.assert_array_equal(picture(page), expected_grid(80, 7))
        page.get_by_role("alert").wait_for(state="hidden")
        expect(field).to_be_hidden()
        assert "authorization: Bearer $TOKEN" in page.locator("#command").inner_text()
        page.close()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280, 1920])
def test_the_page_is_accessible_and_fits_in_light_and_dark(browser, server, axe, scheme, width):
    page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
    page.goto(f"{server}/playground")
    settle(page)
    cell(page, 3).click()
    cell(page, 4).click()
    settle(page)
    page.get_by_label("Labels").fill("x")
    page.get_by_role("alert").wait_for()
    assert violations(page, axe) == []
    border = page.locator("#png").evaluate("button => getComputedStyle(button).borderColor")
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert contrast(border, paper) >= 3
    assert page.evaluate("document.documentElement.scrollWidth") == width
    top = {id: page.locator(f"#{id}").bounding_box()["y"] for id in ("grid", "handwriting", "request")}
    if width == 390:
        assert top["grid"] < top["handwriting"] < top["request"]
    page.close()
