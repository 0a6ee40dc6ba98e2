"""Turns a run's generator into one ONNX file that has been proven to compute what the network computes, or into none.

    export-onnx runs/a --out a.onnx
    export-onnx runs/a --out a-int8.onnx --precision int8 --data-dir data

The file takes `latent` (float32) and, if the generator is class-conditional, `label` (int64), and yields `image`
(uint8), in every precision. `models.onnx_file.generator` opens and runs it; `models.export.parity` checks it.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from models.common.commands import interruptible_imports, report_errors_in_one_line
from models.common.errors import InputError
from models.common.files import check_writable, write_together
from models.common.threads import set_threads
from models.onnx_file.card import Precision


@dataclass(frozen=True)
class Options:
    """Turns a run's generator into one ONNX file, checked against PyTorch. Writes nothing if a check fails."""

    run: tyro.conf.Positional[Path]
    """Folder of a run, or a checkpoint file."""
    out: Path
    """The ONNX file to write."""
    name: str | None = None
    """Name on the card, in logs and in metrics; that of the run folder or checkpoint file if omitted."""
    opset: int = 20
    """Version of the ONNX standard operators."""
    precision: Precision = "fp32"
    """Of the weights. fp16 and int8 are held against fp32 in quality, too, on the real images of --data-dir."""
    evaluate: bool = False
    """Measure what `evaluate` measures, in minutes, and write it into the card as the generator's quality."""
    data_dir: Path | None = None
    """Folder of the data sets, for --evaluate, fp16 and int8; $MNIST_GAN_DATA if omitted, else data. For a data set
    that was a folder, the folder itself, which has no default."""
    report: Path | None = None
    """JSON file for the metrics and their bounds."""
    register: bool = True
    """Add the file to the BentoML model store as mnist-gan."""


@report_errors_in_one_line("export-onnx")
def main() -> None:
    options = tyro.cli(Options, prog="export-onnx")
    if options.report and options.report.resolve() == options.out.resolve():
        raise InputError("out", f"must be another file than --report, both are {options.out}")
    set_threads()

    with interruptible_imports("export-onnx"):
        from models.onnx_file.store import check_home, register

    if options.register:
        check_home()
    # Imported only now: PyTorch takes seconds, and --help or a mistyped option should not wait for it.
    with interruptible_imports("export-onnx", "PyTorch"):
        from models.checkpoint import load_checkpoint, run_name
        from models.export.exporter import export, export_variant, with_quality
        from training.card_quality import card_quality, evaluate_generator
        from training.variant_quality import compare

    for path in filter(None, (options.out, options.report)):
        check_writable(path)
    checkpoint = load_checkpoint(options.run)
    name = options.name if options.name is not None else run_name(options.run) or None
    made = export(checkpoint, options.opset, name)
    evaluation = None
    if options.precision != "fp32":
        original, made = made, export_variant(checkpoint, made, options.precision)
        quality = compare(original.generator, made.generator, options.data_dir, all_metrics=options.evaluate)
        evaluation = quality.report
        evaluation.show()
        quality.check()
    elif options.evaluate:
        evaluation = evaluate_generator(made.generator, options.data_dir)
        evaluation.show()
    parity = made.parity.report()
    if evaluation:
        made = with_quality(made, card_quality(evaluation, evaluation.sources_evaluated[-1]))
        parity |= {"quality": evaluation.to_dict()}
    generator = made.generator
    files = {options.out: generator.file}
    if options.report:
        files[options.report] = json.dumps(parity, indent=2).encode() + b"\n"
    write_together(files)

    print(made.parity)
    print(f"{options.out}: {len(generator.file) / 1e6:.1f} MB, opset {options.opset}, {options.precision}")
    if options.register:
        try:
            tag = register(generator)
        except OSError as error:
            sys.exit(
                f"export-onnx: {options.out} was written but not registered; the BentoML model store says: {error}; "
                "set BENTOML_HOME to a folder that can be written, or give --no-register"
            )
        print(f"registered as {tag}" if tag else "not registered: bentoml is not installed (pip install '.[serving]')")


if __name__ == "__main__":
    main()
