"""Requests per second of the service, compared with other ways to serve the model and with onnxruntime alone.

    python -m benchmarks.serving models/pretrained/mnist-fast.onnx --json serving.json --picture serving.png
    python -m benchmarks.serving --cases generate:1:1 dataset:256:4 --servers ours fastapi

Needs `wrk` (Debian: apt-get install wrk) and `pip install '.[benchmarks]'`. Servers and client run on the same machine.
One server is measured at a time while the others are stopped, and the medians of the rounds are reported. The limit is
onnxruntime in this process on one thread, with batches of the same size, without drawing latents, encoding or HTTP.
"""

import io
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from matplotlib.figure import Figure
from rich.progress import track

from benchmarks.report import median_of_rounds, print_table, write_json
from benchmarks.servers import COLOURS, PACKAGES, ROOT, SERVERS, TITLES, Server, running
from models.onnx_file.generator import Generator

WITHOUT = {"/decode": ("litserve",), "/infer": ("before", "fastapi", "litserve")}
"""Servers that are not measured with a route. LitServe's hooks read JSON and no arrays. /infer is to be compared with
/decode, which takes the same latents as an .npy file."""
PATHS = {"/decode": "/decode?labels=0123456789", "/infer": "/v2/models/mnist-gan/infer"}
"""Path of each route that differs from its name. /infer is the Open Inference Protocol with raw bytes both ways."""
CASES = (
    *(("/generate", n, connections) for n in (1, 16, 64) for connections in (1, 16, 64)),
    *(("/dataset", n, connections) for n in (16, 256, 1_000) for connections in (1, 4)),
    *(("/decode", n, connections) for n in (1, 64, 256) for connections in (1, 4, 16)),
    *(("/infer", n, connections) for n in (64, 256) for connections in (1, 4, 16)),
)
WRK_REPORT = """
done = function(summary, latency, requests)
  io.write(string.format('{"requests": %d, "seconds": %f, "errors": %d, "p50": %f, "p95": %f, "p99": %f}',
    summary.requests, summary.duration / 1e6,
    summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(95) / 1e3, latency:percentile(99) / 1e3))
end
"""


@dataclass(frozen=True)
class Options:
    """Measures the service and other servers of the same model."""

    model: Annotated[Path, tyro.conf.Positional] = ROOT / "models/pretrained/mnist-fast.onnx"
    seconds: float = 2
    """Duration of each case in each round. With 64 connections it is four times as long: uvloop accepts one connection
    in each turn of its loop, and the slow first requests would be the p99 of a short measurement."""
    rounds: int = 3
    """Number of rounds. The medians are reported."""
    cases: tuple[str, ...] = ()
    """Cases to measure, each as route:images:connections, for example generate:1:1; all cases if left out."""
    servers: tuple[Server, ...] = SERVERS
    before: Path | None = None
    """Another checkout of this project. Its service is measured as well, under the name `before`."""
    json: Path | None = None
    """File for the measurements."""
    picture: Path | None = None
    """PNG file for a chart."""


