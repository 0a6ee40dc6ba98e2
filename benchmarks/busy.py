"""Seconds of `train` alone and next to a process that keeps one CPU busy, by how the number of threads is chosen.

    python benchmarks/busy.py --data-dir data --json benchmarks/results/busy.json

Each measurement is a whole command. The cases take turns within a round, and the medians of the rounds are reported.
The machine must be idle otherwise.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import tyro

ROOT = Path(__file__).parents[1]
sys.path[0] = str(ROOT)

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.machine import machine
from models.common.threads import available_cpus, idle_cpus

TRAIN = Path(sys.executable).parent / "train"
BUSY = "import os; parent = os.getppid()\nwhile os.getppid() == parent: pass"
"""Program that uses one CPU until it is killed or its parent has ended."""


@dataclass(frozen=True)
class Options:
    """Measures `train --preset fast` alone and next to one busy process."""

    data_dir: Path = Path(os.environ.get("MNIST_GAN_DATA", "data"))
    images: int = 20_000
    """Images of one training."""
    rounds: int = 3
    limit: float = 600.0
    """Seconds after which a training is stopped; its time counts as this number."""
    json: Path | None = None
    """File for the measurements."""


def cases() -> dict[str, list[str]]:
    """Options of `train` that choose the number of threads."""
    cpus = available_cpus()
    return {
        "one thread for each CPU (the previous default)": ["--threads", str(cpus)],
        "one thread for each idle CPU (the default)": [],
        "one thread": ["--threads", "1"],
    }


@contextmanager
def busy_process(busy: bool) -> Iterator[None]:
    """Keeps one CPU busy, if asked for, from before the measurement to its end."""
    if not busy:
        yield
        return
    with subprocess.Popen([sys.executable, "-c", BUSY]) as process:
        time.sleep(1)
        try:
            yield
        finally:
            process.kill()


def seconds(options: Options, threads: list[str]) -> tuple[float, int | None]:
    """Duration of one training, and the number of its threads if it got so far as to write its configuration."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder, "run")
        command = [TRAIN, "--preset", "fast", "--images", options.images, "--data-dir", options.data_dir, "--out", run]
        environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
        started = time.perf_counter()
        try:
            subprocess.run(
                [*map(str, command), *threads],
                env=environment,
                timeout=options.limit,
                check=True,
                stdout=subprocess.DEVNULL,
            )
            taken = time.perf_counter() - started
        except subprocess.TimeoutExpired:
            taken = options.limit
        config = run / "config.json"
        return taken, json.loads(config.read_text())["threads"] if config.exists() else None


def main(options: Options) -> None:
    if (idle := idle_cpus()) < available_cpus():
        print(f"Warning: only {idle} of {available_cpus()} CPUs are idle; the measurements will be wrong.")
    taken: dict[tuple[str, bool], list[float]] = {(name, busy): [] for name in cases() for busy in (False, True)}
    used: dict[tuple[str, bool], list[int | None]] = {case: [] for case in taken}
    for _ in track(range(options.rounds), "rounds"):
        for case in taken:
            name, busy = case
            with busy_process(busy):
                duration, threads = seconds(options, cases()[name])
            taken[case].append(duration)
            used[case].append(threads)
    medians = {case: statistics.median(rounds) for case, rounds in taken.items()}
    table = Table("threads", "alone, s", "next to a busy process, s", "ratio", title=f"{options.images:,} images")
    for name in cases():
        alone, beside = medians[name, False], medians[name, True]
        table.add_row(name, f"{alone:.1f}", f"{beside:.1f}", f"{beside / alone:.2f}")
    Console().print(table)
    if options.json:
        results = [
            {"case": name, "busy": busy, "seconds": medians[name, busy], "rounds": rounds, "threads": used[name, busy]}
            for (name, busy), rounds in taken.items()
        ]
        report = {"machine": machine("cpu"), "images": options.images, "limit": options.limit, "results": results}
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Options, config=(tyro.conf.HelptextFromCommentsOff,)))
