"""Does the finite-difference penalty train as well as R1 + R2, which it estimates, and at which price?

    python benchmarks/penalties.py --data-dir data --json benchmarks/results/penalties.json

Trains the same class-conditional GAN under each penalty and without one, from the same seeds, on as many images, and
judges each by the fast metrics of `evaluate` on the averaged weights.
"""

import json
import os
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

sys.path[0] = str(Path(__file__).parents[1])  # not this folder, in which training.py would hide the package

from benchmarks.machine import machine
from training.config import Architecture, Config
from training.evaluation.evaluator import evaluate_sources
from training.evaluation.metrics import FAST
from training.evaluation.sources import open_sources
from training.loop import train

PENALTIES = ("r1+r2", "finite-difference", "none")
TOLD = ("fid", "recall", "label_agreement")


@dataclass(frozen=True)
class Options:
    """Trains under each penalty and compares what comes out."""

    data_dir: Path = Path(os.environ.get("MNIST_GAN_DATA", "data"))
    images: int = 300_000
    seeds: int = 2
    discriminator: Architecture = "mlp"
    discriminator_widths: tuple[int, ...] = (512, 256)
    json: Path | None = None
    """File for the metrics."""


def main() -> None:
    options = tyro.cli(Options, config=(tyro.conf.HelptextFromCommentsOff,))
    config = Config(
        data_dir=options.data_dir,
        generator_widths=(256, 512),
        discriminator=options.discriminator,
        discriminator_widths=options.discriminator_widths,
        latent_dim=64,
        conditional=True,
        loss="relativistic",
        generator_data="fresh",
        betas=(0.0, 0.99),
        gamma=1.0,
        ema_half_life=20_000,
        images=options.images,
    )
    results: dict[str, list[dict]] = {penalty: [] for penalty in PENALTIES}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.seeds):
            for penalty in PENALTIES:
                run = Path(folder) / f"{penalty}-{seed}"
                train(replace(config, out=run, seed=seed, penalty=penalty))
                speeds = [json.loads(line)["images_per_second"] for line in (run / "metrics.jsonl").open()]
                verdict = evaluate_sources(open_sources([run]), options.data_dir, metrics=FAST).to_dict()
                averaged = verdict["sources"][f"{run.name}, EMA"]
                results[penalty].append(
                    {name: averaged["metrics"][name]["value"] for name in TOLD}
                    | {"fid_ratio": averaged["fid_ratio"], "images_per_second": statistics.median(speeds)}
                )

    table = Table("penalty", "images/s", "FID over its floor", "recall", "label agreement", title="one cell a seed")
    for penalty, seeds in results.items():
        columns = ("images_per_second", "{:,.0f}"), ("fid_ratio", "{:.1f}"), ("recall", "{:.3f}")
        cells = [", ".join(form.format(seed[name]) for seed in seeds) for name, form in columns]
        table.add_row(penalty, *cells, ", ".join(f"{seed['label_agreement']:.1%}" for seed in seeds))
    told = {"machine": machine("cpu"), "options": asdict(options) | {"data_dir": None, "json": None}, "runs": results}
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
