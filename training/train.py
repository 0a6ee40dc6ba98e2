"""Trains a GAN.

    train --preset mlp --data-dir data --out runs/a --epochs 50      # the textbook GAN
    train --preset fast --minutes 10 --out runs/b                    # what a CPU can do in ten minutes
    train --resume runs/a                                            # goes on, to the same bits
    torchrun --nproc-per-node 2 -m training.train --out runs/c       # on two GPUs
    train --help                                                     # everything that can be set

A run is a folder: config.json, checkpoints/ (the last two), metrics.jsonl, samples/ (one sheet an epoch, always from
the same latents), samples.gif and tensorboard/. Ctrl-C and SIGTERM save before they end.
Exit codes: 66 if the data set cannot be had, 130 or 143 after a signal, 1 for any other error.
"""

import os
import sys

from training.config import parse

# Read when PyTorch loads OpenMP. By default its threads spin for milliseconds while they wait for each other, which on
# a machine that has other work burns the time of the very thread they wait for: 42 instead of 581 images/s with `fast`
# on 2 cores of which one is busy (benchmarks/results/openmp-spin.md).
os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def main() -> None:
    command = parse()

    # Imported only now: PyTorch takes seconds, and --help or a mistyped option should not wait for it.
    from models.checkpoint import CheckpointError
    from training.data import DataError, DataUnavailableError
    from training.loop import RunError, dry_run, train
    from training.step import PrecisionError

    out = command.config.out
    try:
        if command.dry_run:
            print(dry_run(command.config))
            return
        interrupted = train(command.config, command.resume)
    except DataUnavailableError as error:
        print(f"train: {error}", file=sys.stderr)
        sys.exit(os.EX_NOINPUT)
    except (RunError, DataError, PrecisionError, CheckpointError) as error:
        sys.exit(f"train: {error}")
    except OSError as error:
        sys.exit(f"train: {error.filename}: {error.strerror}")
    if interrupted:
        sys.exit(128 + interrupted)  # as a shell reports a process that a signal ended
    if int(os.environ.get("RANK", 0)) == 0:
        print(f"{out}: done. Next: export-onnx {out} --out {out}/generator.onnx")


if __name__ == "__main__":
    main()
