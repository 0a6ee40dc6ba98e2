"""The grid, the enlarged image and the animation of the playground, in a real browser with the real server."""

import re

import numpy as np
import pytest
from playwright.sync_api import expect

from tests.serving.playground import cell, expected_grid, picture, settle, violations
from tools.service_process import ROOT, serving

PAGE = ROOT / "serving/http/playground"


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


def contrast(*colours: str) -> float:
    """Returns the contrast of two colours, such as "rgb(1, 2, 3)", as WCAG 2.2 defines it."""
    levels = [np.array(re.findall(r"[\d.]+", colour)[:3], float) / 255 for colour in colours]
    linear = [np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4) for level in levels]
    dark, light = sorted(float(level @ (0.2126, 0.7152, 0.0722)) for level in linear)
    return (light + 0.05) / (dark + 0.05)


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
