"""How long the most expensive JSON bodies occupy the service's event loop, and how much memory they take.

    python benchmarks/request_cost.py --json benchmarks/results/request-cost.json

Sends each body of tests/serving/http/bodies.py, of the largest size. Time is what the main thread, which runs the event
loop, computes for one request: at least as long as the loop is blocked on a machine that is otherwise idle. Memory is
the largest resident set of the service's processes, less the idle one and the body; the service keeps up to 64 MiB of
what it freed, so only the first body of a service shows what it takes by itself (`--only`). Linux only.
"""

import json
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

sys.path[0] = str(Path(__file__).parents[1])

from benchmarks.footprint import processes
from benchmarks.machine import machine
from devtools.expensive_bodies import bodies
from devtools.service_process import serving


@dataclass(frozen=True)
class Options:
    """Measures the shipped generator's service."""

    rounds: int = 3
    """Requests for each body; the median of their times is reported, and the largest memory."""
    only: tuple[str, ...] = ()
    """Names of the bodies to send; all if left out."""
    threads: int = 1
    """Value of $MNIST_GAN_THREADS."""
    json: Path | None = None
    """File for the measurements."""


def loop_milliseconds(root: int) -> float:
    """Processor time of the main threads of a service's processes."""
    return sum(int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) for pid in processes(root)) / 1e6


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
        for _ in range(20):
            client.post("/generate", json={"n": 16}).raise_for_status()
        idle = mebibytes(server.pid, "VmRSS")
        for name, route, body in bodies():
            if options.only and name not in options.only:
                continue
            for process in processes(server.pid):
                Path(f"/proc/{process}/clear_refs").write_text("5")  # resets VmHWM
            times = []
            for _ in range(options.rounds):
                before = loop_milliseconds(server.pid)
                status = client.post(route, content=body).status_code
                times.append(loop_milliseconds(server.pid) - before)
            memory = mebibytes(server.pid, "VmHWM") - idle - len(body) / 2**20
            measured[name] = {"status": status, "milliseconds": statistics.median(times), "mib": max(0.0, memory)}
    table = Table("body", "status", "ms", "MiB")
    for name, row in measured.items():
        table.add_row(name, str(row["status"]), f"{row['milliseconds']:.1f}", f"{row['mib']:.1f}")
    Console().print(table)
    if options.json:
        result = {"machine": machine("cpu"), "options": asdict(options) | {"json": None}, "bodies": measured}
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Options))
