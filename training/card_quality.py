"""The quality metrics on a model file's card, measured on the generator that is exported."""

import math
from pathlib import Path
from typing import Any

from models.onnx_file.generator import Generator
from training.evaluation.evaluation_report import EvaluatedSource, EvaluationReport
from training.evaluation.evaluator import evaluate_sources
from training.evaluation.metrics import Measurement
from training.evaluation.sources import ImageSource


def evaluate_generator(generator: Generator, data_dir: Path | None) -> EvaluationReport:
    """Measures every metric of `evaluate`, on the real images of the data set that the generator was trained on.

    Raises:
        InputError, DataError, ClassifierError, SourceError: it cannot be evaluated.
    """
    return evaluate_sources([ImageSource(generator.card.name, generator)], data_dir, fit_classifier=True)


def card_quality(report: EvaluationReport, evaluated: EvaluatedSource) -> dict[str, Any]:
    """The metrics of one evaluated, and the number of images that they were measured on."""
    quality = measured(evaluated) | {
        "fid_ratio": report.fid_ratio(evaluated.measurements),
        "images": len(evaluated.sample),
    }
    return {name: value for name, value in quality.items() if value is not None and math.isfinite(value)}


def measured(evaluated: EvaluatedSource) -> dict[str, float]:
    """The metrics that could be measured."""
    return {name: value.value for name, value in evaluated.measurements.items() if isinstance(value, Measurement)}
