"""Stability of the service under an hour of mixed requests: valid, invalid and aborted ones.

    python -m benchmarks.soak --minutes 60 --json benchmarks/results/soak.json

Linux only. Every client pauses between its requests, so that the service is busy but not overloaded; every response
that differs from the expected one counts as failed. Memory and open files are sampled. The exit code is 1 if a request
failed.
"""

import io
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
from rich.progress import Progress

from benchmarks.process_usage import open_files, proportional_mib
from benchmarks.report import print_table, write_json
from models.onnx_file.generator import Generator
from tools.service_process import serving

ROOT = Path(__file__).parents[1]
INTERVALS = 10
"""Number of equal intervals into which the duration is divided; each is a row of the table."""


@dataclass(frozen=True)
class Options:
    """Sends mixed requests to the service for a given time."""

    model: Annotated[Path, tyro.conf.Positional] = ROOT / "models/pretrained/mnist-fast.onnx"
    minutes: float = 60
    """Duration of the whole benchmark."""
    pause: float = 0.02
    """Seconds that each client waits between two requests."""
    json: Path | None = None
    """File for the measurements."""


@dataclass
class Interval:
    """Requests that were sent in one interval, and samples of the service's memory and open files."""

    requests: Counter[str] = field(default_factory=Counter)
    """Number of requests by the name of the client."""
    failed: Counter[str] = field(default_factory=Counter)
    """Number of failed requests by the name of the client, with the exception if there was one."""
    milliseconds: list[float] = field(default_factory=list)
    """Latencies of the requests for a single image."""
    mib: list[float] = field(default_factory=list)
    """Memory samples, as proportional set size."""
    open_files: list[int] = field(default_factory=list)
    """Samples of the number of open file descriptors."""

    def summary(self) -> dict[str, Any]:
        """Returns the counts, p50 and p99 in ms (None without a request for a single image), and the memory."""
        return {
            "requests": dict(self.requests),
            "failed": dict(self.failed),
            "p50": float(np.percentile(self.milliseconds, 50)) if self.milliseconds else None,
            "p99": float(np.percentile(self.milliseconds, 99)) if self.milliseconds else None,
            "mib_median": statistics.median(self.mib),
            "open_files_max": max(self.open_files),
        }


def request_kinds(client: httpx.Client, generator: Generator, rng: random.Random) -> dict[str, Callable[[], bool]]:
    """Returns functions by name. Each sends one request and returns whether the response is the expected one."""
    expected = client.post("/dataset", json={"n": 300, "seed": 5}).content
    latents, _ = generator.draw(0, 0, 100)
    array = io.BytesIO()
    np.save(array, latents)
    labels = {"labels": "0"} if generator.card.conditional else {}

    def post(route: str, status: int = 200, **arguments: Any) -> bool:
        return client.post(route, **arguments).status_code == status

    def disconnect() -> bool:
        body = b'{"n": 5000}'
        request = b"POST /dataset HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
            connection.sendall(request[: rng.choice((10, len(request) - 3, len(request)))])
            time.sleep(rng.random() / 10)
        return True

    return {
        "image": lambda: post("/generate", json={"n": 1, "seed": rng.randrange(2**53)}),
        "grid": lambda: post("/generate", json={"n": rng.randint(1, 200), "seed": rng.randrange(2**53)}),
        "data set": lambda: post("/dataset", json={"n": rng.randint(1, 3_000)}),
        "repeat": lambda: client.post("/dataset", json={"n": 300, "seed": 5}).content == expected,
        "latents": lambda: post("/decode", content=array.getvalue(), params=labels),
        "animation": lambda: post("/interpolate", json={"from": {"seed": 1}, "to": {"seed": 2}, "format": "gif"}),
        "invalid": lambda: post("/generate", 400, content=rng.choice((b"{", b'{"n": 0}', b"[" * 10_000))),
        "too large": lambda: post("/generate", 413, content=bytes(5 << 20)),
        "disconnect": disconnect,
    }


def soak(url: httpx.URL, server: int, options: Options) -> list[Interval]:
    """Runs one client for each kind of request.

    Args:
        url: address of the service.
        server: process id of `bentoml serve`.
        options: duration and pause.
    """
    generator = Generator.open(options.model)
    intervals = [Interval() for _ in range(INTERVALS)]
    begun, seconds = time.monotonic(), 60 * options.minutes
    over = threading.Event()

    def current() -> Interval:
        return intervals[min(INTERVALS - 1, int(INTERVALS * (time.monotonic() - begun) / seconds))]

    def send_requests(name: str) -> None:
        with httpx.Client(base_url=url, timeout=60) as client:
            send = request_kinds(client, generator, random.Random(name))[name]
            while not over.wait(options.pause):
                interval, started = current(), time.perf_counter()
                interval.requests[name] += 1
                try:
                    if not send():
                        interval.failed[name] += 1
                except httpx.HTTPError as error:
                    interval.failed[f"{name}: {type(error).__name__}"] += 1
                if name == "image":
                    interval.milliseconds.append(1_000 * (time.perf_counter() - started))

    with httpx.Client(base_url=url, timeout=60) as client:
        names = list(request_kinds(client, generator, random.Random()))
    with ThreadPoolExecutor(len(names)) as pool, Progress() as progress:
        clients = [pool.submit(send_requests, name) for name in names]
        task = progress.add_task("soak", total=seconds)
        while (elapsed := time.monotonic() - begun) < seconds and not any(client.done() for client in clients):
            interval = current()
            interval.mib.append(proportional_mib(server))
            interval.open_files.append(open_files(server))
            progress.update(task, completed=elapsed)
            time.sleep(min(1, seconds / INTERVALS / 4))
        over.set()
        for client in clients:
            client.result()
    return intervals


def main(options: Options) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder), MNIST_GAN_MODEL=str(options.model.resolve())) as (client, server),
    ):
        intervals = [interval.summary() for interval in soak(client.base_url, server.pid, options)]
    rows = []
    for number, interval in enumerate(intervals, 1):
        counts = (f"{sum(interval[name].values()):,}" for name in ("requests", "failed"))
        latencies = (f"{interval[name]:.1f}" if interval[name] else "" for name in ("p50", "p99"))
        memory, files = f"{interval['mib_median']:.0f}", str(interval["open_files_max"])
        rows.append((f"{number * options.minutes / INTERVALS:g}", *counts, *latencies, memory, files))
    columns = ("minutes", "requests", "failed", "p50 of one image, ms", "p99, ms", "MiB, median", "open files, maximum")
    print_table(columns, rows)
    write_json(options.json, options, {"model": options.model.stem, "intervals": intervals})
    if failed := [interval["failed"] for interval in intervals if interval["failed"]]:
        sys.exit(f"soak: requests failed: {failed}")


if __name__ == "__main__":
    main(tyro.cli(Options, config=(tyro.conf.HelptextFromCommentsOff,)))
