"""Every metric of every source, and of real images in their place."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from models.common.errors import InputError
from models.onnx_file.card import Dataset
from training.data import LOADERS
from training.data_dir import default_data_dir
from training.evaluation.context import make_metric_context, real_images
from training.evaluation.cost import Cost, measure_cost
from training.evaluation.metrics import METRICS, Measurement, MetricError, Sample, measure
from training.evaluation.sources import Arrays, ImageSource, SourceError
from training.evaluation.stacked_mnist import PUBLISHED, Published

IMAGES = 10_000
STACKED_IMAGES = 26_000
"""Of stacked-mnist, as its protocol has it (Lin et al., 2018, "PacGAN", section 4.1)."""
COSTS = {
    "parameters": "parameters",
    "multiply_adds": "multiply-adds an image",
    "bytes": "bytes",
    "images_per_second": "images/s on one CPU thread",
}

Measurements = dict[str, Measurement | MetricError]


@dataclass(frozen=True)
class EvaluatedSource:
    """A source and its metrics."""

    source: ImageSource
    sample: Sample
    values: Measurements
    cost: Cost | None


@dataclass(frozen=True)
class EvaluationReport:
    sources_evaluated: tuple[EvaluatedSource, ...]
    floor: Measurements
    test: Sample
    """The real images that all was held against."""
    facts: tuple[str, ...]
    """What was compared with what."""
    weakness: str | None = None
    """Explains that the classifier, on which requested metrics depend, does not separate the classes."""
    published: tuple[Published, ...] = ()
    """What others report of the same data by the same protocol."""

    @property
    def titles(self) -> tuple[str, ...]:
        """Of the table's columns."""
        return "", *(evaluated.source.name for evaluated in self.sources_evaluated), "noise floor", "better"

    def rows(self) -> Iterator[tuple[str, ...]]:
        """The table: title, a cell a evaluated, the noise floor, which way is better."""
        for name in self.floor:
            metric = METRICS[name]
            cells = [_cell(values[name], metric.percent) for values in self._columns()]
            yield metric.title, *cells, metric.better
            if name == "fid":
                yield "  times the floor", *(_times(self.ratio(values)) for values in self._columns()), "lower"
        for field, title in COSTS.items():
            amounts = [getattr(evaluated.cost, field, None) for evaluated in self.sources_evaluated]
            if any(amounts):
                yield title, *("" if amount is None else f"{amount:,.0f}" for amount in amounts), "", ""

    def notes(self) -> Iterator[str]:
        """Why metrics are missing, and a warning if they are measured with a weak classifier."""
        for evaluated in self.sources_evaluated:
            missing: dict[str, list[str]] = {}
            for name, value in evaluated.values.items():
                if isinstance(value, MetricError):
                    missing.setdefault(str(value), []).append(METRICS[name].title)
            for reason, titles in missing.items():
                yield f"{evaluated.source.name}: no {', '.join(titles)}: it {reason}"
        if self.weakness and self.test.context.trusted:
            yield f"Warning: {self.weakness}"

    def show(self) -> None:
        """Prints the table with what belongs to it."""
        console = Console()
        for line in self.facts:
            console.print(line, highlight=False, soft_wrap=True)
        first, *others = self.titles
        table = Table(Column(first, no_wrap=True), *others)
        for row in self.rows():
            table.add_row(*row)
        console.print(table)
        if self.published:
            published = Table("published", "classes covered", "class balance, KL", "source")
            for other in self.published:
                published.add_row(other.name, str(other.modes), f"{other.kl:g}", other.source)
            console.print(published)
        for note in self.notes():
            console.print(note, highlight=False, soft_wrap=True)

    def ratio(self, values: Measurements) -> float | None:
        """How many times the noise floor a Frechet distance is."""
        fid, floor = values["fid"], self.floor["fid"]
        return fid.value / floor.value if isinstance(fid, Measurement) and isinstance(floor, Measurement) else None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "facts": self.facts,
            "sources": {
                evaluated.source.name: {
                    "images": len(evaluated.sample),
                    "file_sha256": evaluated.source.generator and evaluated.source.generator.card.file_sha256,
                    "metrics": _told(evaluated.values),
                    "fid_ratio": self.ratio(evaluated.values) if "fid" in evaluated.values else None,
                    "cost": evaluated.cost and asdict(evaluated.cost),
                }
                for evaluated in self.sources_evaluated
            },
            "noise_floor": _told(self.floor),
        }

    def _columns(self) -> tuple[Measurements, ...]:
        return *(evaluated.values for evaluated in self.sources_evaluated), self.floor


