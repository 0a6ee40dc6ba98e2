"""Shared by the tests of the playground and of the page without a server: what they do in the open page."""

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Page

from models.common.image_files import grid
from models.onnx_file.generator import Generator
from models.onnx_file.store import SHIPPED
from serving.offline.npm import NpmPackage

AXE = NpmPackage(
    "axe-core",
    "4.14.1",
    "1477dafa598d8d065f273d6af302aa203c02e83131707b7fa648cd41bd3d6b734f8c22a0dab86ee6a6f64b8afbe804b214d36db85a2826965edfb3a0b9d546b5",
)
"""Accessibility checker, which only the tests download (Mozilla Public License 2.0)."""
INSECURE_HOST = "insecure.test"
"""Name of this machine for the browser. Unlike localhost, it is no secure context without https."""


def settle(page: Page) -> None:
    """Waits until the page shows the requested images."""
    page.wait_for_timeout(300)
    page.wait_for_selector("#grid[aria-busy=false]")
    page.wait_for_load_state("networkidle")


def picture(page: Page, canvas: str = "grid-image", mode: str = "L") -> np.ndarray:
    """Returns the pixels of a canvas of the page, as grey levels or in another mode of Pillow."""
    url = page.evaluate("id => document.getElementById(id).toDataURL()", canvas)
    return pixels(base64.b64decode(url.partition(",")[2]), mode)


def pixels(png: bytes, mode: str = "L") -> np.ndarray:
    """Returns the pixels of a PNG file."""
    return np.asarray(Image.open(io.BytesIO(png)).convert(mode))


def expected_grid(
    n: int,
    seed: int,
    first: int = 0,
    labels: str | None = "0123456789",
    truncation: float = 1.0,
    columns: int = 10,
    scale: int = 1,
    model: Path = SHIPPED,
) -> np.ndarray:
    """Returns the pixels of a grid that the page should show."""
    images, _ = Generator.open(model).images(seed, first, n, labels, truncation)
    return np.asarray(grid(images, columns, scale))


def cell(page: Page, index: int):
    """Returns the cell of an image."""
    return page.locator(f'#cells button[aria-label^="Image {index},"]')


def violations(page: Page, axe: str) -> list[str]:
    """Returns what the accessibility checker finds on the page."""
    page.evaluate(axe)
    found = page.evaluate("axe.run()")["violations"]
    return [f"{rule['id']}: {node['html']}" for rule in found for node in rule["nodes"]]
