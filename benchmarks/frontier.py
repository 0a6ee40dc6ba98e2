"""Quality against cost of model files: classifier FID, as a ratio to real data, against multiply-adds per image.

    python -m benchmarks.frontier models/pretrained/*.onnx runs/*.onnx --json frontier.json --picture frontier.png

Measures model files with fast metrics of `evaluate`. The result includes the training configuration and duration from
each card. A file is on the frontier if no other file costs no more and is better. The chart shows multiply-adds and not
images/s, because those vary from run to run.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from matplotlib.figure import Figure

from benchmarks.report import print_table, write_json
from models.common.commands import command
from models.onnx_file.generator import Generator
from training.evaluation.evaluator import evaluate_sources
from training.evaluation.sources import ImageSource

METRICS = ("fid", "recall", "label_agreement")


@dataclass(frozen=True)
class Options:
    """Measures the quality and the cost of model files, prints a table and draws a chart."""

    files: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Model files, with different names."""
    data_dir: Path | None = None
    """Folder of the data sets; if omitted, $MNIST_GAN_DATA, else data."""
    json: Path | None = None
    """JSON file to write the measurements to."""
    picture: Path | None = None
    """PNG file to write the chart to."""


@command("benchmarks.frontier")
def main() -> None:
    options = tyro.cli(Options, config=(tyro.conf.HelptextFromCommentsOff,))
    generators = {file.stem: Generator.open(file) for file in options.files}
    sources = (ImageSource(name, generator) for name, generator in generators.items())
    report = evaluate_sources(sources, options.data_dir, metrics=METRICS).to_dict()
    points = {name: _point(generators[name], result) for name, result in report["sources"].items()}
    for point in points.values():
        point["frontier"] = not any(_is_better_at_no_higher_cost(other, point) for other in points.values())

    _print_table(points)
    write_json(options.json, options, {"conditions": report["conditions"], "points": points})
    if options.picture:
        _draw(points, options.picture)


def _point(generator: Generator, result: dict[str, Any]) -> dict[str, Any]:
    """Returns quality, cost and training of one model file, from its card and its entry in the evaluation report."""
    card = generator.card
    values = {name: metric["value"] for name, metric in result["metrics"].items() if "value" in metric}
    return {
        "fid_ratio": result["fid_ratio"],
        **values,
        **result["cost"],
        "precision": card.precision,
        "images_seen": card.training.images_seen,
        "config": card.training.config,
        "file_sha256": card.file_sha256,
    }


def _is_better_at_no_higher_cost(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a["multiply_adds"] <= b["multiply_adds"] and a["fid_ratio"] < b["fid_ratio"]


def _print_table(points: dict[str, dict[str, Any]]) -> None:
    columns = (
        "model file", "images seen", "multiply-adds", "images/s", "FID, ratio to real data", "recall", "on the frontier"
    )  # fmt: skip
    rows = [
        (
            name,
            f"{point['images_seen']:,}",
            f"{point['multiply_adds']:,}",
            f"{point['images_per_second']:,.0f}",
            f"{point['fid_ratio']:.2f}",
            f"{point['recall']:.3f}",
            "yes" if point["frontier"] else "",
        )
        for name, point in sorted(points.items(), key=lambda item: item[1]["multiply_adds"])
    ]
    print_table(columns, rows)


def _draw(points: dict[str, dict[str, Any]], path: Path) -> None:
    """Draws all model files and the Pareto frontier on logarithmic axes."""
    figure = Figure(figsize=(8, 4.5), dpi=110, layout="constrained")
    axes = figure.subplots()
    frontier = sorted((p["multiply_adds"], p["fid_ratio"]) for p in points.values() if p["frontier"])
    axes.plot(*zip(*frontier, strict=True), color="tab:blue", linewidth=1, zorder=1)
    for name, point in points.items():
        position = point["multiply_adds"], point["fid_ratio"]
        axes.scatter(*position, s=30, color="tab:blue" if point["frontier"] else "tab:gray", zorder=2)
        axes.annotate(name, position, xytext=(5, 5), textcoords="offset points", fontsize=8)
    axes.axhline(1, color="tab:green", linestyle="--", linewidth=1)
    axes.annotate("real images", (min(p["multiply_adds"] for p in points.values()), 1.05), fontsize=8)
    axes.margins(x=0.2)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="multiply-adds per image (fewer is better)",
        ylabel="classifier FID, ratio to real data (lower is better)",
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:,.0f}")
        axis.set_minor_formatter("")
    figure.savefig(path)


if __name__ == "__main__":
    main()
