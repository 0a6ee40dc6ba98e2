"""The playground of a service with the pretrained model, in a browser window."""

from collections.abc import Iterator

import pytest

from models.onnx_file.store import SHIPPED
from tests.serving.playground import settle
from tools.service_process import serving


@pytest.fixture(scope="package")
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
