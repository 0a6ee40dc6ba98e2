"""Quality and speed of the finite-difference penalty, compared with R1 + R2, which it estimates, and with no penalty.

    python -m benchmarks.penalties --data-dir data --json benchmarks/results/penalties.json

Trains the same class-conditional GAN with each penalty and without one, from the same seeds and on the same number of
images. Evaluates the EMA weights of each run with the fast metrics of `evaluate`.
"""

import json
import statistics
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import tyro

from benchmarks.report import print_table, write_json
from models.common.commands import command
from training.config import Architecture, Config
from training.data_dir import default_data_dir
from training.evaluation.evaluator import evaluate_sources
from training.evaluation.metrics import FAST
from training.evaluation.sources import open_sources
from training.loop import train

PENALTIES = ("r1+r2", "finite-difference", "none")
METRICS = ("fid", "recall", "label_agreement")


@dataclass(frozen=True)
class Options:
    """Trains with each penalty and evaluates the results."""

    data_dir: Path = field(default_factory=default_data_dir)
    images: int = 300_000
    """Number of images that each training run processes."""
    seeds: int = 2
    """Number of training runs for each penalty, with the seeds 0, 1, ..."""
    discriminator: Architecture = "mlp"
    discriminator_widths: tuple[int, ...] = (512, 256)
    json: Path | None = None
    """File for the measurements."""


@command("benchmarks.penalties")
def main(options: Options) -> None:
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
                report = evaluate_sources(open_sources([run]), options.data_dir, metrics=FAST).to_dict()
                ema, _ = report["sources"].values()  # the second source has the weights without EMA
                results[penalty].append(
                    {name: ema["metrics"][name]["value"] for name in METRICS}
                    | {"fid_ratio": ema["fid_ratio"], "images_per_second": statistics.median(speeds)}
                )

    formats = {"images_per_second": "{:,.0f}", "fid_ratio": "{:.1f}", "recall": "{:.3f}", "label_agreement": "{:.1%}"}
    rows = [
        [penalty, *(", ".join(template.format(run[name]) for run in runs) for name, template in formats.items())]
        for penalty, runs in results.items()
    ]
    columns = ("penalty", "images/s", "FID / real-data baseline", "recall", "label agreement")
    print_table(columns, rows, title="one value for each seed")
    write_json(options.json, options, {"runs": results})


if __name__ == "__main__":
    main(tyro.cli(Options, config=(tyro.conf.HelptextFromCommentsOff,)))
