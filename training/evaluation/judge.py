"""Every figure of every source, and of real images in their place."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from models.card import Dataset
from models.errors import InputError
from training import data as datasets
from training.config import default_data_dir
from training.evaluation import cost as costs
from training.evaluation.cost import Cost
from training.evaluation.figures import FIGURES, FigureError, Sample, Value, measure
from training.evaluation.ruler import make_ruler, real_images
from training.evaluation.sources import Arrays, Source, SourceError
from training.evaluation.stacked import PUBLISHED, Published

IMAGES = 10_000
STACKED_IMAGES = 26_000
"""Of stacked-mnist, as its protocol has it (Lin et al., 2018, "PacGAN", section 4.1)."""
COSTS = {
    "parameters": "parameters",
    "multiply_adds": "multiply-adds an image",
    "bytes": "bytes",
    "images_per_second": "images/s on one CPU thread",
}

Values = dict[str, Value | FigureError]


@dataclass(frozen=True)
class Candidate:
    """A source and its figures."""

    source: Source
    sample: Sample
    values: Values
    cost: Cost | None


@dataclass(frozen=True)
class Verdict:
    candidates: tuple[Candidate, ...]
    floor: Values
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
        return "", *(candidate.source.name for candidate in self.candidates), "noise floor", "better"

    def rows(self) -> Iterator[tuple[str, ...]]:
        """The table: title, a cell a candidate, the noise floor, which way is better."""
        for name in self.floor:
            figure = FIGURES[name]
            cells = [_cell(values[name], figure.percent) for values in self._columns()]
            yield figure.title, *cells, figure.better
            if name == "fid":
                yield "  times the floor", *(_times(self.ratio(values)) for values in self._columns()), "lower"
        for field, title in COSTS.items():
            amounts = [getattr(candidate.cost, field, None) for candidate in self.candidates]
            if any(amounts):
                yield title, *("" if amount is None else f"{amount:,.0f}" for amount in amounts), "", ""

    def notes(self) -> Iterator[str]:
        """Why metrics are missing, and a warning if they are measured with a weak classifier."""
        for candidate in self.candidates:
            missing: dict[str, list[str]] = {}
            for name, value in candidate.values.items():
                if isinstance(value, FigureError):
                    missing.setdefault(str(value), []).append(FIGURES[name].title)
            for reason, titles in missing.items():
                yield f"{candidate.source.name}: no {', '.join(titles)}: it {reason}"
        if self.weakness and self.test.ruler.trusted:
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

    def ratio(self, values: Values) -> float | None:
        """How many times the noise floor a Frechet distance is."""
        fid, floor = values["fid"], self.floor["fid"]
        return fid.value / floor.value if isinstance(fid, Value) and isinstance(floor, Value) else None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "facts": self.facts,
            "sources": {
                candidate.source.name: {
                    "images": len(candidate.sample),
                    "file_sha256": candidate.source.generator and candidate.source.generator.card.file_sha256,
                    "figures": _told(candidate.values),
                    "fid_ratio": self.ratio(candidate.values) if "fid" in candidate.values else None,
                    "cost": candidate.cost and asdict(candidate.cost),
                }
                for candidate in self.candidates
            },
            "noise_floor": _told(self.floor),
        }

    def _columns(self) -> tuple[Values, ...]:
        return *(candidate.values for candidate in self.candidates), self.floor


def judge(
    sources: Iterable[Source],
    data_dir: Path | None,
    dataset: str | None = None,
    n: int | None = None,
    figures: Iterable[str] | None = None,
    fit_classifier: bool = False,
    allow_weak_classifier: bool = False,
) -> Verdict:
    """Measures sources, see `training.evaluation.evaluate.Options`.

    Raises:
        InputError: an argument that cannot be answered.
        SourceError, and what opening them raises: a source cannot be judged.
        DataError, ClassifierError: what it is to be judged by cannot be had.
    """
    names = tuple(FIGURES if figures is None else figures)
    if unknown := [name for name in names if name not in FIGURES]:
        raise InputError("figures", f"there is no {unknown[0]!r}; there are {', '.join(FIGURES)}")
    if n is not None and n < 1:
        raise InputError("n", f"must be at least 1, got {n}")
    if dataset is not None and dataset not in datasets.LOADERS:
        raise InputError("dataset", f"there is no {dataset!r}; there are {', '.join(datasets.LOADERS)}")

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
    # As many of each, since figures are biased by the number.
    n = min(n, len(train), *(len(source.origin) for source in sources if isinstance(source.origin, Arrays)))

    with Progress(TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), transient=True) as progress:
        ruler, fact = make_ruler(train, test, fit_classifier, progress, allow_weak_classifier)
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:n]
        real = {
            "train": Sample(ruler, train.images[order], train.labels[order]),
            "test": Sample(ruler, test.images, test.labels),
        }
        samples = [Sample(ruler, *source.take(n)) for source in sources]
        bar = progress.add_task("", total=len(names) * (1 + len(sources)))

        def values_of(sample: Sample | None, whose: str) -> Values:
            values: Values = {}
            for name in names:
                progress.update(bar, description=f"{whose}: {FIGURES[name].title}")
                try:
                    values[name] = measure(FIGURES[name], sample or real[FIGURES[name].floor])
                except FigureError as error:
                    values[name] = error
                progress.advance(bar)
            return values

        floor = values_of(None, "real images")
        candidates = tuple(
            Candidate(
                source,
                sample,
                values_of(sample, source.name),
                costs.measure(source.generator) if source.generator else None,
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
    weakness = ruler.weakness if any(FIGURES[name].by_classifier for name in names) else None
    published = PUBLISHED if dataset == "stacked-mnist" else ()
    return Verdict(candidates, floor, real["test"], facts, weakness, published)


def _check(source: Source, data: Dataset) -> None:
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


def _cell(value: Value | FigureError, percent: bool) -> str:
    if isinstance(value, FigureError):
        return ""
    text = f"{value.value:.2%}" if percent else f"{value.value:.4g}"
    if value.error is None:
        return text
    return text + (f" ± {value.error:.2%}" if percent else f" ± {value.error:.1g}")


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"


def _told(values: Values) -> dict[str, Any]:
    return {
        name: {"missing": str(value)} if isinstance(value, FigureError) else asdict(value)
        for name, value in values.items()
    }
