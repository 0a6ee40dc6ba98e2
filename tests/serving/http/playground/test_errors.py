"""Errors and the token in the playground."""

import numpy as np
import pytest
from playwright.sync_api import expect

from tests.serving.playground import expected_grid, picture, pixels, settle, violations
from tools.service_process import serving


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
