"""Images per second of `sample --shards` for different numbers of processes.

    python -m benchmarks.shards --json benchmarks/results/shards.json

Each measurement runs a whole command, from the start of Python to the SHA-256 of the last shard. The cases alternate
within a round, and the medians of the rounds are reported.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from matplotlib.figure import Figure
from rich.progress import track

from benchmarks.report import print_table, write_json
from models.common.threads import available_cpus

ROOT = Path(__file__).parents[1]
IMAGES = {"npz": 400_000, "webdataset": 100_000, "parquet": 100_000}
"""Number of images by shard format. WebDataset and Parquet files contain PNGs, which take longer than the network."""
SHARDS = 32


@dataclass(frozen=True)
class Options:
    """Generates shards in each format with 1, 2, 4, ... processes, up to one for each CPU."""

    model: Annotated[Path, tyro.conf.Positional] = ROOT / "models/pretrained/mnist-fast.onnx"
    rounds: int = 3
    json: Path | None = None
    """File for the measurements."""
    picture: Path | None = None
    """PNG file for a chart."""


def images_per_second(model: Path, format: str, processes: int) -> float:
    """Runs `sample` once and returns the images per second of the whole command."""
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
    rows = [[str(count), *(f"{rates[format, count]:,.0f}" for format in IMAGES)] for count in counts]
    print_table(("processes", *IMAGES), rows, title="images/s")
    results = [
        {"format": format, "n": IMAGES[format], "processes": count, "images_per_second": rate}
        for (format, count), rate in rates.items()
    ]
    write_json(options.json, options, {"model": options.model.stem, "shards": SHARDS, "results": results})
    if options.picture:
        figure = Figure(figsize=(5, 3), dpi=110, layout="constrained")
        axes = figure.subplots()
        for format in IMAGES:
            axes.plot(counts, [rates[format, count] for count in counts], marker="o", label=format)
        axes.set(xlabel="processes", ylabel="images/s", xticks=counts, ylim=(0, None))
        axes.legend()
        axes.grid(alpha=0.3)
        figure.savefig(options.picture)


if __name__ == "__main__":
    main(tyro.cli(Options, config=(tyro.conf.HelptextFromCommentsOff,)))
