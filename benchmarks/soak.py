"""Does the service stay as it was? An hour of mixed requests, right, wrong and broken off; memory and handles measured.

    python benchmarks/soak.py --minutes 60 --json benchmarks/results/soak.json

Linux only. Each caller waits a moment between its requests, so that the service is busy but not overloaded: whatever
is not answered as it should be counts as failed. Ends with 1 if anything did.
"""

import io
import json
import random
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import tyro
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

ROOT = Path(__file__).parents[1]
sys.path[0] = str(ROOT)

from benchmarks.footprint import mebibytes, processes
from benchmarks.machine import machine
from devtools.service_process import serving
from models.onnx_file.generator import Generator

PARTS = 10
"""Lines of the table."""


@dataclass(frozen=True)
class Options:
    """Asks the service for as long as you like."""

    model: Annotated[Path, tyro.conf.Positional] = ROOT / "models/pretrained/mnist-fast.onnx"
    minutes: float = 60
    pause: float = 0.02
    """Seconds that a caller waits between requests."""
    json: Path | None = None
    """File for the metrics."""


@dataclass
class Part:
    """A stretch of time: what was asked in it, and what the service took."""

    asked: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    milliseconds: list[float] = field(default_factory=list)
    """Of single sheets."""
    mebibytes: list[float] = field(default_factory=list)
    handles: list[int] = field(default_factory=list)

    def told(self) -> dict[str, Any]:
        return {
            "asked": dict(self.asked),
            "failed": dict(self.failed),
            "p50": float(np.percentile(self.milliseconds, 50)) if self.milliseconds else None,
            "p99": float(np.percentile(self.milliseconds, 99)) if self.milliseconds else None,
            "mebibytes": statistics.median(self.mebibytes),
            "handles": max(self.handles),
        }


def callers(client: httpx.Client, generator: Generator, rng: random.Random) -> dict[str, Callable[[], bool]]:
    """What is asked, each until it has been answered; whether that was as it should be."""
    expected = client.post("/dataset", json={"n": 300, "seed": 5}).content
    latents, _ = generator.draw(0, 0, 100)
    array = io.BytesIO()
    np.save(array, latents)
    labels = {"labels": "0"} if generator.card.conditional else {}

    def posted(route: str, status: int = 200, **asked: Any) -> bool:
        return client.post(route, **asked).status_code == status

    def leave() -> bool:
        body = b'{"n": 5000}'
        whole = b"POST /dataset HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
            connection.sendall(whole[: rng.choice((10, len(whole) - 3, len(whole)))])
            time.sleep(rng.random() / 10)
        return True

    return {
        "sheet": lambda: posted("/generate", json={"n": 1, "seed": rng.randrange(2**53)}),
        "sheets": lambda: posted("/generate", json={"n": rng.randint(1, 200), "seed": rng.randrange(2**53)}),
        "data set": lambda: posted("/dataset", json={"n": rng.randint(1, 3_000)}),
        "same again": lambda: client.post("/dataset", json={"n": 300, "seed": 5}).content == expected,
        "array": lambda: posted("/decode", content=array.getvalue(), params=labels),
        "film": lambda: posted("/interpolate", json={"from": {"seed": 1}, "to": {"seed": 2}, "format": "gif"}),
        "wrong": lambda: posted("/generate", 400, content=rng.choice((b"{", b'{"n": 0}', b"[" * 10_000))),
        "too large": lambda: posted("/generate", 413, content=bytes(5 << 20)),
        "left": leave,
    }


def soak(url: httpx.URL, server: int, options: Options) -> list[Part]:
    generator = Generator.open(options.model)
    parts = [Part() for _ in range(PARTS)]
    begun, seconds = time.monotonic(), 60 * options.minutes
    over = threading.Event()

    def now() -> Part:
        return parts[min(PARTS - 1, int(PARTS * (time.monotonic() - begun) / seconds))]

    def call(name: str) -> None:
        with httpx.Client(base_url=url, timeout=60) as client:
            ask = callers(client, generator, random.Random(name))[name]
            while not over.wait(options.pause):
                part, asked = now(), time.perf_counter()
                part.asked[name] += 1
                try:
                    if not ask():
                        part.failed[name] += 1
                except httpx.HTTPError as error:
                    part.failed[f"{name}: {type(error).__name__}"] += 1
                if name == "sheet":
                    part.milliseconds.append(1_000 * (time.perf_counter() - asked))

    with httpx.Client(base_url=url, timeout=60) as client:
        names = list(callers(client, generator, random.Random()))
    with ThreadPoolExecutor(len(names)) as pool, Progress() as progress:
        calls = [pool.submit(call, name) for name in names]
        task = progress.add_task("soak", total=seconds)
        while (passed := time.monotonic() - begun) < seconds and not any(one.done() for one in calls):
            part = now()
            part.mebibytes.append(mebibytes(server))
            part.handles.append(sum(len(list(Path(f"/proc/{one}/fd").iterdir())) for one in processes(server)))
            progress.update(task, completed=passed)
            time.sleep(min(1, seconds / PARTS / 4))
        over.set()
        for one in calls:
            one.result()
    return parts


def main(options: Options) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder), MNIST_GAN_MODEL=str(options.model.resolve())) as (client, server),
    ):
        parts = [part.told() for part in soak(client.base_url, server.pid, options)]
    table = Table("minutes", "requests", "failed", "p50 of one image, ms", "p99", "MiB", "handles")
    for number, part in enumerate(parts, 1):
        counts = (f"{sum(part[name].values()):,}" for name in ("asked", "failed"))
        times = (f"{part[name]:.1f}" if part[name] else "" for name in ("p50", "p99"))
        table.add_row(
            f"{number * options.minutes / PARTS:g}", *counts, *times, f"{part['mebibytes']:.0f}", str(part["handles"])
        )
    Console().print(table)
    if options.json:
        told = {"machine": machine("cpu"), "model": options.model.stem, "minutes": options.minutes, "parts": parts}
        options.json.write_text(json.dumps(told, indent=2) + "\n")
    if any(part["failed"] for part in parts):
        sys.exit(f"failed: {[part['failed'] for part in parts if part['failed']]}")


if __name__ == "__main__":
    main(tyro.cli(Options, config=(tyro.conf.HelptextFromCommentsOff,)))