def evaluate_sources(
    sources: Iterable[ImageSource],
    data_dir: Path | None,
    dataset: str | None = None,
    n: int | None = None,
    metrics: Iterable[str] | None = None,
    fit_classifier: bool = False,
    allow_weak_classifier: bool = False,
) -> EvaluationReport:
    """Measures sources, see `training.evaluation.evaluate.Options`.

    Raises:
        InputError: an argument that cannot be answered.
        SourceError, and what opening them raises: a source cannot be judged.
        DataError, ClassifierError: what it is to be judged by cannot be had.
    """
    names = tuple(METRICS if metrics is None else metrics)
    if unknown := [name for name in names if name not in METRICS]:
        raise InputError("metrics", f"there is no {unknown[0]!r}; there are {', '.join(METRICS)}")
    if n is not None and n < 1:
        raise InputError("n", f"must be at least 1, got {n}")
    if dataset is not None and dataset not in LOADERS:
        raise InputError("dataset", f"there is no {dataset!r}; there are {', '.join(LOADERS)}")

    sources = tuple(sources)
    learned = [source.generator.card.dataset for source in sources if source.generator]
    dataset = dataset or (learned[0].name if learned else "mnist")
    if dataset == "folder" and data_dir is None:
        raise InputError("data-dir", "give the folder of images that the model was trained on, or that it should match")
    n = n or (STACKED_IMAGES if dataset == "stacked-mnist" else IMAGES)
    shapes = [d.image_shape for d in learned if d.name == dataset]
    if dataset == "folder":  # its images can be of any size: they are resampled to that of the first source
        channels, height, width = sources[0].image_shape
        shapes.append((channels, height, width))
    train, test, of_these = real_images(dataset, data_dir or default_data_dir(), shapes[0] if shapes else None)
    for source in sources:
        _check(source, train.info)
    # As many of each, since metrics are biased by the number.
    n = min(n, len(train), *(len(source.origin) for source in sources if isinstance(source.origin, Arrays)))

    with Progress(TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), transient=True) as progress:
        context, fact = make_metric_context(train, test, fit_classifier, progress, allow_weak_classifier)
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:n]
        real = {
            "train": Sample(context, train.images[order], train.labels[order]),
            "test": Sample(context, test.images, test.labels),
        }
        samples = [Sample(context, *source.take(n)) for source in sources]
        bar = progress.add_task("", total=len(names) * (1 + len(sources)))

        def values_of(sample: Sample | None, whose: str) -> Measurements:
            values: Measurements = {}
            for name in names:
                progress.update(bar, description=f"{whose}: {METRICS[name].title}")
                try:
                    values[name] = measure(METRICS[name], sample or real[METRICS[name].floor])
                except MetricError as error:
                    values[name] = error
                progress.advance(bar)
            return values

        floor = values_of(None, "real images")
        sources_evaluated = tuple(
            EvaluatedSource(
                source,
                sample,
                values_of(sample, source.name),
                measure_cost(source.generator) if source.generator else None,
            )
            for source, sample in zip(sources, samples, strict=True)
        )
    facts = (
        f"{dataset}: {n:,} images of each source against {len(test):,} {of_these}",
        f"noise floor: {n:,} of the {len(train):,} training images in the place of generated ones",
        fact,
        *(
            f"{source.name} was trained on other images than these"
            for source in sources
            if source.generator and source.generator.card.dataset.sha256 != train.info.sha256
        ),
    )
    weakness = context.weakness if any(METRICS[name].by_classifier for name in names) else None
    published = PUBLISHED if dataset == "stacked-mnist" else ()
    return EvaluationReport(sources_evaluated, floor, real["test"], facts, weakness, published)


def _check(source: ImageSource, data: Dataset) -> None:
    """Raises:
    SourceError: images or labels that are not of this kind.
    """
    shape, expected = source.image_shape, data.image_shape
    if shape != expected:
        raise SourceError(f"{source.name}: its images have shape {shape}, those of {data.name} {expected}")
    labels = source.origin.labels if isinstance(source.origin, Arrays) else None
    classes = len(data.class_names)
    if labels is not None and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise SourceError(f"{source.name}: its labels must be from 0 to {classes - 1}")


def _cell(value: Measurement | MetricError, percent: bool) -> str:
    if isinstance(value, MetricError):
        return ""
    text = f"{value.value:.2%}" if percent else f"{value.value:.4g}"
    if value.error is None:
        return text
    return text + (f" ± {value.error:.2%}" if percent else f" ± {value.error:.1g}")


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"


def _told(values: Measurements) -> dict[str, Any]:
    return {
        name: {"missing": str(value)} if isinstance(value, MetricError) else asdict(value)
        for name, value in values.items()
    }