def main(options: Options) -> None:
    if not shutil.which("wrk"):
        sys.exit("serving: wrk is not installed; on Debian run: apt-get install wrk")
    if options.picture and options.servers != SERVERS:
        sys.exit("serving: --picture needs all servers; leave --servers out")
    names = options.servers + ("before",) * bool(options.before)
    generator = Generator.open(options.model)
    cases = [_case(text) for text in options.cases] or CASES
    measured: dict[tuple, dict[str, list[dict]]] = {case: {server: [] for server in names} for case in cases}
    limits: dict[int, list[float]] = {n: [] for _, n, _ in cases}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = {name: stack.enter_context(running(name, options.model, folder, options.before)) for name in names}
        for _ in track(range(options.rounds), "rounds"):
            for n in limits:
                limits[n].append(_in_process(generator, n, options.seconds / 2))
            for route, n, connections in cases:
                for name, server in servers.items():
                    if name in WITHOUT.get(route, ()):
                        continue
                    script = _script(folder, generator, route, n)
                    url = f"http://127.0.0.1:{server.port}{PATHS.get(route, route)}"
                    seconds = options.seconds * max(1, connections // 16)
                    with server.measured():
                        _wrk(script, url, connections, 0.3)
                        measured[route, n, connections][name].append(_wrk(script, url, connections, seconds))

    limit = {n: statistics.median(rounds) for n, rounds in limits.items()}
    for name in names:
        failed = max(sample["failed"] for by_server in measured.values() for sample in by_server[name])
        if failed:
            print(f"{name}: up to {failed:.1%} of the requests failed")
    results = [
        {"route": route, "n": n, "connections": connections, "limit_images_per_second": limit[n]}
        | {name: median_of_rounds(rounds) for name, rounds in by_server.items() if rounds}
        for (route, n, connections), by_server in measured.items()
        if any(by_server.values())
    ]
    write_json(options.json, options, {"model": options.model.stem, "results": results}, packages=PACKAGES)
    _print_results(results, names, options.model.stem)
    if options.picture:
        _draw(results, options.model.stem, options.picture)


def _case(text: str) -> tuple[str, int, int]:
    """Parses a value of --cases into route, images and connections."""
    match = re.fullmatch(r"/?(generate|dataset|decode|infer):(\d+):(\d+)", text)
    if not match:
        sys.exit(f"serving: --cases: {text!r} is not of the form route:images:connections, for example generate:1:1")
    return f"/{match[1]}", int(match[2]), int(match[3])


def _script(folder: Path, generator: Generator, route: str, n: int) -> Path:
    """Writes the script from which wrk reads the request, and returns its path."""
    body = folder / f"{route[1:]}-{n}.body"
    headers = {"Content-Type": "application/json"}
    if route == "/infer":
        content, length = _infer_request(generator, n)
        body.write_bytes(content)
        headers = {"Inference-Header-Content-Length": str(length)}
    elif route == "/decode":
        headers = {"Content-Type": "application/x-npy"}
        stream = io.BytesIO()
        np.save(stream, generator.draw(0, 0, n)[0])
        body.write_bytes(stream.getvalue())
    else:
        body.write_text(json.dumps({"n": n, "seed": 7}))
    script = body.with_suffix(".lua")
    fields = "".join(f'wrk.headers["{name}"] = "{value}"\n' for name, value in headers.items())
    script.write_text(
        f'wrk.method = "POST"\n{fields}'
        f'local file = io.open("{body}", "rb")\nwrk.body = file:read("*a")\nfile:close()\n{WRK_REPORT}'
    )
    return script


def _infer_request(generator: Generator, n: int) -> tuple[bytes, int]:
    """Returns a request of the Open Inference Protocol for n images, and the length of its JSON."""
    latents, labels = generator.draw(0, 0, n)
    tensors = [("latent", "FP32", latents)] + ([] if labels is None else [("label", "INT64", labels)])
    inputs = [
        {"name": name, "shape": array.shape, "datatype": kind, "parameters": {"binary_data_size": array.nbytes}}
        for name, kind, array in tensors
    ]
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    return b"".join((head, *(array.tobytes() for _, _, array in tensors))), len(head)


def _wrk(script: Path, url: str, connections: int, seconds: float) -> dict[str, float]:
    """Sends requests for some seconds. Returns requests/s, the share that failed, and latencies in ms."""
    duration = f"{max(1, round(seconds))}s"
    command = ["wrk", "-t1", f"-c{connections}", f"-d{duration}", "--timeout", "30s", "-s", str(script), url]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    report = json.loads(re.search(r"\{.*\}", output).group())
    return {
        "requests_per_second": (report["requests"] - report["errors"]) / report["seconds"],
        "failed": report["errors"] / max(1, report["requests"]),
        **{name: report[name] for name in ("p50", "p95", "p99")},
    }


def _in_process(generator: Generator, n: int, seconds: float) -> float:
    """Measures the images/s of onnxruntime on one thread, with batches of n images."""
    latents, labels = generator.draw(0, 0, n)
    generator.decode(latents, labels)
    images, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        generator.decode(latents, labels)
        images += n
    return images / elapsed


def _print_results(results: list[dict[str, Any]], servers: tuple[str, ...], model: str) -> None:
    """Prints the requests/s of each server, and the images/s and latencies of the first one that has the route."""
    rows = []
    for result in results:
        first = next(result[name] for name in servers if name in result)
        share = first["requests_per_second"] * result["n"] / result["limit_images_per_second"]
        rows.append(
            (
                result["route"],
                str(result["n"]),
                str(result["connections"]),
                *(f"{result[name]['requests_per_second']:,.0f}" if name in result else "" for name in servers),
                f"{share:.2f}",
                ", ".join(f"{first[name]:.1f}" for name in ("p50", "p95", "p99")),
            )
        )
    columns = ("route", "images", "connections", *servers, "images/s / limit", "p50, p95, p99, ms")
    print_table(columns, rows, title=f"{model}: requests/s")


def _draw(results: list[dict[str, Any]], model: str, path: Path) -> None:
    results = [result for result in results if "fastapi" in result]
    figure = Figure(figsize=(8, 0.28 * len(results) + 1.2), dpi=110, layout="constrained")
    axes = figure.subplots()
    cases = [
        f"{result['route']}  n={result['n']:,}  {result['connections']} connection{'s' * (result['connections'] > 1)}"
        for result in results
    ]
    positions = np.arange(len(results))
    for name in SERVERS:
        rates = [
            result[name]["requests_per_second"] / result["fastapi"]["requests_per_second"] if name in result else np.nan
            for result in results
        ]
        axes.scatter(rates, positions, s=36, color=COLOURS[name], label=TITLES[name], zorder=2)
    axes.set_yticks(positions, cases, fontsize=8)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlim(left=0)
    axes.set_xlabel(f"requests/s, relative to FastAPI ({model})")
    axes.legend(fontsize=8, loc="lower left")
    figure.savefig(path)


if __name__ == "__main__":
    main(tyro.cli(Options, config=(tyro.conf.HelptextFromCommentsOff,)))
