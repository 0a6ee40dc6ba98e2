"""How fast training is: ours against the textbook loop as it is commonly written, in turn on one machine.

    python benchmarks/training.py --data-dir data --json benchmarks/results/training.json

Both loops of the first table have the same networks, batch and arithmetic. Theirs is DataLoader, ToTensor, Normalize
and Adam as they come; ours is `training.step` on `training.batches`. The floor is what the machine could do at best:
the floating-point operations at the speed of a large matrix product, or one launch for each operation, whichever is
longer.
The second table is the `r3gan` preset: what its penalties cost, and what capturing the step brings (on a GPU).
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from torchvision import datasets, transforms

sys.path[0] = str(Path(__file__).parents[1])  # not this folder, in which this file would hide the package `training`

from benchmarks.machine import machine
from models.architectures import NetworkConfig, build_discriminator, build_generator
from training import data as our_data
from training.batches import Batches
from training.capture import captured_where_possible
from training.config import PRESETS, Config
from training.distributed import Group
from training.state import State
from training.step import Step, resolve_device, resolve_precision
from training.widths import resolve_widths


@dataclass(frozen=True)
class Options:
    """Measures images/s of training, in rounds that take turns."""

    data_dir: Path = Path(os.environ.get("MNIST_GAN_DATA", "data"))
    rounds: int = 5
    """The median over them is told, with the smallest and the largest."""
    batches: int = 150
    """Batches of a round; the r3gan preset takes a tenth of them on a CPU."""
    json: Path | None = None
    """File for the figures."""


Round = Callable[[int], float]
"""Trains on so many batches; returns seconds."""


def theirs(config: Config, data_dir: Path) -> Round:
    """The loop of the tutorials."""
    device = torch.device(config.device)
    generator_widths, discriminator_widths = resolve_widths(config, (1, 28, 28))
    generator = build_generator(NetworkConfig("mlp", (1, 28, 28), generator_widths, 0, config.latent_dim))
    discriminator = build_discriminator(NetworkConfig("mlp", (1, 28, 28), discriminator_widths))
    generator.to(device), discriminator.to(device)
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))])
    loader = DataLoader(datasets.MNIST(data_dir, transform=transform), config.batch_size, shuffle=True)
    criterion = nn.BCEWithLogitsLoss()
    optimizer_g = torch.optim.Adam(generator.parameters(), lr=config.lr, foreach=False)
    optimizer_d = torch.optim.Adam(discriminator.parameters(), lr=config.lr, foreach=False)

    def run(batches: int) -> float:
        started = time.perf_counter()
        for i, (real, _) in enumerate(loader):
            if i == batches:
                break
            real = real.to(device)
            ones, zeros = torch.ones(len(real), device=device), torch.zeros(len(real), device=device)
            fake = generator(torch.randn(len(real), config.latent_dim, device=device))

            optimizer_d.zero_grad()
            loss_d = criterion(discriminator(real), ones) + criterion(discriminator(fake.detach()), zeros)
            loss_d.backward()
            optimizer_d.step()

            optimizer_g.zero_grad()
            loss_g = criterion(discriminator(fake), ones)
            loss_g.backward()
            optimizer_g.step()
        loss_d.item(), loss_g.item()
        return time.perf_counter() - started

    return run


def ours(config: Config, data: our_data.Images) -> Round:
    state = State(config, data.info)
    step = Step(state, config)
    advance = captured_where_possible(step)
    batches_at = Batches(data, config, Group())

    def run(batches: int) -> float:
        started = time.perf_counter()
        for _ in range(batches):
            step.schedule(total_images=10**9)
            advance(batches_at.at(state.images_seen))
            state.images_seen += config.batch_size
        state.figures()  # waits for the device
        return time.perf_counter() - started

    return run


def speeds(contenders: dict[str, Round], config: Config, batches: int, rounds: int) -> dict[str, list[float]]:
    """images/s of each round of each contender, in turn, after one round that does not count."""
    for run in contenders.values():
        run(max(5, batches // 10))
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            taken[name].append(batches * config.batch_size / run(batches))
    return taken


class _Operations(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):  # type: ignore[no-untyped-def]
        self.count += 1
        return function(*arguments, **keywords or {})


def floor(config: Config, data: our_data.Images) -> dict[str, float]:
    """The images/s that the machine allows at best: by its matrix rate, and by launching each operation."""
    step = Step(State(config, data.info), config)
    batches = Batches(data, config, Group())
    step(batches.at(0))
    with FlopCounterMode(display=False) as flops:
        step(batches.at(0))
    with _Operations() as operations:
        step(batches.at(0))
    matrix = torch.randn(2048, 2048, device=config.device)
    rate = 2 * 2048**3 / _best_seconds(lambda: matrix @ matrix, config.device, 10)
    scalar = torch.zeros((), device=config.device)
    launch = _best_seconds(lambda: [scalar.add_(1) for _ in range(1_000)], config.device, 10) / 1_000
    return {
        "flops_per_image": flops.get_total_flops() / config.batch_size,
        "operations_per_step": operations.count,
        "matrix_flops_per_second": rate,
        "launch_seconds": launch,
        "images_per_second_by_flops": rate * config.batch_size / flops.get_total_flops(),
        "images_per_second_by_launches": config.batch_size / (launch * operations.count),
    }


def _best_seconds(action: Callable[[], object], device: str, times: int) -> float:
    def timed() -> float:
        started = time.perf_counter()
        action()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    timed()
    return min(timed() for _ in range(times))


def textbook(options: Options, device: str) -> dict:
    config = replace(Config(), device=device, precision="fp32", images=1)
    data = our_data.load("mnist", options.data_dir).to(torch.device(device))
    contenders = {"as commonly written": theirs(config, options.data_dir), "ours": ours(config, data)}
    return {
        "images_per_second": speeds(contenders, config, options.batches, options.rounds),
        "floor": floor(config, data),
    }


def r3gan(options: Options, device: str) -> dict:
    precision = resolve_precision("auto", device)
    config = replace(
        Config(preset="r3gan", **PRESETS["r3gan"]), device=device, precision=precision, images=1, burn_in=0
    )
    data = our_data.load("mnist", options.data_dir).to(torch.device(device))
    contenders = {"ours": ours(config, data), "without penalties": ours(replace(config, penalty="none"), data)}
    if device == "cuda":
        contenders["not captured"] = ours(replace(config, capture=False), data)
    batches = options.batches if device == "cuda" else max(3, options.batches // 30)
    return {"precision": precision, "images_per_second": speeds(contenders, config, batches, options.rounds)}


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
