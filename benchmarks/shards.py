"""Images/s of `sample --shards` against cores, whole commands: from the start of Python to the last shard's SHA-256.

    python benchmarks/shards.py --json benchmarks/results/shards.json

Told is the median of the rounds, which take turns.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import matplotlib
import tyro

ROOT = Path(__file__).parents[1]
sys.path[0] = str(ROOT)

matplotlib.use("agg")
from matplotlib import pyplot
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.machine import machine
from models.common.threads import available_cpus

IMAGES = {"npz": 400_000, "webdataset": 100_000, "parquet": 100_000}
"""By format: PNGs take longer than the network does."""
SHARDS = 32


@dataclass(frozen=True)
class Options:
    """Makes shards with 1, 2, 4 and so on of the machine's cores."""

    model: Annotated[Path, tyro.conf.Positional] = ROOT / "models/pretrained/mnist-fast.onnx"
    rounds: int = 3
    json: Path | None = None
    """File for the metrics."""
    picture: Path | None = None
    """PNG for the chart."""


def images_per_second(model: Path, format: str, processes: int) -> float:
    n = IMAGES[format]
    with tempfile.TemporaryDirectory() as folder:
        command = [Path(sys.executable).parent / "sample", model, "--out", folder, "--format", format]
        command += ["--n", n, "--shards", SHARDS, "--processes", processes]
        start = time.perf_counter()
        subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
        return n / (time.perf_counter() - start)


def main(options: Options) -> None:
    cores = available_cpus()
    counts = sorted({*(2**i for i in range(cores.bit_length()) if 2**i <= cores), cores})
    cases = [(format, count) for format in IMAGES for count in counts]
    measured: dict[tuple[str, int], list[float]] = {case: [] for case in cases}
    for _ in track(range(options.rounds), "rounds"):
        for case in cases:
            measured[case].append(images_per_second(options.model, *case))
    rates = {case: statistics.median(rounds) for case, rounds in measured.items()}
    table = Table("processes", *IMAGES, title="images/s")
    for count in counts:
        table.add_row(str(count), *(f"{rates[format, count]:,.0f}" for format in IMAGES))
    Console().print(table)
    if options.json:
        told = {"machine": machine("cpu"), "model": options.model.stem, "rounds": options.rounds, "shards": SHARDS}
        results = [
            {"format": format, "n": IMAGES[format], "processes": count, "images_per_second": rate}
            for (format, count), rate in rates.items()
        ]
        options.json.write_text(json.dumps(told | {"results": results}, indent=2) + "\n")
    if options.picture:
        figure, axes = pyplot.subplots(figsize=(5, 3), dpi=110, layout="constrained")
        for format in IMAGES:
            axes.plot(counts, [rates[format, count] for count in counts], marker="o", label=format)
        axes.set(xlabel="processes", ylabel="images/s", xticks=counts, ylim=(0, None))
        axes.legend()
        axes.grid(alpha=0.3)
        figure.savefig(options.picture)


if __name__ == "__main__":
    main(tyro.cli(Options, config=(tyro.conf.HelptextFromCommentsOff,)))
