"""Results of an evaluation as data; `tables` and `html_report` present them."""

from dataclasses import asdict, dataclass
from typing import Any

from training.evaluation.cost import Cost
from training.evaluation.metrics import Measurement, MetricError, Sample
from training.evaluation.sources import ImageSource
from training.evaluation.stacked_mnist import Published

Measurements = dict[str, Measurement | MetricError]
"""Values by metric name. A `MetricError` says why a metric could not be measured."""


@dataclass(frozen=True)
class EvaluatedSource:
    """A source with its measurements."""

    source: ImageSource
    sample: Sample
    """Images that were measured."""
    measurements: Measurements
    cost: Cost | None
    """Cost of generating the images; None if they are from a file."""


@dataclass(frozen=True)
class EvaluationReport:
    """Measurements of all sources and of real images under the same conditions."""

    results: tuple[EvaluatedSource, ...]
    """One entry per source, in the order of the sources."""
    real_data_baseline: Measurements
    """The same metrics, measured on real images in place of generated ones."""
    test_sample: Sample
    """Real images with which the sources were compared."""
    conditions: tuple[str, ...]
    """Sentences about the conditions: numbers of images, real images, classifier."""
    classifier_problem: str | None = None
    """Explains that the classifier does not separate the classes; None if it does, or if no metric needs it."""
    published: tuple[Published, ...] = ()
    """Published results on the same data set under the same protocol."""

    def fid_ratio(self, measurements: Measurements) -> float | None:
        """Returns the classifier FID divided by that of real data: about 1 if perfect; None if it was not measured."""
        fid, real = measurements.get("fid"), self.real_data_baseline.get("fid")
        return fid.value / real.value if isinstance(fid, Measurement) and isinstance(real, Measurement) else None

    def to_dict(self) -> dict[str, Any]:
        """Converts the report to the values that `evaluate --json` writes.

        A metric is {"value": number, "standard_error": number or null} or {"missing": reason}. The images and
        the published results are not included.
        """
        return {
            "conditions": self.conditions,
            "sources": {
                result.source.name: {
                    "images": len(result.sample),
                    "file_sha256": result.source.generator and result.source.generator.card.file_sha256,
                    "metrics": _measurements_to_dict(result.measurements),
                    "fid_ratio": self.fid_ratio(result.measurements),
                    "cost": result.cost and asdict(result.cost),
                }
                for result in self.results
            },
            "real_data_baseline": _measurements_to_dict(self.real_data_baseline),
        }


def _measurements_to_dict(measurements: Measurements) -> dict[str, Any]:
    return {
        name: {"missing": str(value)} if isinstance(value, MetricError) else asdict(value)
        for name, value in measurements.items()
    }
