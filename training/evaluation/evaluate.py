"""Judges generators, by images they draw: one table, every metric beside its noise floor.

    evaluate a.onnx --data-dir data                       # the file that ships
    evaluate a.onnx runs/b others.npz --report report     # several side by side, with pictures

The noise floor is the same metric of as many real training images: what a perfect generator would get. Images 0 to
n - 1 of seed 0 are judged, so that the same file gives the same metrics; only its speed is measured anew.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from models.common.commands import interruptible_imports, report_errors_in_one_line
from models.common.files import check_writable, write_atomically
from models.common.threads import set_threads


@dataclass(frozen=True)
class Options:
    """Judges generators by images they draw: one table, every metric beside its noise floor."""

    sources: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Model files, runs (judged with and without averaged weights), or .npz files of `images` and perhaps `labels`."""
    data_dir: Path | None = None
    """Folder of the data sets; $MNIST_GAN_DATA if omitted, else data. For a data set that was a folder, the folder
    itself, which has no default."""
    dataset: str | None = None
    """The real images; if omitted, those that the first model was trained on, else mnist."""
    n: int | None = None
    """How many images to judge; 10,000 if omitted, and 26,000 for stacked-mnist, as its protocol has it."""
    metrics: tuple[str, ...] | None = None
    """Only these; all of them if omitted."""
    fit_classifier: bool = False
    """For data other than MNIST: train the classifier, from whose features the metrics are made, on that data."""
    allow_weak_classifier: bool = False
    """Measure even if the classifier does not separate the classes of real images."""
    threads: int | None = None
    """CPU threads; if omitted: $OMP_NUM_THREADS, else the number of CPUs that are idle at the start."""
    json: Path | None = None
    """File for the metrics."""
    report: Path | None = None
    """Folder for a page with the metrics and pictures."""


@report_errors_in_one_line("evaluate")
def main() -> None:
    options = tyro.cli(Options, prog="evaluate")
    threads = set_threads(options.threads)

    # Imported only now: PyTorch takes seconds, and --help or a mistyped option should not wait for it.
    with interruptible_imports("evaluate", "PyTorch"):
        from training.evaluation.classifier import ClassifierError
        from training.evaluation.evaluator import evaluate_sources
        from training.evaluation.html_report import write_report
        from training.evaluation.sources import open_sources

    if options.json:
        check_writable(options.json)
    report = evaluate_sources(
        open_sources(options.sources),
        options.data_dir,
        options.dataset,
        options.n,
        options.metrics,
        options.fit_classifier,
        options.allow_weak_classifier,
    )
    print(threads)
    report.show()
    if options.json:
        write_atomically(options.json, json.dumps(report.to_dict(), indent=2).encode() + b"\n")
    if options.report:
        write_report(report, options.report)
        print(f"{options.report / 'index.html'}: the metrics with pictures")
    if report.weakness and not options.allow_weak_classifier:
        raise ClassifierError(
            f"{report.weakness}. Metrics that depend on it are left out; --allow-weak-classifier measures them"
        )


if __name__ == "__main__":
    main()
