"""Measures what augmentation brings on few images: trains on 500 digits with each kind, compares with all of MNIST.

    python -m benchmarks.few_images --data-dir data --work few-images --json few-images.json

Trains one run for each augmentation and seed on the first 50 training images of each class, and measures it with the
pinned classifier against the test images: the classifier FID as a ratio to that of real images, recall, and the share
of near copies of the 500 images. Runs that are complete in the work folder are not trained again, and the JSON file is
written after each run, so the benchmark can be interrupted.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from PIL import Image

from benchmarks.report import print_table, write_json
from models.checkpoint import find_checkpoints, load_checkpoint
from models.common.commands import Count, command
from models.networks.pixels import quantize
from models.onnx_file.latents import draw_latents
from training.config import Config
from training.data import LabelledImages, load_dataset
from training.data_dir import default_data_dir
from training.evaluation.metric_context import MetricContext, make_metric_context
from training.evaluation.metrics import METRICS, Sample, measure
from training.evaluation.real_images import load_test_images
from training.evaluation.sources import SEED
from training.loop import train
from training.presets import PRESETS
from training.samples import generate

MEASURED = ("fid", "precision", "recall", "label_agreement", "memorised")
"""Metrics of `evaluate` that are measured on each run."""
BATCH = 250


@dataclass(frozen=True)
class Options:
    """Trains on few digits with each augmentation, measures the generators, and prints a table."""

    work: Path
    """Folder for the images and the runs."""
    data_dir: Path = field(default_factory=default_data_dir)
    """Folder of MNIST."""
    per_class: int = 50
    """Number of training images of each class."""
    augment: tuple[Literal["none", "diff", "ada"], ...] = ("none", "diff", "ada")
    seeds: tuple[int, ...] = (0, 1)
    normalization: Literal["batch", "spectral"] = "spectral"
    """Normalization of the discriminator. The preset fast has spectral; with batch, the discriminator overfits sooner.
    Use another work folder for each."""
    images: Annotated[Count, tyro.conf.arg(metavar="IMAGES")] = 300_000
    """Number of real images that each discriminator sees."""
    widths: tuple[int, ...] = (32, 16)
    """Widths of the generator; those of the discriminator are the same in reverse. The preset fast has 64 32."""
    samples: int = 10_000
    """Number of generated images that are measured."""
    json: Path | None = None
    """JSON file to write the measurements to."""


@command("benchmarks.few_images")
def main() -> None:
    options = tyro.cli(Options, config=(tyro.conf.HelptextFromCommentsOff,))
    mnist = load_dataset("mnist", options.data_dir)
    few = _write_folder(mnist, options)
    context, _ = make_metric_context(few, load_test_images(mnist.info, options.data_dir))
    baseline = _measure_real(context, mnist, options.samples)
    results = {"real images (baseline)": baseline, "the training images": _measure_real(context, few, options.samples)}
    for seed in options.seeds:
        for augment in options.augment:
            run = options.work / f"{augment}-{seed}"
            _train(run, augment, seed, options)
            results[run.name] = _measure(run, context, options.samples)
            for values in results.values():
                values["fid_ratio"] = values["fid"] / baseline["fid"]
            write_json(options.json, options, {"results": results})
    print_table(
        ("", "FID, ratio to real data", "recall", "precision", "label agreement", "near copies"),
        [
            (
                name,
                f"{values['fid_ratio']:.1f}",
                f"{values['recall']:.3f}",
                f"{values['precision']:.3f}",
                *(f"{values[metric]:.2%}" if metric in values else "" for metric in ("label_agreement", "memorised")),
            )
            for name, values in results.items()
        ],
    )


def _write_folder(mnist: LabelledImages, options: Options) -> LabelledImages:
    """Writes the first images of each class as PNG files, and returns them as images of MNIST."""
    chosen = [(mnist.labels == label).nonzero().flatten()[: options.per_class] for label in range(10)]
    for label, indices in enumerate(chosen):
        folder = options.work / "images" / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        for index in indices.tolist():
            Image.fromarray(mnist.images[index, 0].numpy()).save(folder / f"{index:05}.png")
    every = torch.cat(chosen)
    counts = tuple(map(len, chosen))
    return replace(
        mnist,
        images=mnist.images[every],
        labels=mnist.labels[every],
        info=replace(mnist.info, class_counts=counts),
    )


def _train(run: Path, augment: Literal["none", "diff", "ada"], seed: int, options: Options) -> None:
    """Trains a run of the preset fast, or continues it if it is not complete."""
    config = Config(
        preset="fast",
        **PRESETS["fast"]
        | {
            "out": run,
            "dataset": "folder",
            "data_dir": options.work / "images",
            "generator_widths": options.widths,
            "discriminator_widths": options.widths[::-1],
            "discriminator_normalization": options.normalization,
            "images": options.images,
            "augment": augment,
            "seed": seed,
        },
    )
    started = bool(find_checkpoints(run))
    if not started or (load_checkpoint(run).training.images_seen or 0) < options.images:
        train(config, resume=started)


def _measure_real(context: MetricContext, data: LabelledImages, n: int) -> dict[str, float]:
    """Measures real images in place of generated ones."""
    chosen = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:n]
    sample = Sample(context, data.images[chosen], data.labels[chosen])
    return {name: measure(METRICS[name], sample).value for name in ("fid", "precision", "recall")}


def _measure(run: Path, context: MetricContext, n: int) -> dict[str, float]:
    """Measures the first n images of seed 0 of a run's generator."""
    checkpoint = load_checkpoint(run)
    generator = checkpoint.build()
    latents, labels = draw_latents(SEED, 0, n, checkpoint.generator.latent_dim, checkpoint.dataset.class_weights)
    assert labels is not None
    batches = [slice(start, start + BATCH) for start in range(0, n, BATCH)]
    images = torch.cat([quantize(generate(generator, latents[rows], labels[rows])) for rows in batches])
    sample = Sample(context, images, torch.from_numpy(labels))
    measured = {name: measure(METRICS[name], sample).value for name in MEASURED}
    return {"images_seen": checkpoint.training.images_seen or 0} | measured


if __name__ == "__main__":
    main()
