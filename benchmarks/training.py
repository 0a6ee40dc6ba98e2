"""Training speed of this project, compared with the loop that tutorials use and with the limits of the machine.

    python -m benchmarks.training --data-dir data --json benchmarks/results/training.json

Both loops of the first table, which are in `benchmarks.training_loops`, have the same networks, batch size and
arithmetic. The speed is compared with two limits of the machine: all floating-point operations at the rate of a large
matrix product, and one launch for each operation.
The second table shows the cost of the penalties of the `r3gan` preset and, on a GPU, the gain from the CUDA graph.
"""

import statistics
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import tyro
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.report import print_table, write_json
from benchmarks.training_loops import (
    alternate,
    best_seconds,
    matrix_flops,
    package_loop,
    step_flops,
    tutorial_loop,
)
from models.common.commands import command
from training.batches import Batches
from training.config import Config
from training.data import LabelledImages, load_dataset
from training.data_dir import default_data_dir
from training.distributed import Group
from training.precision import resolve_device, resolve_precision
from training.presets import PRESETS
from training.state import State
from training.step import Step


@dataclass(frozen=True)
class Options:
    """Measures images per second of training, in alternating rounds."""

    data_dir: Path = field(default_factory=default_data_dir)
    rounds: int = 5
    """Number of rounds. Their median, minimum and maximum are reported."""
    seconds: float = 3
    """Approximate duration of each round of each loop."""
    json: Path | None = None
    """File for the measurements."""


class _OperationCounter(TorchDispatchMode):
    """Counts the operations that PyTorch dispatches while the mode is active."""

    count = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):  # type: ignore[no-untyped-def]
        self.count += 1
        return function(*arguments, **keywords or {})


def machine_limits(config: Config, data: LabelledImages) -> dict[str, float]:
    """Measures the maximum images/s that the machine allows by its matrix rate and by its launch time, and both."""
    step = Step(State(config, data.info), config)
    batches = Batches(data, config, Group())
    step(batches.at(0))
    with _OperationCounter() as operations:
        step(batches.at(0))
    flops = step_flops(config, data)
    rate = matrix_flops(2048, torch.float32, config.device)
    scalar = torch.zeros((), device=config.device)
    launch = best_seconds(lambda: [scalar.add_(1) for _ in range(1_000)], config.device, 10) / 1_000
    return {
        "flops_per_image": flops / config.batch_size,
        "operations_per_step": operations.count,
        "matrix_flops_per_second": rate,
        "launch_seconds": launch,
        "images_per_second_by_flops": rate * config.batch_size / flops,
        "images_per_second_by_launches": config.batch_size / (launch * operations.count),
    }


def textbook(options: Options, device: str) -> dict:
    """Measures the images/s of both loops, and the limits of the machine for them."""
    config = replace(Config(), device=device, precision="fp32", images=1)
    data = load_dataset("mnist", options.data_dir).to(torch.device(device))
    loops = {"tutorial's loop": tutorial_loop(config, data), "this project": package_loop(config, data)}
    return {
        "images_per_second": alternate(loops, config.batch_size, options.seconds, options.rounds),
        "machine_limits": machine_limits(config, data),
    }


def r3gan(options: Options, device: str) -> dict:
    """Measures the images/s of the `r3gan` preset, without its penalties and, on a GPU, without a CUDA graph."""
    precision = resolve_precision("auto", device)
    config = replace(
        Config(preset="r3gan", **PRESETS["r3gan"]), device=device, precision=precision, images=1, burn_in=0
    )
    data = load_dataset("mnist", options.data_dir).to(torch.device(device))
    loops = {
        "this project": package_loop(config, data),
        "without penalties": package_loop(replace(config, penalty="none"), data),
    }
    if device == "cuda":
        loops["without CUDA graph"] = package_loop(replace(config, cuda_graph=False), data)
    measured = alternate(loops, config.batch_size, options.seconds, options.rounds)
    return {"precision": precision, "images_per_second": measured}


def print_speeds(title: str, speeds: dict[str, list[float]], baseline: str) -> None:
    """Prints the median, minimum and maximum of each loop, and the median's ratio to that of the baseline."""
    base = statistics.median(speeds[baseline])
    rows = []
    for name, values in speeds.items():
        median = statistics.median(values)
        rows.append((name, f"{median:,.0f}", f"{min(values):,.0f}", f"{max(values):,.0f}", f"{median / base:.2f}"))
    print_table(("loop", "images/s", "minimum", "maximum", "ratio"), rows, title=title)


@command("benchmarks.training")
def main(options: Options) -> None:
    device = resolve_device("auto")
    textbook_results = textbook(options, device)
    speeds, limits = textbook_results["images_per_second"], textbook_results["machine_limits"]
    print_speeds("textbook GAN, batch 64, fp32", speeds, "tutorial's loop")
    limit = min(limits["images_per_second_by_flops"], limits["images_per_second_by_launches"])
    flops, rate = limits["flops_per_image"] / 1e6, limits["matrix_flops_per_second"] / 1e9
    operations, launch = limits["operations_per_step"], limits["launch_seconds"] * 1e6
    print(
        f"Limits of the machine: {limits['images_per_second_by_flops']:,.0f} images/s "
        f"({flops:.1f} MFLOP an image at {rate:.0f} GFLOP/s) and "
        f"{limits['images_per_second_by_launches']:,.0f} images/s "
        f"({operations:.0f} operations a step at {launch:.1f} us). "
        f"This project reaches {statistics.median(speeds['this project']) / limit:.0%} of the lower limit."
    )

    r3gan_results = r3gan(options, device)
    speeds = r3gan_results["images_per_second"]
    print_speeds(f"r3gan, batch 128, {r3gan_results['precision']}", speeds, "this project")
    share = 1 - statistics.median(speeds["this project"]) / statistics.median(speeds["without penalties"])
    print(f"The penalties take {share:.0%} of the time.")
    write_json(options.json, options, {"textbook": textbook_results, "r3gan": r3gan_results}, device=device)


if __name__ == "__main__":
    main(tyro.cli(Options, config=(tyro.conf.HelptextFromCommentsOff,)))
