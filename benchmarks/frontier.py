"""What quality costs to serve: classifier FID over its noise floor against images/s on one CPU thread.

    python benchmarks/frontier.py models/pretrained/*.onnx runs/*.onnx --json frontier.json --picture frontier.png

Judges model files by the fast metrics of `evaluate`. How each was trained, and for how long, is in its card, and goes
into the result. A file is on the frontier if no other is both faster and better.
"""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import matplotlib
import tyro

sys.path[0] = str(Path(__file__).parents[1])  # not this folder, in which training.py would hide the package

matplotlib.use("agg")
from matplotlib import pyplot
from rich.console import Console
from rich.table import Table

from benchmarks.machine import machine
from models.onnx_file.generator import Generator
from training.evaluation.evaluator import evaluate_sources
from training.evaluation.sources import ImageSource

METRICS = ("fid", "recall", "label_agreement")


@dataclass(frozen=True)
class Options:
    """Judges model files and draws them by quality and price."""

    files: Annotated[tuple[Path, ...], tyro.conf.Positional]
    data_dir: Path = Path(os.environ.get("MNIST_GAN_DATA", "data"))
    json: Path | None = None
    """File for the metrics."""
    picture: Path | None = None
    """PNG for the chart."""


def main() -> None:
    options = tyro.cli(Options, config=(tyro.conf.HelptextFromCommentsOff,))
    generators = {file.stem: Generator.open(file) for file in options.files}
    report = evaluate_sources(
        (ImageSource(name, generator) for name, generator in generators.items()), options.data_dir, metrics=METRICS
    ).to_dict()
    points = {name: _point(generators[name], told) for name, told in report["sources"].items()}
    for point in points.values():
        point["frontier"] = not any(_beats(other, point) for other in points.values())

    table = Table("model file", "images seen", "images/s", "FID over its floor", "recall", "on the frontier")
    for name, point in sorted(points.items(), key=lambda item: -item[1]["images_per_second"]):
        table.add_row(
            name,
            f"{point['images_seen']:,}",
            f"{point['images_per_second']:,.0f}",
            f"{point['fid_ratio']:.2f}",
            f"{point['recall']:.3f}",
            "yes" if point["frontier"] else "",
        )
    Console().print(table)
    if options.json:
        told = {"machine": machine("cpu"), "facts": report["facts"], "points": points}
        options.json.write_text(json.dumps(told, indent=2) + "\n")
    if options.picture:
        _draw(points, options.picture)


def _point(generator: Generator, told: dict[str, Any]) -> dict[str, Any]:
    card = generator.card
    values = {name: metric["value"] for name, metric in told["metrics"].items() if "value" in metric}
    return {
        "fid_ratio": told["fid_ratio"],
        **values,
        **told["cost"],
        "precision": card.precision,
        "images_seen": card.training.images_seen,
        "config": card.training.config,
        "file_sha256": card.file_sha256,
    }


def _beats(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one["images_per_second"] > other["images_per_second"] and one["fid_ratio"] < other["fid_ratio"]


def _draw(points: dict[str, dict[str, Any]], path: Path) -> None:
    figure, axes = pyplot.subplots(figsize=(8, 4.5), dpi=110, layout="constrained")
    front = sorted((p["images_per_second"], p["fid_ratio"]) for p in points.values() if p["frontier"])
    axes.plot(*zip(*front, strict=True), color="tab:blue", linewidth=1, zorder=1)
    for name, point in points.items():
        at = point["images_per_second"], point["fid_ratio"]
        axes.scatter(*at, s=30, color="tab:blue" if point["frontier"] else "tab:gray", zorder=2)
        axes.annotate(name, at, xytext=(5, 5), textcoords="offset points", fontsize=8)
    axes.axhline(1, color="tab:green", linestyle="--", linewidth=1)
    axes.annotate("real images", (min(p["images_per_second"] for p in points.values()), 1.05), fontsize=8)
    axes.margins(x=0.12)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="images/s on one CPU thread (more is better)",
        ylabel="classifier FID over its noise floor (less is better)",
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:,.0f}")
        axis.set_minor_formatter("")
    figure.savefig(path)


if __name__ == "__main__":
    main()
