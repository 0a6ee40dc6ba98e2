"""Latency of the service while requests arrive at a fixed mean rate, compared with other servers of the same model.

    python -m benchmarks.open_loop --json open-loop.json --picture open-loop.png

wrk sends a request only after it has received a response (a closed loop), so a server that stalls also stops the load,
and the time that requests would have queued is not measured. Here requests arrive independently of the responses, as a
Poisson process, and their latency counts from the planned arrival (Schroeder et al., 2006, "Open versus closed: a
cautionary tale"). The rates are shares of each server's own capacity, which the same client measures first, with
CAPACITY_CONNECTIONS requests in progress at any time. Servers and client run on the same machine.
"""

import gc
import json
import statistics
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from matplotlib.figure import Figure
from rich.progress import track

from benchmarks.open_loop_client import Client, Sample, run
from benchmarks.report import median_of_rounds, print_table, write_json
from benchmarks.servers import COLOURS, PACKAGES, ROOT, SERVERS, TITLES, Server, running

CAPACITY_CONNECTIONS = 16
CAPACITY_SECONDS = 4
WARM_UP_SECONDS = 1
PERCENTILES = {"p50": 50, "p99": 99, "p99.9": 99.9}
RECOVERED_SECONDS = 0.02
"""Maximum latency of a server that has recovered from an overload."""
PROBES = np.full(100, 0.02)
"""Gaps between the requests that follow an overload, in seconds."""


@dataclass(frozen=True)
class Options:
    """Measures latencies at several rates of arrival."""

    model: Annotated[Path, tyro.conf.Positional] = ROOT / "models/pretrained/mnist-fast.onnx"
    n: int = 1
    """Images of each request; the route is /generate."""
    loads: tuple[float, ...] = (0.5, 0.7, 0.9, 1.1)
    """Rates, as shares of the server's capacity."""
    seconds: float = 10
    """Duration of each rate in each round."""
    rounds: int = 3
    """Number of rounds. The medians are reported."""
    servers: tuple[Server, ...] = SERVERS
    json: Path | None = None
    """File for the measurements."""
    picture: Path | None = None
    """PNG file for a chart."""


def main(options: Options) -> None:
    gc.disable()  # a collection would delay the client by milliseconds
    rounds: dict[str, list[list[dict]]] = {server: [] for server in options.servers}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = {name: stack.enter_context(running(name, options.model, folder)) for name in options.servers}
        for number in track(range(options.rounds), "rounds"):
            for name, server in servers.items():
                with server.measured():
                    rounds[name].append(run(measure(server.port, options, seed=number)))
    results = {
        name: [median_of_rounds([measured[i] for measured in by_round]) for i in range(len(options.loads))]
        for name, by_round in rounds.items()
    }
    print_results(results, options)
    write_json(options.json, options, {"model": options.model.stem, "results": results}, packages=PACKAGES)
    if options.picture:
        draw(results, options)


async def measure(port: int, options: Options, seed: int) -> list[dict[str, float]]:
    """Measures the capacity of a server and then its latencies at each rate.

    Returns:
        the metrics of `summarize` for each rate.
    """
    random = np.random.default_rng(seed)
    client = Client(port, _request({"n": options.n, "seed": 7}))
    try:
        samples = await client.closed_loop(CAPACITY_CONNECTIONS, CAPACITY_SECONDS)
        capacity = len(samples) / CAPACITY_SECONDS
        results = []
        for load in options.loads:
            rate = load * capacity
            await client.open_loop(random.exponential(1 / rate, round(WARM_UP_SECONDS * rate)))
            samples = await client.open_loop(random.exponential(1 / rate, round(options.seconds * rate)))
            results.append({"load": load, "arrivals_per_second": rate, **summarize(samples)})
            end = max(sample.arrived for sample in samples)
            probes = await client.open_loop(PROBES)
            recovered = [probe for probe in probes if probe.status == 200 and probe.seconds < RECOVERED_SECONDS]
            results[-1]["recovery_seconds"] = min((probe.arrived - end for probe in recovered), default=float("inf"))
        return results
    finally:
        client.close()


def summarize(samples: list[Sample]) -> dict[str, float]:
    """Returns metrics of the requests that arrived at one rate.

    accepted, rejected, failed: shares of the responses with status 200, 429, and any other or none.
    rejected_with_retry_after: share of the rejected ones that have a header Retry-After; 1 if none was rejected.
    p50, p99, p99.9: percentiles of the latency of accepted requests, in ms.
    """
    accepted = [sample.seconds * 1e3 for sample in samples if sample.status == 200]
    rejected = [sample for sample in samples if sample.status == 429]
    percentiles = np.percentile(accepted or [np.nan], list(PERCENTILES.values()))
    return {
        "accepted": len(accepted) / len(samples),
        "rejected": len(rejected) / len(samples),
        "failed": (len(samples) - len(accepted) - len(rejected)) / len(samples),
        "rejected_with_retry_after": statistics.mean(sample.retry_after for sample in rejected) if rejected else 1.0,
        **dict(zip(PERCENTILES, percentiles.tolist(), strict=True)),
    }


def print_results(results: dict[str, list[dict[str, float]]], options: Options) -> None:
    columns = (
        "server",
        "load",
        "arrivals/s",
        "p50, ms",
        "p99, ms",
        "p99.9, ms",
        "accepted",
        "429",
        "failed",
        "recovery, s",
    )
    rows = [
        (
            TITLES[name],
            f"{result['load']:.0%}",
            f"{result['arrivals_per_second']:,.0f}",
            *(f"{result[percentile]:,.1f}" for percentile in PERCENTILES),
            *(f"{result[share]:.1%}" for share in ("accepted", "rejected", "failed")),
            f"{result['recovery_seconds']:.2f}",
        )
        for name, by_load in results.items()
        for result in by_load
    ]
    print_table(
        columns, rows, title=f"{options.model.stem}, /generate of {options.n}: latency at fixed rates of arrival"
    )


def draw(results: dict[str, list[dict[str, float]]], options: Options) -> None:
    """Draws the p50 and the p99 of each server over the load, on a logarithmic axis."""
    figure = Figure(figsize=(7, 3.6), dpi=110, layout="constrained")
    axes = figure.subplots()
    for name, by_load in results.items():
        loads = [100 * result["load"] for result in by_load]
        axes.plot(loads, [result["p99"] for result in by_load], "o-", color=COLOURS[name], label=f"{TITLES[name]}, p99")
        axes.plot(loads, [result["p50"] for result in by_load], "o:", color=COLOURS[name], label=f"{TITLES[name]}, p50")
    axes.set_yscale("log")
    axes.set_xticks([100 * load for load in options.loads])
    axes.set_xlabel("arrivals, % of the server's own capacity")
    axes.set_ylabel("latency of accepted requests, ms")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(options.picture)


def _request(fields: dict[str, Any]) -> bytes:
    """Returns a POST request of /generate with a JSON body."""
    body = json.dumps(fields).encode()
    head = f"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return b"POST /generate HTTP/1.1\r\n" + head.encode() + body


if __name__ == "__main__":
    main(tyro.cli(Options, config=(tyro.conf.HelptextFromCommentsOff,)))
