"""Time until `bentoml serve` is ready, and the memory and cores that it uses, idle and under load.

    python -m benchmarks.footprint --json benchmarks/results/footprint.json

The resource requests in deploy/kubernetes/base are based on these measurements. Linux only. Memory is the proportional
set size of all processes of the service, sampled ten times a second. Cores are their processor time divided by the
wall-clock time. The clients run on the same cores as the service. `benchmarks/minimal_service` is measured as well.
"""

import statistics
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import tyro

from benchmarks.process_usage import cpu_seconds, proportional_mib
from benchmarks.report import print_table, write_json
from tools.service_process import ROOT, serving


@dataclass(frozen=True)
class Options:
    """Measures the service with the pretrained generator, idle and under each load."""

    starts: int = 5
    """Number of starts of each service, in turn. The medians are reported."""
    seconds: float = 15
    """Duration of each load."""
    threads: int = 1
    """Value of MNIST_GAN_THREADS: the number of threads that run the network."""
    json: Path | None = None
    """File for the measurements."""


@dataclass(frozen=True)
class Load:
    """Identical requests, sent again and again over several connections."""

    connections: int
    route: str
    body: dict[str, int]


SERVICES = {"mnist-gan": ROOT, "minimal BentoML service": ROOT / "benchmarks/minimal_service"}
"""Folders of the services whose start is measured."""
LOADS = {
    "idle": None,
    "grids of 16 images": Load(16, "/generate", {"n": 16}),
    "grids of 1,024 images": Load(4, "/generate", {"n": 1_024}),
    "largest grids": Load(4, "/generate", {"n": 1_024, "scale": 16}),
    "10,000 images as .npz": Load(4, "/dataset", {"n": 10_000}),
}


def measure(url: httpx.URL, root: int, load: Load | None, seconds: float) -> dict[str, float]:
    """Measures the service under one load.

    Args:
        url: address of the service.
        root: process id of `bentoml serve`.
        load: the requests to send; None leaves the service idle.
        seconds: duration of the measurement.

    Returns:
        `mib_median`, `mib_max` and `cores`; under load also `images_per_second` and the median latency in
        `milliseconds`.
    """
    over = threading.Event()
    latencies: list[float] = []

    def send_requests() -> None:
        assert load
        with httpx.Client(base_url=url, timeout=60) as client:
            while not over.is_set():
                started = time.perf_counter()
                client.post(load.route, json=load.body).raise_for_status()
                latencies.append(time.perf_counter() - started)

    connections = load.connections if load else 0
    with ThreadPoolExecutor(max(1, connections)) as pool:
        clients = [pool.submit(send_requests) for _ in range(connections)]
        used, begun, memory = cpu_seconds(root), time.perf_counter(), []
        while (elapsed := time.perf_counter() - begun) < seconds:
            memory.append(proportional_mib(root))
            time.sleep(0.1)
        used, responses = cpu_seconds(root) - used, len(latencies)
        over.set()
        for client in clients:
            client.result()
    metrics = {"mib_median": statistics.median(memory), "mib_max": max(memory), "cores": used / elapsed}
    if load:
        metrics["images_per_second"] = responses * load.body["n"] / elapsed
        metrics["milliseconds"] = 1_000 * statistics.median(latencies)
    return metrics


def measure_start(bento: Path) -> dict[str, float]:
    """Starts a service and lets it idle.

    Returns:
        `seconds` until /readyz responds with status 200, to within 0.05 s, and the memory when idle in `mib`.
    """
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        with serving(Path(folder), bento, MNIST_GAN_MODEL="") as (client, server):
            client.get("/readyz").raise_for_status()
            seconds = time.perf_counter() - begun
            time.sleep(1)
            return {"seconds": seconds, "mib": proportional_mib(server.pid)}


def main(options: Options) -> None:
    starts: dict[str, list[dict[str, float]]] = {name: [] for name in SERVICES}
    for _ in range(options.starts):
        for name, bento in SERVICES.items():
            starts[name].append(measure_start(bento))
    medians = {
        name: {key: statistics.median(start[key] for start in measured) for key in ("seconds", "mib")}
        for name, measured in starts.items()
    }
    print_table(
        ("start", "s until ready", "MiB when idle"),
        [(name, f"{start['seconds']:.2f}", f"{start['mib']:.0f}") for name, start in medians.items()],
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder), MNIST_GAN_THREADS=str(options.threads), MNIST_GAN_MODEL="") as (client, server),
    ):
        client.get("/readyz").raise_for_status()
        loads = {name: measure(client.base_url, server.pid, load, options.seconds) for name, load in LOADS.items()}
    rows = [
        [name, *(f"{value:,.2f}" if key == "cores" else f"{value:,.0f}" for key, value in metrics.items())]
        for name, metrics in loads.items()
    ]
    print_table(("load", "MiB, median", "MiB, maximum", "cores", "images/s", "latency, ms"), rows)
    write_json(options.json, options, {"starts": medians, "loads": loads})


if __name__ == "__main__":
    main(tyro.cli(Options, config=(tyro.conf.HelptextFromCommentsOff,)))
