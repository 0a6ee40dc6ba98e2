"""Quality that `export-onnx` measures: the metrics on the card, and what an fp16 or int8 file loses against fp32."""

import math
from pathlib import Path
from typing import Any

from models.export.parity import ParityError
from models.onnx_file.generator import Generator
from training.evaluation.classifier import ClassifierError
from training.evaluation.evaluation_report import EvaluatedSource, EvaluationReport
from training.evaluation.evaluator import evaluate_sources
from training.evaluation.metrics import Measurement
from training.evaluation.sources import ImageSource

MAX_FID_RATIO = 1.25
"""Allowed ratio of the classifier FID of an fp16 or int8 file to that of its fp32 original."""
MAX_LABEL_AGREEMENT_LOSS = 0.005
"""Allowed decrease of the label agreement, a share from 0 to 1, of an fp16 or int8 file against its fp32 original."""


def evaluate_generator(generator: Generator, data_dir: Path | None) -> EvaluationReport:
    """Measures every metric of `evaluate` on one generator.

    Args:
        generator: an exported file; its card names the data set.
        data_dir: folder of the data sets; None: the default of `evaluate`.

    Raises:
        InputError, DataError, ClassifierError, SourceError: the generator cannot be evaluated.
    """
    return evaluate_sources([ImageSource(generator.card.name, generator)], data_dir, fit_classifier=True)


def compare_with_original(
    original: Generator, variant: Generator, data_dir: Path | None, all_metrics: bool = False
) -> EvaluationReport:
    """Evaluates an fp32 file and its conversion to fp16 or int8 on the same real images.

    Args:
        original: the fp32 file.
        variant: the fp16 or int8 file that was converted from it.
        data_dir: folder of the data sets; None: the default of `evaluate`.
        all_metrics: measures every metric of `evaluate`, not only those that `check_quality_loss` needs.

    Returns:
        a report of two sources, named by their precision: the original, then the variant.

    Raises:
        InputError, DataError, SourceError: the files cannot be evaluated.
        ClassifierError: the classifier does not separate the classes, so a comparison would be meaningless.
    """
    sources = [ImageSource(generator.card.precision, generator) for generator in (original, variant)]
    metrics = None if all_metrics else ("fid", "label_agreement")
    report = evaluate_sources(sources, data_dir, metrics=metrics, fit_classifier=True)
    if report.classifier_problem:
        raise ClassifierError(f"the quality cannot be compared, as {report.classifier_problem}")
    return report


def check_quality_loss(report: EvaluationReport) -> None:
    """Checks that a variant is nearly as good as its original, in classifier FID and label agreement.

    Args:
        report: the report of `compare_with_original`.

    Raises:
        ParityError: the variant is worse by more than is allowed.
    """
    original, variant = (_measured_values(source) for source in report.results)
    if not variant["fid"] <= MAX_FID_RATIO * original["fid"]:
        raise ParityError(
            f"quality: the classifier FID rises from {original['fid']:.4g} to {variant['fid']:.4g}; "
            f"at most {MAX_FID_RATIO} times the original is allowed"
        )
    if "label_agreement" in original:
        loss = original["label_agreement"] - variant["label_agreement"]
        if not loss <= MAX_LABEL_AGREEMENT_LOSS:
            raise ParityError(
                f"quality: the label agreement falls by {loss:.2%}; at most {MAX_LABEL_AGREEMENT_LOSS:.2%} is allowed"
            )


def card_quality(report: EvaluationReport, source: EvaluatedSource) -> dict[str, Any]:
    """Selects the quality metrics for a card.

    Args:
        report: the evaluation.
        source: one of its sources.

    Returns:
        value by name of each metric that was measured and is finite, the FID relative to that of real images as
        "fid_ratio", and the number of images as "images".
    """
    quality = _measured_values(source) | {
        "fid_ratio": report.fid_ratio(source.measurements),
        "images": len(source.sample),
    }
    return {name: value for name, value in quality.items() if value is not None and math.isfinite(value)}


def _measured_values(source: EvaluatedSource) -> dict[str, float]:
    return {name: value.value for name, value in source.measurements.items() if isinstance(value, Measurement)}
