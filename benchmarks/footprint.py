"""What `bentoml serve` takes of a machine: the memory and the cores that deploy/kubernetes/base requests.

    python benchmarks/footprint.py --json benchmarks/results/footprint.json

Linux only: memory is the proportional set size of all its processes, sampled ten times a second, cores are their
processor seconds over the seconds that passed, both from /proc. The callers share the machine's cores.
"""

import json
import os
import statistics
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import tyro
from rich.console import Console
from rich.table import Table

sys.path[0] = str(Path(__file__).parents[1])

from benchmarks.machine import machine
from devtools.service_process import serving


@dataclass(frozen=True)
class Options:
    """Measures the shipped generator's service, idle and under loads."""

    seconds: float = 15
    """Of each load."""
    threads: int = 1
    """That run the network: $MNIST_GAN_THREADS."""
    json: Path | None = None
    """File for the metrics."""


@dataclass(frozen=True)
class Load:
    connections: int
    route: str
    body: dict[str, int]


LOADS = {
    "idle": None,
    "16 images a sheet": Load(16, "/generate", {"n": 16}),
    "a sheet of 1,024": Load(4, "/generate", {"n": 1_024}),
    "the largest sheet": Load(4, "/generate", {"n": 1_024, "scale": 16}),
    "10,000 images as .npz": Load(4, "/dataset", {"n": 10_000}),
}


def processes(root: int) -> list[int]:
    children = Path(f"/proc/{root}/task/{root}/children").read_text().split()
    return [root, *(process for child in children for process in processes(int(child)))]


def mebibytes(root: int) -> float:
    def pss(process: int) -> int:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))

    return sum(map(pss, processes(root))) / 1024


def processor_seconds(root: int) -> float:
    def ticks(process: int) -> int:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    return sum(map(ticks, processes(root))) / os.sysconf("SC_CLK_TCK")


def measure(url: httpx.URL, root: int, load: Load | None, seconds: float) -> dict[str, float]:
    """Figures of one load: MiB as median and maximum, cores, and what was answered."""
    over = threading.Event()
    latencies: list[float] = []

    def call() -> None:
        assert load
        with httpx.Client(base_url=url, timeout=60) as client:
            while not over.is_set():
                asked = time.perf_counter()
                client.post(load.route, json=load.body).raise_for_status()
                latencies.append(time.perf_counter() - asked)

    with ThreadPoolExecutor(load.connections if load else 1) as callers:
        calls = [callers.submit(call) for _ in range(load.connections if load else 0)]
        used, begun, memory = processor_seconds(root), time.perf_counter(), []
        while (passed := time.perf_counter() - begun) < seconds:
            memory.append(mebibytes(root))
            time.sleep(0.1)
        used, answers = processor_seconds(root) - used, len(latencies)
        over.set()
        for done in calls:
            done.result()
    metrics = {"mib": statistics.median(memory), "mib_most": max(memory), "cores": used / passed}
    if load:
        metrics["images_per_second"] = answers * load.body["n"] / passed
        metrics["milliseconds"] = 1_000 * statistics.median(latencies)
    return metrics


def main(options: Options) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder), MNIST_GAN_THREADS=str(options.threads), MNIST_GAN_MODEL="") as (client, server),
    ):
        client.get("/readyz").raise_for_status()
        taken = {name: measure(client.base_url, server.pid, load, options.seconds) for name, load in LOADS.items()}
    table = Table("", "MiB", "at most", "cores", "images/s", "ms")
    for name, metrics in taken.items():
        table.add_row(name, *(f"{value:,.2f}" if key == "cores" else f"{value:,.0f}" for key, value in metrics.items()))
    Console().print(table)
    if options.json:
        result = {"machine": machine("cpu"), "options": asdict(options) | {"json": None}, "loads": taken}
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Options))
