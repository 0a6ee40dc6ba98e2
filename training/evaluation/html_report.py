"""A page for people: the table, and what no figure shows."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import jinja2
import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from models.common.files import write_atomically
from models.common.image_files import grid, png
from training.evaluation.evaluator import EvaluatedSource, EvaluationReport
from training.evaluation.metrics import Sample

matplotlib.use("agg")
from matplotlib import pyplot

CLASSES = 10
"""At most, in a sheet of one row a class."""
A_ROW = 20

_PAGE = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string("""\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>How good is it?</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse } td, th { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #ddd }
td:first-child, th:first-child { text-align: left }
img { max-width: 100%; image-rendering: pixelated } figure { margin: 1rem 0 2rem } figcaption { color: #555 }
</style>
<h1>How good is it?</h1>
{% for fact in facts %}
<p>{{ fact }}</p>
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
    """Writes index.html and its pictures into a folder, which is made if need be; returns the page."""
    folder.mkdir(parents=True, exist_ok=True)
    sections = {"Side by side": list(_curves(report, folder))}
    for number, evaluated in enumerate(report.sources_evaluated, 1):
        sections[evaluated.source.name] = list(_pictures(evaluated, folder, f"{number}-"))
    page = _PAGE.render(
        facts=report.facts, titles=report.titles, rows=report.rows(), notes=report.notes(), sections=sections
    )
    write_atomically(folder / "index.html", page.encode())
    return folder / "index.html"


def _pictures(evaluated: EvaluatedSource, folder: Path, prefix: str) -> Iterator[tuple[str, str]]:
    sample = evaluated.sample
    if sample.labels is not None:
        yield _classes(sample, sample.labels.numpy(), "asked for", folder, prefix)
    elif sample.context.trusted:
        yield _classes(sample, sample.reading.labels, "the classifier reads it", folder, prefix)
    if sample.context.trusted:
        yield from _extremes(sample, folder, prefix)

    distances, neighbours = sample.neighbours
    closest = distances.argsort(kind="stable")[:A_ROW]
    for name, chosen, caption in (
        ("copies", closest, f"The {len(closest)} nearest to a training image"),
        ("nearest", np.arange(min(A_ROW, len(distances))), "The first ones"),
    ):
        pair = [sample.images[chosen], sample.context.train.images[neighbours[chosen]]]
        yield _sheet(folder, f"{prefix}{name}.png", pair), f"{caption}, each above its nearest training image"


def _classes(sample: Sample, labels: np.ndarray, source: str, folder: Path, prefix: str) -> tuple[str, str]:
    classes = np.unique(labels)[:CLASSES]
    rows = [sample.images[np.flatnonzero(labels == label)[:A_ROW]] for label in classes]
    names = ", ".join(sample.context.train.info.class_names[label] for label in classes)
    return _sheet(folder, f"{prefix}classes.png", rows), f"The first of each class as {source}: {names}"


def _extremes(sample: Sample, folder: Path, prefix: str) -> Iterator[tuple[str, str]]:
    """The images that the classifier is least and most sure of."""
    confidence = sample.reading.probabilities.max(1).argsort(kind="stable")
    yield (
        _sheet(folder, f"{prefix}worst.png", [sample.images[confidence[: 3 * A_ROW]]]),
        ("The worst: where the classifier is least sure"),
    )
    yield (
        _sheet(folder, f"{prefix}best.png", [sample.images[confidence[::-1][: 3 * A_ROW].copy()]]),
        ("The best: where it is surest"),
    )


def _curves(report: EvaluationReport, folder: Path) -> Iterator[tuple[str, str]]:
    samples = {evaluated.source.name: evaluated.sample for evaluated in report.sources_evaluated}
    with pyplot.rc_context({"figure.figsize": (9, 3.5), "figure.dpi": 110, "axes.spines.top": False}):
        figure, (distance, confidence) = pyplot.subplots(1, 2, layout="constrained")
        for name, sample in (samples | {"test images": report.test}).items():
            style = {"color": "black", "linestyle": "--"} if sample is report.test else {}
            curves = [(distance, sample.neighbours[0])]
            if sample.context.trusted:
                curves.append((confidence, 1 - sample.reading.probabilities.max(1)))
            for axes, values in curves:
                axes.plot(np.sort(values), np.linspace(0, 1, len(values)), label=name, **style)
        distance.set(xlabel="distance to the nearest training image", ylabel="share of images below")
        confidence.set(xlabel="1 - confidence of the classifier", xscale="log", visible=report.test.context.trusted)
        distance.legend(frameon=False)
        _save(figure, folder / "curves.png")
    yield (
        "curves.png",
        "Left of the test images in the first: copies. Right of them in the second: images that are hard to read.",
    )
    for number, evaluated in enumerate(report.sources_evaluated, 1):
        if history := evaluated.source.history:
            yield (
                _training(history, folder / f"{number}-training.png"),
                f"{evaluated.source.name}: losses over the images seen",
            )


def _training(history: Path, file: Path) -> str:
    epochs = [json.loads(line) for line in history.read_text().splitlines()]
    figure, axes = pyplot.subplots(figsize=(9, 3), dpi=110, layout="constrained")
    for name in ("loss_discriminator", "loss_generator", "penalty"):
        axes.plot([e["images_seen"] for e in epochs], [e[name] for e in epochs], label=name.replace("_", " of "))
    axes.set(xlabel="images seen")
    axes.legend(frameon=False)
    _save(figure, file)
    return file.name


def _sheet(folder: Path, name: str, rows: list[Tensor]) -> str:
    """One row after another, each filled up with black to whole lines."""
    padded = []
    for images in rows:
        missing = -len(images) % A_ROW
        padded.append(torch.cat((images, images.new_zeros(missing, *images.shape[1:]))))
    write_atomically(folder / name, png(grid(torch.cat(padded).cpu().numpy(), columns=A_ROW, padding=1, grey=76)))
    return name


def _save(figure: Figure, file: Path) -> None:
    png = io.BytesIO()
    figure.savefig(png, format="png")
    pyplot.close(figure)
    write_atomically(file, png.getvalue())
