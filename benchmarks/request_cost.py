"""How long the most expensive JSON bodies block the service, and how much memory they take.

    python benchmarks/request_cost.py --json benchmarks/results/request-cost.json

Sends each body of tests/serving/bodies.py, of the largest size, while a second connection requests
/livez without a pause: its longest response time is about as long as the event loop was blocked. Memory is the largest
resident set of the service's processes, less the idle one and the body. Linux only.
"""

import json
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import tyro
from rich.console import Console
from rich.table import Table

sys.path[0] = str(Path(__file__).parents[1])

from benchmarks.footprint import processes
from benchmarks.machine import machine
from tests.serving.bodies import bodies
from tests.serving.server import serving


@dataclass(frozen=True)
class Options:
    """Measures the shipped generator's service."""

    rounds: int = 3
    """Requests for each body; the median of their times is reported, and the largest memory."""
    threads: int = 1
    """Value of $MNIST_GAN_THREADS."""
    json: Path | None = None
    """File for the measurements."""


class Probe:
    """Requests /livez without a pause, in a thread."""

    def __init__(self, url: httpx.URL):
        self.longest = 0.0
        """Longest response time in seconds since it was last set to 0."""
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._run, args=(url,))
        self.thread.start()

    def _run(self, url: httpx.URL) -> None:
        with httpx.Client(base_url=url, timeout=60) as client:
            while not self.over.is_set():
                asked = time.perf_counter()
                client.get("/livez").raise_for_status()
                self.longest = max(self.longest, time.perf_counter() - asked)


def mebibytes(root: int, name: str) -> float:
    """Sum of a field of /proc/PID/status, such as VmRSS, over the processes of a service."""

    def one(process: int) -> int:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))

    return sum(map(one, processes(root))) / 1024


def main(options: Options) -> None:
    measured = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder), MNIST_GAN_THREADS=str(options.threads), MNIST_GAN_MODEL="") as (client, server),
    ):
        client.get("/readyz").raise_for_status()
        probe = Probe(client.base_url)
        for _ in range(20):
            client.post("/generate", json={"n": 16}).raise_for_status()
        idle = mebibytes(server.pid, "VmRSS")
        for name, route, body in bodies():
            for process in processes(server.pid):
                Path(f"/proc/{process}/clear_refs").write_text("5")  # resets VmHWM
            blocked = []
            for _ in range(options.rounds):
                probe.longest = 0.0
                status = client.post(route, content=body).status_code
                blocked.append(1_000 * probe.longest)
            memory = mebibytes(server.pid, "VmHWM") - idle - len(body) / 2**20
            measured[name] = {"status": status, "milliseconds": statistics.median(blocked), "mib": max(0.0, memory)}
        probe.over.set()
        probe.thread.join()
    table = Table("body", "status", "ms", "MiB")
    for name, row in measured.items():
        table.add_row(name, str(row["status"]), f"{row['milliseconds']:.1f}", f"{row['mib']:.1f}")
    Console().print(table)
    if options.json:
        result = {"machine": machine("cpu"), "options": asdict(options) | {"json": None}, "bodies": measured}
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Options))
