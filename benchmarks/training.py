"""How fast training is: ours against the textbook loop as it is commonly written, in turn on one machine.

    python benchmarks/training.py --data-dir data --json benchmarks/results/training.json

Both loops of the first table have the same networks, batch and arithmetic; `benchmarks/training_loops.py` has both.
The floor is what the machine could do at best: the floating-point operations at the speed of a large matrix product, or
one launch for each operation, whichever is longer.
The second table is the `r3gan` preset: what its penalties cost, and what capturing the step brings (on a GPU).
"""

import json
import os
import statistics
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch.utils._python_dispatch import TorchDispatchMode

sys.path[0] = str(Path(__file__).parents[1])  # not this folder, in which this file would hide the package `training`

from benchmarks.machine import machine
from benchmarks.training_loops import (
    alternate,
    best_seconds,
    matrix_flops,
    package_loop,
    step_flops,
    tutorial_loop,
)
from training.batches import Batches
from training.config import Config
from training.data import LabelledImages, load_dataset
from training.distributed import Group
from training.precision import resolve_device, resolve_precision
from training.presets import PRESETS
from training.state import State
from training.step import Step


@dataclass(frozen=True)
class Options:
    """Measures images/s of training, in rounds that take turns."""

    data_dir: Path = Path(os.environ.get("MNIST_GAN_DATA", "data"))
    rounds: int = 5
    """The median over them is told, with the smallest and the largest."""
    seconds: float = 3
    """About how long each round of each loop lasts."""
    json: Path | None = None
    """File for the metrics."""


class _Operations(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):  # type: ignore[no-untyped-def]
        self.count += 1
        return function(*arguments, **keywords or {})


def floor(config: Config, data: LabelledImages) -> dict[str, float]:
    """The images/s that the machine allows at best: by its matrix rate, and by launching each operation."""
    step = Step(State(config, data.info), config)
    batches = Batches(data, config, Group())
    step(batches.at(0))
    with _Operations() as operations:
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
    config = replace(Config(), device=device, precision="fp32", images=1)
    data = load_dataset("mnist", options.data_dir).to(torch.device(device))
    loops = {"as commonly written": tutorial_loop(config, data), "ours": package_loop(config, data)}
    return {
        "images_per_second": alternate(loops, config.batch_size, options.seconds, options.rounds),
        "floor": floor(config, data),
    }


def r3gan(options: Options, device: str) -> dict:
    precision = resolve_precision("auto", device)
    config = replace(
        Config(preset="r3gan", **PRESETS["r3gan"]), device=device, precision=precision, images=1, burn_in=0
    )
    data = load_dataset("mnist", options.data_dir).to(torch.device(device))
    loops = {
        "ours": package_loop(config, data),
        "without penalties": package_loop(replace(config, penalty="none"), data),
    }
    if device == "cuda":
        loops["not captured"] = package_loop(replace(config, cuda_graph=False), data)
    measured = alternate(loops, config.batch_size, options.seconds, options.rounds)
    return {"precision": precision, "images_per_second": measured}


def table(title: str, taken: dict[str, list[float]], baseline: str) -> Table:
    result = Table("", "images/s", "from", "to", "ratio", title=title)
    base = statistics.median(taken[baseline])
    for name, values in taken.items():
        median = statistics.median(values)
        result.add_row(name, f"{median:,.0f}", f"{min(values):,.0f}", f"{max(values):,.0f}", f"{median / base:.2f}")
    return result


def main() -> None:
    options = tyro.cli(Options, config=(tyro.conf.HelptextFromCommentsOff,))
    device = resolve_device("auto")
    told = {"machine": machine(device), "options": asdict(options) | {"data_dir": None, "json": None}}
    console = Console()
    console.print(told["machine"])

    told["textbook"] = textbook(options, device)
    taken, limit = told["textbook"]["images_per_second"], told["textbook"]["floor"]
    console.print(table("textbook GAN, batch 64, fp32", taken, "as commonly written"))
    best = min(limit["images_per_second_by_flops"], limit["images_per_second_by_launches"])
    console.print(
        f"floor: {limit['flops_per_image'] / 1e6:.1f} MFLOP an image at {limit['matrix_flops_per_second'] / 1e9:.0f} "
        f"GFLOP/s allow {limit['images_per_second_by_flops']:,.0f} images/s; {limit['operations_per_step']:.0f} "
        f"operations a step at {limit['launch_seconds'] * 1e6:.1f} us allow "
        f"{limit['images_per_second_by_launches']:,.0f}; ours is at {statistics.median(taken['ours']) / best:.0%}"
    )

    told["r3gan"] = r3gan(options, device)
    taken = told["r3gan"]["images_per_second"]
    console.print(table(f"r3gan, batch 128, {told['r3gan']['precision']}", taken, "ours"))
    share = 1 - statistics.median(taken["ours"]) / statistics.median(taken["without penalties"])
    console.print(f"the penalties take {share:.0%} of the time")
    if options.json:
        options.json.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
