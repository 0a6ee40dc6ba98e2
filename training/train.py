"""Trains a GAN.

    train --preset mlp --data-dir data --out runs/a --epochs 50      # the textbook GAN
    train --help                                                     # everything that can be set

A run is a folder: config.json, generator.safetensors (the checkpoint, renewed every epoch), metrics.jsonl, samples/
(one sheet an epoch, always from the same latents) and tensorboard/. Ctrl-C and SIGTERM save before they end.
Exit codes: 66 if the data set cannot be had, 130 or 143 after a signal, 1 for any other error.
"""

import os
import sys

from training import config


def main() -> None:
    run = config.parse()

    # Imported only now: PyTorch takes seconds, and --help or a mistyped option should not wait for it.
    from training.data import DataError, DataUnavailableError
    from training.loop import RunError, train
    from training.step import PrecisionError

    try:
        interrupted = train(run)
    except DataUnavailableError as error:
        print(f"train: {error}", file=sys.stderr)
        sys.exit(os.EX_NOINPUT)
    except (RunError, DataError, PrecisionError) as error:
        sys.exit(f"train: {error}")
    except OSError as error:
        sys.exit(f"train: cannot write {error.filename}: {error.strerror}")
    if interrupted:
        sys.exit(128 + interrupted)  # as a shell reports a process that a signal ended
    print(f"{run.out}: done. Next: export-onnx {run.out} --out {run.out}/generator.onnx")


if __name__ == "__main__":
    main()
