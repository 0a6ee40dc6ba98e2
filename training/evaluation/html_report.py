"""The HTML page of an evaluation report: the table, and pictures that complement the metrics."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import jinja2
import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from models.common.files import write_atomically
from models.common.image_files import grid, png
from training.evaluation.evaluation_report import EvaluatedSource, EvaluationReport
from training.evaluation.metrics import METRICS, Measurement, Sample
from training.evaluation.tables import column_titles, notes, table_rows

MAX_CLASSES = 10
"""Maximum number of classes in the grid with one row per class."""
IMAGES_PER_ROW = 20
RANKED_IMAGES = 100
"""Number of images in the grids of the most and of the least certain images."""
TRUNCATION_METRICS = ("fid", "label_agreement", "precision", "recall")
"""Metrics that are drawn against the truncation."""

Picture = tuple[str, str]
"""File name of a picture, and its caption."""

_PAGE = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string("""\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Evaluation report</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse } td, th { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #ddd }
td:first-child, th:first-child { text-align: left }
img { max-width: 100%; image-rendering: pixelated } figure { margin: 1rem 0 2rem } figcaption { color: #555 }
</style>
<h1>Evaluation report</h1>
{% for condition in conditions %}
<p>{{ condition }}</p>
{% endfor %}
<table>
<tr>{% for title in titles %}<th>{{ title }}{% endfor %}

{% for row in rows %}
<tr>{% for cell in row %}<td>{{ cell }}{% endfor %}

{% endfor %}
</table>
{% for note in notes %}
<p>{{ note }}</p>
{% endfor %}
{% for section, pictures in sections.items() %}
<h2>{{ section }}</h2>
{% for file, caption in pictures %}
<figure><img src="{{ file }}" alt="{{ caption }}"><figcaption>{{ caption }}</figcaption></figure>
{% endfor %}
{% endfor %}
</html>
""")


def write_report(report: EvaluationReport, folder: Path) -> Path:
    """Writes index.html and its pictures into a folder, which is created if it does not exist.

    Returns:
        the path of index.html.

    Raises:
        OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sections = {"All sources": list(_write_plots(report, folder))}
    for number, result in enumerate(report.results, 1):
        sections[result.source.name] = list(_write_grids(result, folder, f"{number}-"))
    page = _PAGE.render(
        conditions=report.conditions,
        titles=column_titles(report),
        rows=table_rows(report),
        notes=notes(report),
        sections=sections,
    )
    write_atomically(folder / "index.html", page.encode())
    return folder / "index.html"


def _write_plots(report: EvaluationReport, folder: Path) -> Iterator[Picture]:
    """Writes the plots that compare all sources, and the losses of each run."""
    yield (
        _plot_distributions(report, folder / "curves.png"),
        "In the left plot, curves to the left of the test images mean copies of training images. In the right plot, "
        "curves to the right of the test images mean images that are hard to read.",
    )
    if len({result.source.truncation for result in report.results if result.source.generator}) > 1:
        yield (
            _plot_truncations(report, folder / "truncation.png"),
            "Quality of each model against the truncation. Dashed lines are real images.",
        )
    drawn: set[Path] = set()
    for number, result in enumerate(report.results, 1):
        if (history := result.source.history) and history not in drawn:
            drawn.add(history)
            file = _plot_losses(history, folder / f"{number}-training.png")
            yield file, f"{result.source.title}: losses over the images seen"


def _plot_distributions(report: EvaluationReport, file: Path) -> str:
    """Draws cumulative distributions of the distance to training images and of the confidence of the classifier."""
    samples = {result.source.name: result.sample for result in report.results} | {"test images": report.test_sample}
    usable = report.test_sample.context.classifier_usable
    with matplotlib.rc_context({"figure.figsize": (9, 3.5), "figure.dpi": 110, "axes.spines.top": False}):
        figure = Figure(layout="constrained")
        distance, confidence = figure.subplots(1, 2)
        for name, sample in samples.items():
            style = {"color": "black", "linestyle": "--"} if sample is report.test_sample else {}
            curves = [(distance, sample.nearest_training_images[0])]
            if usable:
                curves.append((confidence, 1 - sample.classifier_output.probabilities.max(1)))
            for axes, values in curves:
                axes.plot(np.sort(values), np.linspace(0, 1, len(values)), label=name, **style)
        distance.set(xlabel="distance to the nearest training image", ylabel="share of images below")
        confidence.set(xlabel="1 - confidence of the classifier", xscale="log", visible=usable)
        distance.legend(frameon=False)
        return _write_figure(figure, file)


def _plot_truncations(report: EvaluationReport, file: Path) -> str:
    """Draws metrics of quality and of variety against the truncation, with one curve for each model."""
    models = [result for result in report.results if result.source.generator]
    figure = Figure(figsize=(9, 6), dpi=110, layout="constrained")
    for name, axes in zip(TRUNCATION_METRICS, figure.subplots(2, 2).flat, strict=True):
        for title in dict.fromkeys(result.source.title for result in models):
            points = sorted(
                (result.source.truncation, value.value, value.standard_error or 0)
                for result in models
                if result.source.title == title and isinstance(value := result.measurements.get(name), Measurement)
            )
            if points:
                truncations, values, errors = zip(*points, strict=True)
                axes.errorbar(truncations, values, errors, marker="o", label=title)
        if isinstance(real := report.real_data_baseline.get(name), Measurement):
            axes.axhline(real.value, color="black", linestyle="--")
        axes.set(xlabel="truncation", ylabel=f"{METRICS[name].title} ({METRICS[name].better} is better)")
        if axes.containers:
            axes.legend(frameon=False)
        else:
            axes.set_visible(False)  # the metric was not measured
        if METRICS[name].percent:
            axes.yaxis.set_major_formatter(PercentFormatter(1))
    return _write_figure(figure, file)


def _plot_losses(history: Path, file: Path) -> str:
    """Draws the losses in the metrics.jsonl of a run."""
    epochs = [json.loads(line) for line in history.read_text().splitlines()]
    figure = Figure(figsize=(9, 3), dpi=110, layout="constrained")
    axes = figure.subplots()
    for name in ("loss_discriminator", "loss_generator", "penalty"):
        axes.plot([e["images_seen"] for e in epochs], [e[name] for e in epochs], label=name.replace("_", " of "))
    axes.set(xlabel="images seen")
    axes.legend(frameon=False)
    return _write_figure(figure, file)


def _write_grids(result: EvaluatedSource, folder: Path, prefix: str) -> Iterator[Picture]:
    """Writes grids of the images of one source: by class, by confidence, and next to their nearest training images."""
    sample = result.sample
    if sample.labels is not None:
        yield _class_grid(sample, sample.labels.numpy(), "by label", folder, prefix)
    elif sample.context.classifier_usable:
        yield _class_grid(sample, sample.classifier_output.labels, "as predicted by the classifier", folder, prefix)
    if sample.context.classifier_usable:
        probabilities = sample.classifier_output.probabilities
        if sample.labels is None:
            certainty, meaning = probabilities.max(1), "the most probable class"
        else:
            certainty, meaning = probabilities[np.arange(len(probabilities)), sample.labels.numpy()], "the label"
        order = certainty.argsort(kind="stable")
        for name, extreme, chosen in (
            ("worst", "lowest", order[:RANKED_IMAGES]),
            ("best", "highest", order[::-1][:RANKED_IMAGES].copy()),
        ):
            yield (
                _write_grid(folder, f"{prefix}{name}.png", [sample.images[chosen]]),
                f"The {len(chosen)} images for which the classifier gives {meaning} the {extreme} probability",
            )

    distances, neighbours = sample.nearest_training_images
    closest = distances.argsort(kind="stable")[:IMAGES_PER_ROW]
    for name, chosen, images in (
        ("copies", closest, f"The {len(closest)} images with the lowest distance to a training image"),
        ("nearest", np.arange(min(IMAGES_PER_ROW, len(distances))), "The first images"),
    ):
        rows = [sample.images[chosen], sample.context.train.images[neighbours[chosen]]]
        yield _write_grid(folder, f"{prefix}{name}.png", rows), f"{images}; below each its nearest training image"


def _class_grid(sample: Sample, labels: np.ndarray, source: str, folder: Path, prefix: str) -> Picture:
    """Writes one row of images for each of the first classes, by labels int64 (n,) from `source`."""
    classes = np.unique(labels)[:MAX_CLASSES]
    rows = [sample.images[np.flatnonzero(labels == label)[:IMAGES_PER_ROW]] for label in classes]
    names = ", ".join(sample.context.train.info.class_names[label] for label in classes)
    return _write_grid(folder, f"{prefix}classes.png", rows), f"First images of each class, {source}: {names}"


def _write_grid(folder: Path, name: str, rows: list[Tensor]) -> str:
    """Writes a grid of images, uint8 (n, channels, height, width), in which each tensor begins a new row."""
    padded = []
    for images in rows:
        missing = -len(images) % IMAGES_PER_ROW
        padded.append(torch.cat((images, images.new_zeros(missing, *images.shape[1:]))))
    write_atomically(
        folder / name, png(grid(torch.cat(padded).cpu().numpy(), columns=IMAGES_PER_ROW, padding=1, grey=76))
    )
    return name


def _write_figure(figure: Figure, file: Path) -> str:
    """Writes a figure as PNG and returns the name of the file."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    write_atomically(file, stream.getvalue())
    return file.name
