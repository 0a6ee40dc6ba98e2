"""The command `train`.

    train --preset mlp --data-dir data --out runs/a --epochs 50      # the textbook GAN
    train --preset fast --minutes 10 --out runs/b                    # about ten minutes on a CPU
    train --resume runs/a                                            # resumes a run
    torchrun --nproc-per-node 2 -m training.train --out runs/c       # on two GPUs
    train --generator my_gan:Generator --out runs/d                  # a network of your own
    train --help                                                     # all options

A run is a folder with config.json, checkpoints/ (the last two), metrics.jsonl, samples/ (one grid per epoch, always
from the same latents), samples.gif and tensorboard/. The first Ctrl-C or SIGTERM saves a checkpoint before the command
ends; the second one ends it immediately.

On the same device and with the same number of threads, the result of a resumed run is bit-for-bit that of an
uninterrupted run; a GPU also needs --deterministic.

Exit codes: 2 for a wrong option, 66 if the data set is unavailable, 130 after Ctrl-C, 143 after SIGTERM, 1 for any
other error.
"""

import os
import shlex
import sys
from dataclasses import replace

from models.common.commands import command, interruptible_imports
from models.common.threads import set_threads


@command("train")
def main() -> None:
    """Runs the command with the arguments of the program."""
    from training.command_line import parse

    command = parse()
    stored_threads = command.config.threads
    threads = set_threads(command.threads, stored_threads)
    config = replace(command.config, threads=threads.number)
    is_main_process = int(os.environ.get("RANK", 0)) == 0

    # PyTorch takes seconds to import, so --help and the message about a mistyped option come before it.
    with interruptible_imports("train", "PyTorch"):
        from models.networks.own import import_network, is_own
        from training.dry_run import dry_run
        from training.loop import train

    for network in {config.generator, config.discriminator}:
        if is_own(network):
            import_network(network)

    if command.dry_run:
        print(dry_run(config, command.resume))
        return
    if is_main_process:
        print(threads, flush=True)
        if command.resume and stored_threads not in (None, threads.number):
            print(
                f"So far the run used --threads {stored_threads}. With another number, its results will differ in the "
                "last bits from those of an uninterrupted run.",
                flush=True,
            )
    if signal_number := train(config, command.resume):
        sys.exit(128 + signal_number)  # the exit code that a shell reports for a process that a signal ended
    if is_main_process:
        export = ["export-onnx", str(config.out), "--out", str(config.out / "generator.onnx")]
        if is_own(config.generator):
            export += ["--network", config.generator]
        print(f"{config.out}: done. Next: {shlex.join(export)}")


if __name__ == "__main__":
    main()
