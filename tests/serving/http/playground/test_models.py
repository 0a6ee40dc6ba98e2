"""The playground with other models: its description, its fields and the choice between several."""

import numpy as np
import pytest
from playwright.sync_api import expect

from models.onnx_file.generator import Generator
from models.onnx_file.store import SHIPPED
from tests.serving.http.renamed_classes import write_with_class_names
from tests.serving.playground import cell, expected_grid, picture, pixels, settle, violations
from tools.service_process import serving

OTHER_MODEL = SHIPPED.with_stem("mnist-fast")


@pytest.mark.slow
def test_the_page_describes_the_model(page):
    header = page.locator("header").inner_text()
    assert header.startswith("mnist\n")
    assert "28 \N{MULTIPLICATION SIGN} 28 pixels of the classes 0 1 2 3 4 5 6 7 8 9" in header
    assert "1.1 MB" in header
    quality = Generator.open(SHIPPED).card.quality
    fid = f"FID {quality['fid']:.4f}, {quality['fid_ratio']:.1f} times the value of real images"
    assert f"{fid}, {quality['label_agreement']:.1%}".replace("%", " %") in header


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
