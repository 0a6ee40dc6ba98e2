"""Duration of `train` alone and next to a process that keeps one CPU busy, for three ways to choose the thread count.

    python -m benchmarks.busy --data-dir data --json benchmarks/results/busy.json

Each measurement runs a whole command. The cases alternate within a round, and the medians of the rounds are reported.
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
from dataclasses import dataclass, field
from pathlib import Path

import tyro
from rich.progress import track

from benchmarks.report import print_table, write_json
from models.common.threads import available_cpus, idle_cpus
from training.data_dir import default_data_dir

TRAIN = Path(sys.executable).parent / "train"
BUSY = "import os; parent = os.getppid()\nwhile os.getppid() == parent: pass"
"""Python program that keeps one CPU busy until it is killed or its parent process ends."""


@dataclass(frozen=True)
class Options:
    """Measures `train --preset fast` alone and next to one busy process."""

    data_dir: Path = field(default_factory=default_data_dir)
    images: int = 20_000
    """Number of images that each training run processes."""
    rounds: int = 3
    limit: float = 600.0
    """Seconds after which a training run is stopped; its duration then counts as this value."""
    json: Path | None = None
    """File for the measurements."""


def cases() -> dict[str, list[str]]:
    """Returns the options of `train` for each way to choose the number of threads."""
    cpus = available_cpus()
    return {
        "one thread for each CPU ": ["--threads", str(cpus)],
        "one thread for each idle CPU (the default)": [],
        "one thread": ["--threads", "1"],
    }


@contextmanager
def busy_process(busy: bool) -> Iterator[None]:
    """Keeps one CPU busy while the context is open; does nothing if `busy` is false."""
    if not busy:
        yield
        return
    with subprocess.Popen([sys.executable, "-c", BUSY]) as process:
        time.sleep(1)
        try:
            yield
        finally:
            process.kill()


def time_training(options: Options, thread_options: list[str]) -> tuple[float, int | None]:
    """Runs `train` once.

    Returns:
        the duration in seconds, and the number of threads, which is None if the run was stopped before it wrote its
        configuration.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder, "run")
        command = [TRAIN, "--preset", "fast", "--images", options.images, "--data-dir", options.data_dir, "--out", run]
        environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
        started = time.perf_counter()
        try:
            subprocess.run(
                [*map(str, command), *thread_options],
                env=environment,
                timeout=options.limit,
                check=True,
                stdout=subprocess.DEVNULL,
            )
            duration = time.perf_counter() - started
        except subprocess.CalledProcessError as error:
            sys.exit(error.returncode)  # train has printed the reason
        except subprocess.TimeoutExpired:
            duration = options.limit
        config = run / "config.json"
        return duration, json.loads(config.read_text())["threads"] if config.exists() else None


def main(options: Options) -> None:
    if (idle := idle_cpus()) < available_cpus():
        print(f"Warning: only {idle} of {available_cpus()} CPUs are idle; the measurements will be wrong.")
    durations: dict[tuple[str, bool], list[float]] = {(name, busy): [] for name in cases() for busy in (False, True)}
    threads: dict[tuple[str, bool], list[int | None]] = {case: [] for case in durations}
    for _ in track(range(options.rounds), "rounds"):
        for case in durations:
            name, busy = case
            with busy_process(busy):
                duration, thread_count = time_training(options, cases()[name])
            durations[case].append(duration)
            threads[case].append(thread_count)
    medians = {case: statistics.median(rounds) for case, rounds in durations.items()}
    rows = []
    for name in cases():
        alone, busy = medians[name, False], medians[name, True]
        rows.append((name, f"{alone:.1f}", f"{busy:.1f}", f"{busy / alone:.2f}"))
    columns = ("threads", "alone, s", "next to a busy process, s", "ratio")
    print_table(columns, rows, title=f"{options.images:,} images")
    results = [
        {"case": name, "busy": busy, "seconds": medians[name, busy], "rounds": rounds, "threads": threads[name, busy]}
        for (name, busy), rounds in durations.items()
    ]
    write_json(options.json, options, {"results": results})


if __name__ == "__main__":
    main(tyro.cli(Options, config=(tyro.conf.HelptextFromCommentsOff,)))
