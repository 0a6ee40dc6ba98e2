"""Time for which the most expensive JSON bodies block the service's event loop, and the memory that they take.

    python -m benchmarks.request_cost --json benchmarks/results/request-cost.json

Sends each body of `tools.expensive_bodies` at the maximum size. Linux only.

Time is the processor time of the main thread, which runs the event loop, for one request. On a machine that is
otherwise idle the loop is blocked for at most this long. Memory is the peak resident set of the service's processes,
minus the resident set when idle and minus the body. The service keeps up to 64 MiB of freed memory, so only the first
body that a service receives shows its own cost (`--only`).
"""

import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.process_usage import main_thread_milliseconds, reset_peak_memory, status_mib
from benchmarks.report import print_table, write_json
from tools.expensive_bodies import bodies
from tools.service_process import serving


@dataclass(frozen=True)
class Options:
    """Sends expensive bodies to the service with the pretrained generator."""

    rounds: int = 3
    """Requests per body. The median of their times and the peak memory are reported."""
    only: tuple[str, ...] = ()
    """Names of the bodies to send; all if left out."""
    threads: int = 1
    """Value of MNIST_GAN_THREADS: the number of threads that run the network."""
    json: Path | None = None
    """File for the measurements."""


def main(options: Options) -> None:
    measured = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder), MNIST_GAN_THREADS=str(options.threads), MNIST_GAN_MODEL="") as (client, server),
    ):
        client.get("/readyz").raise_for_status()
        for _ in range(20):
            client.post("/generate", json={"n": 16}).raise_for_status()
        idle = status_mib(server.pid, "VmRSS")
        for name, route, body in bodies():
            if options.only and name not in options.only:
                continue
            reset_peak_memory(server.pid)
            times = []
            for _ in range(options.rounds):
                before = main_thread_milliseconds(server.pid)
                status = client.post(route, content=body).status_code
                times.append(main_thread_milliseconds(server.pid) - before)
            memory = status_mib(server.pid, "VmHWM") - idle - len(body) / 2**20
            measured[name] = {"status": status, "milliseconds": statistics.median(times), "mib": max(0.0, memory)}
    rows = [
        (name, str(cost["status"]), f"{cost['milliseconds']:.1f}", f"{cost['mib']:.1f}")
        for name, cost in measured.items()
    ]
    print_table(("body", "status", "event loop, ms", "memory, MiB"), rows)
    write_json(options.json, options, {"bodies": measured})


if __name__ == "__main__":
    main(tyro.cli(Options, config=(tyro.conf.HelptextFromCommentsOff,)))
