"""How fast the service is: ours against what a user would write instead, and against onnxruntime alone.

    python benchmarks/serving.py models/pretrained/mnist-fast.onnx --json serving.json --picture serving.png
    python benchmarks/serving.py --cases generate:1:1 dataset:256:4 --servers ours fastapi

Needs `wrk` (Debian: apt-get install wrk) and `pip install '.[benchmarks]'`. All servers run on this machine with the
client beside them; one is measured at a time, in turn, while the others are stopped. Told is the median of the rounds.
The limit is onnxruntime in this process on one thread, on batches of as many images: it draws no latents, encodes
nothing and talks to nobody.
"""

import io
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import matplotlib
import numpy as np
import tyro

ROOT = Path(__file__).parents[1]
sys.path[0] = str(ROOT)  # not this folder, in which training.py would hide the package

matplotlib.use("agg")
import httpx
from matplotlib import pyplot
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.footprint import processes
from benchmarks.machine import machine
from models.onnx_file.generator import Generator

SERVERS = ("ours", "fastapi", "litserve", "adaptive")
NO_ARRAYS = ("litserve", "adaptive")
"""Those that answer no /decode: one's hooks read JSON, the other one is there for its batching."""
CASES = (
    *(("/generate", n, connections) for n in (1, 16, 64) for connections in (1, 16, 64)),
    *(("/dataset", n, connections) for n in (16, 256, 1_000) for connections in (1, 4)),
    *(("/decode", n, connections) for n in (1, 64, 256) for connections in (1, 4, 16)),
)
PACKAGES = ("onnxruntime", "bentoml", "uvicorn", "fastapi", "litserve", "pillow", "numpy")
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
    """Measures the service and its peers side by side."""

    model: Annotated[Path, tyro.conf.Positional] = ROOT / "models/pretrained/mnist-fast.onnx"
    seconds: float = 2
    """That each case is measured for, in each round; 64 connections four times as long: uvloop accepts one a turn, and
    their slow first requests would be the p99 of a short time."""
    rounds: int = 3
    cases: tuple[str, ...] = ()
    """Rows to measure, each as route:images:connections, for example generate:1:1; all rows if not given."""
    servers: tuple[Literal["ours", "fastapi", "litserve", "adaptive"], ...] = SERVERS
    before: Path | None = None
    """Another checkout of this project, whose service is measured as well and is called `before`."""
    json: Path | None = None
    """File for the measurements."""
    picture: Path | None = None
    """PNG for the chart."""


