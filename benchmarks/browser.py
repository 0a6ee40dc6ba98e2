"""Speed and exactness of the page without a server, in headless Chromium on one core.

    python -m benchmarks.browser SITE --json benchmarks/results/browser.json

SITE is a folder that export-site wrote. Chromium must be installed. Linux only.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import tyro
from playwright.sync_api import Page, sync_playwright

from benchmarks.process_usage import cpu_seconds
from benchmarks.report import print_table, write_json
from models.onnx_file.generator import Generator
from serving.offline.export_site import MODEL_FILE, ONNXRUNTIME_WEB
from tools.static_server import static_server

TIME_IMAGES = """async ({ n, rounds }) => {
    const { BrowserEngine } = await import("./playground/browser/engine.js");
    const engine = new BrowserEngine("generator.onnx");
    await engine.open();
    const milliseconds = [];
    for (let seed = 0; seed < rounds; seed++) {
        const start = performance.now();
        await engine.images({ seed, first: 0, n });
        milliseconds.push(performance.now() - start);
    }
    return milliseconds;
}"""
"""Times requests for images, from the message to the worker until its response has arrived in the page."""
DRAW = """async ({ seed, n, size, counts }) => {
    const { drawLatents } = await import("./playground/browser/latents.js");
    const { latents, labels } = drawLatents(seed, 0, n, size, counts);
    return [Array.from(latents), labels];
}"""
RENDER = """async (fields) => {
    const { BrowserEngine } = await import("./playground/browser/engine.js");
    const engine = new BrowserEngine("generator.onnx");
    await engine.open();
    return Array.from((await engine.images(fields)).pixels);
}"""
TRACED = ["toplevel", "disabled-by-default-devtools.timeline"]
"""Categories of Chromium's trace that have the tasks of each thread."""


@dataclass(frozen=True)
class Options:
    """Measures a site that export-site wrote."""

    site: tyro.conf.Positional[Path]
    """Folder of the site."""
    n: int = 1_000
    """Number of images of a timed request."""
    rounds: int = 20
    """Number of timed requests."""
    compared: int = 10_000
    """Number of images whose latents and pixels are compared with Python's."""
    json: Path | None = None
    """File for the measurements."""


def main(options: Options) -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # the browser inherits it
    with static_server(options.site) as server, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = chromium.new_page()
        page.goto(server.url())
        page.wait_for_selector("#grid[aria-busy=false]")
        chromium.start_tracing(page=page, categories=TRACED)
        use_page(page)
        tasks = page_tasks(json.loads(chromium.stop_tracing()))
        page.evaluate(TIME_IMAGES, {"n": options.n, "rounds": 1})
        before = cpu_seconds(os.getpid())
        milliseconds = page.evaluate(TIME_IMAGES, {"n": options.n, "rounds": options.rounds})
        processor_seconds = cpu_seconds(os.getpid()) - before
        results: dict[str, Any] = {
            "chromium": chromium.version,
            "onnxruntime_web": ONNXRUNTIME_WEB.version,
            "median_milliseconds": round(median(milliseconds), 1),
            "minimum_milliseconds": round(min(milliseconds), 1),
            "processor_milliseconds": round(1000 * processor_seconds / options.rounds, 1),
            "longest_task_milliseconds": round(max(wall for wall, _ in tasks), 1),
            "longest_task_processor_milliseconds": round(max(processor for _, processor in tasks), 1),
            **compare(page, Generator.open(options.site / MODEL_FILE), options.compared),
        }
        chromium.close()
    print_table(["measurement", "value"], [[name.replace("_", " "), str(value)] for name, value in results.items()])
    write_json(options.json, options, results)


def use_page(page: Page) -> None:
    """Changes the controls of the page, and downloads the largest data set."""
    page.get_by_role("slider", name="Number of images").fill("256")
    for _ in range(10):
        page.get_by_role("button", name="Random seed").click()
        page.wait_for_timeout(300)
    page.locator("#cells button").nth(3).click()
    page.locator("#cells button").nth(4).click()
    page.get_by_label("Images in the .npz").fill("10000")
    with page.expect_download():
        page.get_by_role("button", name="Download .npz").click()
    page.wait_for_timeout(1000)


def page_tasks(trace: dict[str, Any]) -> list[tuple[float, float]]:
    """Returns the duration and the processor time, in milliseconds, of each task of the threads that run pages."""
    events = trace["traceEvents"]
    threads = {
        (event["pid"], event["tid"])
        for event in events
        if event["name"] == "thread_name" and event["args"]["name"] == "CrRendererMain"
    }
    return [
        (event["dur"] / 1000, event.get("tdur", 0) / 1000)
        for event in events
        if event["name"] == "RunTask" and (event["pid"], event["tid"]) in threads and "dur" in event
    ]


def compare(page: Page, generator: Generator, n: int) -> dict[str, Any]:
    """Compares the latents, labels and pixels of n images with those of Python."""
    card = generator.card
    drawn = page.evaluate(DRAW, {"seed": 1, "n": n, "size": card.latent_dim, "counts": list(card.class_weights)})
    latents, labels = generator.draw(1, 0, n)
    in_browser = np.array(drawn[0], np.float32).reshape(latents.shape)
    steps = np.abs(in_browser.view(np.int32).astype(np.int64) - latents.view(np.int32))
    pixels = np.array(page.evaluate(RENDER, {"seed": 1, "first": 0, "n": n}), np.int16)
    off = np.abs(pixels - generator.decode(latents, labels).transpose(0, 2, 3, 1).ravel())
    return {
        "images": n,
        "latents": latents.size,
        "latents_off": int((steps > 0).sum()),
        "largest_difference_in_float32_steps": int(steps.max()),
        "labels_off": 0 if labels is None else int((np.array(drawn[1]) != labels).sum()),
        "pixels": off.size,
        "pixels_off": int((off > 0).sum()),
        "levels_off": int(off.max()),
    }


if __name__ == "__main__":
    main(tyro.cli(Options, prog="browser"))
