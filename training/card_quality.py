"""The quality metrics on a model file's card, measured on the generator that is exported."""

import math
from pathlib import Path
from typing import Any

from models.artifact import Generator
from training.evaluation.figures import Value
from training.evaluation.judge import Candidate, Verdict, judge
from training.evaluation.sources import Source


def evaluate_generator(generator: Generator, data_dir: Path | None) -> Verdict:
    """Measures every metric of `evaluate`, on the real images of the data set that the generator was trained on.

    Raises:
        InputError, DataError, ClassifierError, SourceError: it cannot be evaluated.
    """
    return judge([Source(generator.card.name, generator)], data_dir, fit_classifier=True)


def card_quality(verdict: Verdict, candidate: Candidate) -> dict[str, Any]:
    """The metrics of one candidate, and the number of images that they were measured on."""
    quality = measured(candidate) | {"fid_ratio": verdict.ratio(candidate.values), "images": len(candidate.sample)}
    return {name: value for name, value in quality.items() if value is not None and math.isfinite(value)}


def measured(candidate: Candidate) -> dict[str, float]:
    """The metrics that could be measured."""
    return {name: value.value for name, value in candidate.values.items() if isinstance(value, Value)}
