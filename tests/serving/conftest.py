"""A browser and an accessibility checker, for the tests of the playground and of the page without a server."""

import shutil
from collections.abc import Iterator

import pytest

from tests.serving.playground import AXE, INSECURE_HOST


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """Chromium, in which the name INSECURE_HOST leads to this machine, as to a server without https.

    It is closed after each file of tests, because other tests cannot run an event loop while Playwright runs its own.
    """
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if not executable:
        pytest.skip("no chromium: install it (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox", f"--host-resolver-rules=MAP {INSECURE_HOST} 127.0.0.1"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def axe(tmp_path_factory) -> str:
    """Source of the accessibility checker axe, from npm."""
    if not shutil.which("npm"):
        pytest.skip("no npm: install it (Debian: apt-get install npm)")
    return AXE.files(("package/axe.min.js",))["package/axe.min.js"].decode()
