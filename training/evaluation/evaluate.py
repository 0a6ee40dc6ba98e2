"""Command `evaluate`: measures the quality of generated images and prints each metric next to that of real images.

    evaluate a.onnx --data-dir data                       # a model file
    evaluate a.onnx runs/b others.npz --report report     # several sources, with an HTML page of pictures

The images 0 to n - 1 of seed 0 are measured, so the same file gives the same metrics; only its speed is measured anew.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from models.common.commands import Version, command, interruptible_imports, optional
from models.common.files import check_writable, write_atomically
from models.common.threads import set_threads


@dataclass(frozen=True)
class Options:
    """Measures the quality of generated images against real ones.

    Prints a table with one column for each source and one for real images, whose values are what a perfect generator
    would get (the real-data baseline). A model generates the images 0 to n - 1 of seed 0, so the same file always has
    the same metrics; only its speed is measured anew.
    """

    sources: Annotated[tuple[Path, ...], tyro.conf.Positional, optional("SOURCE ...", "none")]
    """Model files (.onnx), runs or checkpoints, which are measured with and without EMA, and .npz files.
    An .npz file has an array "images" (uint8) and optionally "labels"."""
    data_dir: Annotated[Path | None, optional("DIR", "$MNIST_GAN_DATA, else data")] = None
    """Folder of the data sets. Missing ones are downloaded.
    For models of a folder of images: the folder itself, which must be given."""
    dataset: Annotated[str | None, optional("NAME", "the data set of the first model, else mnist")] = None
    """Real images with which the sources are compared."""
    n: Annotated[int | None, optional("INT", "10000; for stacked-mnist 26000, by its protocol")] = None
    """Number of images of each source."""
    metrics: Annotated[tuple[str, ...] | None, optional("NAME ...", "all")] = None
    """Metrics to measure:
    fid, kid, precision, recall, density, coverage, modes,
    class_balance, label_agreement, confidence,
    accuracy_score, nearest, memorised."""
    truncation: tuple[float, ...] = (1.0,)
    """Factors of the latents, each above 0 and at most 1. Models are measured with each of them.
    Smaller values make images more typical and less varied."""
    fit_classifier: bool = False
    """Train a classifier on the real images, from whose features the metrics are computed.
    All data sets need it except mnist and stacked-mnist, which have a pinned classifier."""
    allow_weak_classifier: bool = False
    """Measure all metrics even if the classifier does not separate the classes of real images."""
    network: Annotated[tuple[str, ...], optional("MODULE:CLASS ...", "none")] = ()
    """Classes of the generators of runs and checkpoints, if they are your own. Their modules are imported.
    Model files do not need it."""
    threads: Annotated[int | None, optional("INT", "$OMP_NUM_THREADS, else the number of CPUs that are idle")] = None
    """Number of CPU threads."""
    json: Annotated[Path | None, optional("FILE", "no file")] = None
    """JSON file to write the metrics to."""
    report: Annotated[Path | None, optional("DIR", "no page")] = None
    """Folder to write an HTML page with the metrics and pictures to."""
    version: Version = False


@command("evaluate")
def main() -> None:
    options = tyro.cli(Options, prog="evaluate", args=sys.argv[1:] or ["--help"])
    threads = set_threads(options.threads)

    # Importing PyTorch takes seconds; --help and errors in options should not wait for it.
    with interruptible_imports("evaluate", "PyTorch"):
        from training.evaluation.classifier import ClassifierError
        from training.evaluation.evaluator import evaluate_sources
        from training.evaluation.html_report import write_report
        from training.evaluation.sources import open_sources
        from training.evaluation.tables import print_report

    if options.network:
        from models.networks.own import import_network

        for network in options.network:
            import_network(network)
    if options.json:
        check_writable(options.json)
    report = evaluate_sources(
        open_sources(options.sources, options.truncation),
        options.data_dir,
        options.dataset,
        options.n,
        options.metrics,
        options.fit_classifier,
        options.allow_weak_classifier,
    )
    print(threads)
    print_report(report)
    if options.json:
        write_atomically(options.json, json.dumps(report.to_dict(), indent=2).encode() + b"\n")
    if options.report:
        page = write_report(report, options.report)
        print(f"{page}: metrics with pictures")
    if report.classifier_problem and not options.allow_weak_classifier:
        raise ClassifierError(
            f"{report.classifier_problem}. Metrics that depend on it were not measured; "
            "--allow-weak-classifier measures them"
        )


if __name__ == "__main__":
    main()
