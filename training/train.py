"""Trains a GAN.

    train --preset mlp --data-dir data --out runs/a --epochs 50      # the textbook GAN
    train --preset fast --minutes 10 --out runs/b                    # what a CPU can do in ten minutes
    train --resume runs/a                                            # goes on, to the same bits
    torchrun --nproc-per-node 2 -m training.train --out runs/c       # on two GPUs
    train --help                                                     # everything that can be set

A run is a folder: config.json, checkpoints/ (the last two), metrics.jsonl, samples/ (one sheet an epoch, always from
the same latents), samples.gif and tensorboard/. Ctrl-C and SIGTERM save before they end; a second one ends at once.
Exit codes: 66 if the data set cannot be had, 130 or 143 after a signal, 1 for any other error.
"""

import os
import shlex
import sys
from dataclasses import replace

from models.common.commands import interruptible_imports, report_errors_in_one_line
from models.common.threads import set_threads


@report_errors_in_one_line("train")
def main() -> None:
    from training.config import parse

    command = parse()
    stored = command.config.threads
    threads = set_threads(command.threads, stored)
    config = replace(command.config, threads=threads.number)
    leads = int(os.environ.get("RANK", 0)) == 0

    # Imported only now: PyTorch takes seconds, and --help or a mistyped option should not wait for it.
    with interruptible_imports("train", "PyTorch"):
        from training.loop import dry_run, train

    if command.dry_run:
        print(dry_run(config, command.resume))
        return
    if leads:
        print(threads, flush=True)
        if command.resume and stored not in (None, threads.number):
            print(
                f"So far the run used --threads {stored}. With another number, its results will differ in the last "
                "bits from those of an uninterrupted run.",
                flush=True,
            )
    if interrupted := train(config, command.resume):
        sys.exit(128 + interrupted)  # as a shell reports a process that a signal ended
    if leads:
        export = ["export-onnx", str(config.out), "--out", str(config.out / "generator.onnx")]
        print(f"{config.out}: done. Next: {shlex.join(export)}")


if __name__ == "__main__":
    main()
