"""Measures all metrics on all sources, and on real images for the baseline."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

import torch
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from models.common.errors import InputError
from models.onnx_file.card import Dataset
from training.data import LOADERS
from training.data_dir import default_data_dir
from training.evaluation.cost import measure_cost
from training.evaluation.evaluation_report import EvaluatedSource, EvaluationReport, Measurements
from training.evaluation.metric_context import make_metric_context
from training.evaluation.metrics import METRICS, MetricError, Sample, measure
from training.evaluation.real_images import RealImages, load_real_images
from training.evaluation.sources import ImageArrays, ImageSource, SourceError
from training.evaluation.stacked_mnist import PUBLISHED
from training.fit import DEFAULT_BACKGROUND, Fit

IMAGES = 10_000
"""Default number of images of each source."""
STACKED_IMAGES = 26_000
"""Default number of images for stacked MNIST, by its protocol (Lin et al., 2018, "PacGAN", section 4.1)."""


def evaluate_sources(
    sources: Iterable[ImageSource],
    data_dir: Path | None,
    dataset: str | None = None,
    n: int | None = None,
    metrics: Iterable[str] | None = None,
    fit_classifier: bool = False,
    allow_weak_classifier: bool = False,
) -> EvaluationReport:
    """Compares images of several sources with real images. Every source is measured on the same number of images.

    Args:
        sources: models and files; each has its own name. An iterator is consumed only after the options are
            checked.
        data_dir: folder of the data sets; None means $MNIST_GAN_DATA, else "data". For dataset "folder" it is the
            folder of images itself and must not be None.
        dataset: name of the real images; None means the data set of the first model, or "mnist" without a model.
        n: number of images of each source. None means 10,000, or 26,000 for stacked-mnist. Fewer are used if the
            training split or a file has fewer.
        metrics: names from `METRICS`; None means all.
        fit_classifier: whether to train a classifier on the real images if none is pinned for them.
        allow_weak_classifier: whether to measure all metrics even if the classifier does not separate the classes.

    Raises:
        InputError: an argument is invalid, or a classifier has to be trained and `fit_classifier` is False.
        SourceError: there are no sources, or one does not fit the real images.
        DataError: the real images cannot be loaded.
        ClassifierError: the file of the pinned classifier was changed.
    """
    names = _check_options(dataset, n, metrics)
    sources = tuple(sources)
    if not sources:
        raise SourceError("there is nothing to evaluate; give at least one model file, run or .npz file")
    dataset = dataset or _training_dataset(sources)
    if dataset not in LOADERS:
        raise InputError(
            "dataset",
            f"the first model was trained on {dataset!r}, which is not a known data set; choose one of "
            f"{', '.join(LOADERS)} to compare with",
        )
    if dataset == "folder" and data_dir is None:
        raise InputError("data-dir", "give the folder of images that the model was trained on, or should resemble")
    real = load_real_images(
        dataset, data_dir or default_data_dir(), _image_shape(dataset, sources), *_preparation(dataset, sources)
    )
    for source in sources:
        _check_source(source, real.train.info)
    n = _number_of_images(n, dataset, sources, real)

    with Progress(TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), transient=True) as progress:
        context, classifier_description = make_metric_context(
            real.train, real.test, fit_classifier, progress, allow_weak_classifier
        )
        test_sample = Sample(context, real.test.images, real.test.labels)
        samples = [Sample(context, *source.take(n)) for source in sources]
        cost_of = cache(measure_cost)  # A model is one generator, even if it is measured with several truncations.
        bar = progress.add_task("", total=len(names) * (1 + len(sources)))
        baseline = _measure_all(_baseline_samples(names, n, test_sample), "real data", progress, bar)
        results = tuple(
            EvaluatedSource(
                source,
                sample,
                _measure_all(dict.fromkeys(names, sample), source.name, progress, bar),
                cost_of(source.generator) if source.generator else None,
            )
            for source, sample in zip(sources, samples, strict=True)
        )

    return EvaluationReport(
        results=results,
        real_data_baseline=baseline,
        test_sample=test_sample,
        conditions=(*_conditions(dataset, n, real), classifier_description, *_foreign_models(sources, real.train.info)),
        classifier_problem=context.classifier_problem
        if any(METRICS[name].needs_classifier for name in names)
        else None,
        published=PUBLISHED if dataset == "stacked-mnist" else (),
    )


def _check_options(dataset: str | None, n: int | None, metrics: Iterable[str] | None) -> tuple[str, ...]:
    """Checks the options that need no files.

    Returns:
        the names of the metrics, each once; all if `metrics` is None.

    Raises:
        InputError: a metric or the data set is unknown, or `n` is below 1.
    """
    names = tuple(dict.fromkeys(METRICS if metrics is None else metrics))
    if unknown := [name for name in names if name not in METRICS]:
        raise InputError("metrics", f"unknown metric {unknown[0]!r}; known are {', '.join(METRICS)}")
    if n is not None and n < 1:
        raise InputError("n", f"must be at least 1, got {n}")
    if dataset is not None and dataset not in LOADERS:
        raise InputError("dataset", f"unknown data set {dataset!r}; known are {', '.join(LOADERS)}")
    return names


def _training_dataset(sources: Sequence[ImageSource]) -> str:
    """Returns the name of the data set that the first model was trained on; "mnist" if no source is a model."""
    return next((source.generator.card.dataset.name for source in sources if source.generator), "mnist")


def _image_shape(dataset: str, sources: Sequence[ImageSource]) -> tuple[int, int, int] | None:
    """Returns the shape (channels, height, width) to convert the real images to; None keeps their own shape.

    It is the shape of the first model that was trained on the data set. The images of a folder have no shape of their
    own, so they take that of the first source.
    """
    trained_on = [source.generator.card.dataset for source in sources if source.generator]
    shapes = [info.image_shape for info in trained_on if info.name == dataset]
    if not shapes and dataset == "folder":
        channels, height, width = sources[0].image_shape
        return channels, height, width
    return shapes[0] if shapes else None


def _preparation(dataset: str, sources: Sequence[ImageSource]) -> tuple[Fit, str]:
    """Returns the options --fit and --background of the first model that was trained on the data set, or the defaults.

    So the real images are prepared as those that the model was trained on.
    """
    cards = [source.generator.card for source in sources if source.generator]
    config = next((card.training.config for card in cards if card.dataset.name == dataset), None) or {}
    return config.get("fit", "crop"), config.get("background", DEFAULT_BACKGROUND)


def _check_source(source: ImageSource, info: Dataset) -> None:
    """Checks that the images and labels of a source fit the real images.

    Raises:
        SourceError: the images have another shape than the real ones, or labels are not classes of the data set.
    """
    if source.image_shape != info.image_shape:
        raise SourceError(
            f"{source.name}: its images have the shape {source.image_shape}, but those of {info.name} have "
            f"{info.image_shape}; convert the images, or choose other real images with --dataset"
        )
    labels = source.origin.labels if isinstance(source.origin, ImageArrays) else None
    classes = len(info.class_names)
    if source.generator and len(source.generator.card.class_names) > classes:
        raise SourceError(
            f"{source.name}: it has {len(source.generator.card.class_names)} classes, but {info.name} has {classes}; "
            "choose other real images with --dataset"
        )
    if labels is not None and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise SourceError(
            f"{source.name}: its labels must be from 0 to {classes - 1}, the classes of {info.name}, "
            f"but are from {int(labels.min())} to {int(labels.max())}"
        )


def _number_of_images(n: int | None, dataset: str, sources: Sequence[ImageSource], real: RealImages) -> int:
    """Returns the number of images of each source and of the baseline, at most `n`.

    It is the same for all of them, because several metrics depend on it.
    """
    n = n or (STACKED_IMAGES if dataset == "stacked-mnist" else IMAGES)
    return min(
        n, len(real.train), *(len(source.origin) for source in sources if isinstance(source.origin, ImageArrays))
    )


def _baseline_samples(names: Iterable[str], n: int, test_sample: Sample) -> dict[str, Sample]:
    """Returns the real images that replace generated ones, by metric name.

    `Metric.baseline` selects n random training images or all test images.
    """
    train = test_sample.context.train
    chosen = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:n]
    train_sample = Sample(test_sample.context, train.images[chosen], train.labels[chosen])
    samples = {"train": train_sample, "test": test_sample}
    return {name: samples[METRICS[name].baseline] for name in names}


def _measure_all(samples: Mapping[str, Sample], title: str, progress: Progress, bar: TaskID) -> Measurements:
    """Measures metrics, each on the sample that is given under its name, and advances the bar by one for each."""
    measurements: Measurements = {}
    for name, sample in samples.items():
        progress.update(bar, description=f"{title}: {METRICS[name].title}")
        try:
            measurements[name] = measure(METRICS[name], sample)
        except MetricError as error:
            measurements[name] = error
        progress.advance(bar)
    return measurements


def _conditions(dataset: str, n: int, real: RealImages) -> tuple[str, ...]:
    """Returns lines that say which images were compared."""
    return (
        f"{dataset}: {n:,} images of each source, compared with {len(real.test):,} real images {real.test_description}",
        f"real data (baseline): {n:,} of the {len(real.train):,} training images in place of generated ones; "
        "for nearest and memorised, the images that sources are compared with",
    )


def _foreign_models(sources: Iterable[ImageSource], info: Dataset) -> tuple[str, ...]:
    """Returns lines that name the models that were, or may have been, trained on other images than these."""
    lines = []
    for source in sources:
        if source.generator and source.generator.card.dataset.sha256 is None:
            lines.append(f"{source.name}: its training images are unknown, so it may have been trained on other images")
        elif source.generator and source.generator.card.dataset.sha256 != info.sha256:
            lines.append(f"{source.name}: was trained on a different version of the data set, or on another data set")
    return tuple(lines)