def main() -> None:
    options = tyro.cli(Options, config=(tyro.conf.HelptextFromCommentsOff,))
    if not shutil.which("wrk"):
        sys.exit("wrk is not installed; on Debian: apt-get install wrk")
    if options.picture and options.servers != SERVERS:
        sys.exit("--picture needs all servers, leave --servers out")
    names = ("before",) * bool(options.before) + options.servers
    generator = Generator.open(options.model)
    cases = [_case(text) for text in options.cases] or CASES
    measured: dict[tuple, dict[str, list[dict]]] = {case: {server: [] for server in names} for case in cases}
    limits: dict[int, list[float]] = {n: [] for _, n, _ in cases}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = {name: stack.enter_context(_running(name, options, folder)) for name in names}
        for _ in track(range(options.rounds), "rounds"):
            for n in limits:
                limits[n].append(_in_process(generator, n, options.seconds / 2))
            for route, n, connections in cases:
                for name, (process, port) in servers.items():
                    if route == "/decode" and name in NO_ARRAYS:
                        continue
                    _send(process, signal.SIGCONT)
                    script = _script(folder, generator, route, n)
                    url = f"http://127.0.0.1:{port}{route}" + ("?labels=0123456789" if route == "/decode" else "")
                    _wrk(script, url, connections, 0.3)
                    seconds = options.seconds * max(1, connections // 16)
                    measured[route, n, connections][name].append(_wrk(script, url, connections, seconds))
                    _send(process, signal.SIGSTOP)
        for process, _ in servers.values():
            _send(process, signal.SIGCONT)

    limit = {n: statistics.median(rounds) for n, rounds in limits.items()}
    failed = {name: max(told["failed"] for by in measured.values() for told in by[name]) for name in names}
    print(*(f"{name}: up to {share:.1%} of the requests failed" for name, share in failed.items() if share), sep="\n")
    results = [
        {"route": route, "n": n, "connections": connections, "limit_images_per_second": limit[n]}
        | {name: _median(rounds) for name, rounds in by_server.items() if rounds}
        for (route, n, connections), by_server in measured.items()
    ]
    Console(width=max(120, Console().width)).print(_table(results, names, options.model.stem))
    if options.json:
        told = {"machine": machine("cpu"), "versions": {name: version(name) for name in PACKAGES}}
        told |= {"model": options.model.stem, "rounds": options.rounds, "seconds": options.seconds}
        options.json.write_text(json.dumps(told | {"results": results}, indent=2) + "\n")
    if options.picture:
        _draw(results, options.model.stem, options.picture)


def _case(text: str) -> tuple[str, int, int]:
    """Reads one of --cases."""
    match = re.fullmatch(r"/?(generate|dataset|decode):(\d+):(\d+)", text)
    if not match:
        sys.exit(f"--cases: {text!r} is not of the form route:images:connections, for example generate:1:1")
    return f"/{match[1]}", int(match[2]), int(match[3])


@contextmanager
def _running(name: str, options: Options, folder: Path) -> Iterator[tuple[subprocess.Popen, int]]:
    """A server that has answered, and is stopped until its turn."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    binaries = Path(sys.executable).parent
    command = [sys.executable, ROOT / "benchmarks/serving_peers.py", name, str(port), options.model.resolve()]
    if name in ("ours", "before", "adaptive"):
        service = ["benchmarks.serving_adaptive:Adaptive"] if name == "adaptive" else []
        command = [binaries / "bentoml", "serve", *service, "--port", str(port)]
    environment = os.environ | {"MNIST_GAN_MODEL": str(options.model.resolve()), "BENTOML_HOME": str(folder / name)}
    with (folder / f"{name}.log").open("w") as log:
        checkout = options.before if name == "before" else ROOT
        process = subprocess.Popen(command, cwd=checkout, env=environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                httpx.post(f"http://127.0.0.1:{port}/generate", json={"n": 1}, timeout=30).raise_for_status()
                break
            except httpx.HTTPError:
                if time.monotonic() > deadline or process.poll() is not None:
                    sys.exit(f"{name} does not serve:\n{(folder / f'{name}.log').read_text()}")
                time.sleep(0.5)
        _send(process, signal.SIGSTOP)
        yield process, port
    finally:
        _send(process, signal.SIGKILL)
        process.wait()


def _send(process: subprocess.Popen, number: int) -> None:
    """To a server and its children."""
    for one in processes(process.pid):  # not its group: BentoML's workers are in sessions of their own
        os.kill(one, number)


def _script(folder: Path, generator: Generator, route: str, n: int) -> Path:
    """What wrk sends."""
    body = folder / f"{route[1:]}-{n}.body"
    if route == "/decode":
        stream = io.BytesIO()
        np.save(stream, generator.draw(0, 0, n)[0])
        body.write_bytes(stream.getvalue())
    else:
        body.write_text(json.dumps({"n": n, "seed": 7}))
    script = body.with_suffix(".lua")
    media_type = "application/x-npy" if route == "/decode" else "application/json"
    script.write_text(
        f'wrk.method = "POST"\nwrk.headers["Content-Type"] = "{media_type}"\n'
        f'local file = io.open("{body}", "rb")\nwrk.body = file:read("*a")\nfile:close()\n{WRK_REPORT}'
    )
    return script


def _wrk(script: Path, url: str, connections: int, seconds: float) -> dict[str, float]:
    duration = f"{max(1, round(seconds))}s"
    command = ["wrk", "-t1", f"-c{connections}", f"-d{duration}", "--timeout", "30s", "-s", str(script), url]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    told = json.loads(re.search(r"\{.*\}", output).group())
    answered = told["requests"] - told["errors"]
    return {
        "requests_per_second": answered / told["seconds"],
        "failed": told["errors"] / max(1, told["requests"]),
        **{name: told[name] for name in ("p50", "p95", "p99")},
    }


def _in_process(generator: Generator, n: int, seconds: float) -> float:
    """Images/s of onnxruntime on one thread."""
    latents, labels = generator.draw(0, 0, n)
    generator.decode(latents, labels)
    made, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        generator.decode(latents, labels)
        made += n
    return made / elapsed


def _median(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(told[name] for told in rounds) for name in rounds[0]}


def _table(results: list[dict[str, Any]], servers: tuple[str, ...], model: str) -> Table:
    latencies = f"p50, p95, p99 of {servers[0]}, ms"
    table = Table("route", "images", "connections", *servers, "images/s over the limit's", latencies)
    table.title = f"{model}: requests/s"
    for told in results:
        ours = told[servers[0]]
        share = ours["requests_per_second"] * told["n"] / told["limit_images_per_second"]
        table.add_row(
            told["route"],
            str(told["n"]),
            str(told["connections"]),
            *(f"{told[name]['requests_per_second']:,.0f}" if name in told else "" for name in servers),
            f"{share:.2f}",
            ", ".join(f"{ours[name]:.1f}" for name in ("p50", "p95", "p99")),
        )
    return table


def _draw(results: list[dict[str, Any]], model: str, path: Path) -> None:
    figure, axes = pyplot.subplots(figsize=(8, 0.28 * len(results) + 1.2), dpi=110, layout="constrained")
    names = [
        f"{told['route']}  n={told['n']:,}  {told['connections']} connection{'s' * (told['connections'] > 1)}"
        for told in results
    ]
    at = np.arange(len(results))
    colours = {"ours": "tab:blue", "fastapi": "tab:orange", "litserve": "tab:green", "adaptive": "tab:gray"}
    titles = {
        "ours": "ours, through bentoml serve",
        "fastapi": "FastAPI, by hand",
        "litserve": "LitServe",
        "adaptive": "BentoML's adaptive batching",
    }
    for name in SERVERS:
        rates = [
            told[name]["requests_per_second"] / told["fastapi"]["requests_per_second"] if name in told else np.nan
            for told in results
        ]
        axes.scatter(rates, at, s=36, color=colours[name], label=titles[name], zorder=2)
    axes.set_yticks(at, names, fontsize=8)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlim(left=0)
    axes.set_xlabel(f"requests/s over those of FastAPI by hand ({model})")
    axes.legend(fontsize=8, loc="lower left")
    figure.savefig(path)


if __name__ == "__main__":
    main()
