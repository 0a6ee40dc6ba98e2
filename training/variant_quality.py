"""What another precision costs: the variant beside the fp32 file that it was made from, in quality and in price."""

from dataclasses import dataclass
from pathlib import Path

from models.export.parity import ParityError
from models.onnx_file.generator import Generator
from training.card_quality import measured
from training.evaluation.classifier import ClassifierError
from training.evaluation.evaluation_report import EvaluationReport
from training.evaluation.evaluator import evaluate_sources
from training.evaluation.sources import ImageSource

MAX_FID_TIMES = 1.25
"""How many times the fp32 file's Frechet distance a variant's may be."""
MAX_AGREEMENT_LOST = 0.005
"""Of the labels that the classifier reads as asked for."""


@dataclass(frozen=True)
class VariantQuality:
    """A report on two files: the fp32 one, then its variant."""

    report: EvaluationReport

    def check(self) -> None:
        """Raises:
        ParityError: the variant loses too much.
        """
        before, after = map(measured, self.report.results)
        if not after["fid"] <= MAX_FID_TIMES * before["fid"]:
            raise ParityError(
                f"quality: the classifier FID goes from {before['fid']:.4g} to {after['fid']:.4g}, "
                f"at most {MAX_FID_TIMES} times as much is allowed"
            )
        if "label_agreement" in before:
            lost = before["label_agreement"] - after["label_agreement"]
            if not lost <= MAX_AGREEMENT_LOST:
                raise ParityError(
                    f"quality: the label agreement falls by {lost:.2%}, at most {MAX_AGREEMENT_LOST:.2%} is allowed"
                )


def compare(
    original: Generator, variant: Generator, data_dir: Path | None, all_metrics: bool = False
) -> VariantQuality:
    """Evaluates both on the real images of the data set that they were trained on.

    Args:
        all_metrics: measure every metric of `evaluate`, not only those that are compared.

    Raises:
        InputError, DataError, ClassifierError, SourceError: they cannot be judged.
    """
    sources = [ImageSource(generator.card.precision, generator) for generator in (original, variant)]
    metrics = None if all_metrics else ("fid", "label_agreement")
    report = evaluate_sources(sources, data_dir, metrics=metrics, fit_classifier=True)
    if report.classifier_problem:
        raise ClassifierError(f"the quality cannot be compared, as {report.classifier_problem}")
    return VariantQuality(report)
