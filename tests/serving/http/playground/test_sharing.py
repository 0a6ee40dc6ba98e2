"""Downloads, links, addresses of images and copied commands of the playground."""

import io
import re
import subprocess

import numpy as np
import pytest
from playwright.sync_api import expect

from models.onnx_file.generator import Generator
from models.onnx_file.store import SHIPPED
from tests.serving.playground import INSECURE_HOST, cell, expected_grid, picture, pixels, settle

OTHER_MODEL = SHIPPED.with_stem("mnist-fast")


def clipboard(page) -> str:
    return page.evaluate("navigator.clipboard.readText()")


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
