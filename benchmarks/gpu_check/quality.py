"""Quality of a generator after 15 and 60 seconds of training, with schedules that end with the run."""

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.gpu_check.report import Recorder, Skip
from benchmarks.gpu_check.settings import Settings
from benchmarks.gpu_check.speed import config_of, load_data
from benchmarks.training_loops import alternate, medians, package_loop
from models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from models.common.image_files import grid, png
from models.export.exporter import Export, export, with_fields
from training.config import Config
from training.data import DataError, LabelledImages
from training.evaluation.evaluation_report import EvaluationReport
from training.evaluation.evaluator import evaluate_sources
from training.evaluation.metrics import FAST, METRICS, Measurement
from training.evaluation.sources import ImageSource
from training.export_quality import card_quality
from training.loop import train
from training.precision import resolve_precision
from training.presets import PRESETS

RECIPES: dict[str, dict[str, Any]] = {
    "fast": {"lr_schedule": "cosine", "lr_end": 0.02},
    "r3gan": {},
}
"""Differences from the preset, except for the options that depend on the number of images."""
RUNS = (("fast", 60), ("r3gan", 60), ("fast", 15), ("r3gan", 15))
"""Presets and durations in seconds, the most important first."""
TINY_RUNS = RUNS[:2]
"""Runs of the tiny check: fewer, because each evaluation takes seconds, however small the network is."""
OVERHEAD_SECONDS = 12.0
"""Approximate time that measuring the speed, checkpoints and the evaluation add to a run."""
EMA_SHARE = 1 / 40
"""Half-life of the EMA, as a share of the images of a run."""
BURN_IN_SHARE = 1 / 10
"""Length of the burn-in, as a share of the images of a run."""
GOAL = "goal: 2 within 60 s"


@dataclass(frozen=True)
class Trained:
    """A finished run, its exported generator, and its FID divided by the real-data baseline."""

    name: str
    export: Export
    checkpoint: Checkpoint
    fid_ratio: float


def run(settings: Settings, record: Recorder) -> None:
    data = load_data(settings)
    best: Trained | None = None
    with tempfile.TemporaryDirectory() as folder:
        for preset, seconds in TINY_RUNS if settings.tiny else RUNS:
            name = f"{preset}, {seconds} s"
            with record.part(name):
                seconds_needed = seconds + OVERHEAD_SECONDS
                if settings.seconds_left < seconds_needed and not settings.tiny:
                    raise Skip(f"{settings.seconds_left:.0f} s are left, {seconds_needed:.0f} s are needed")
                trained = _train(settings, record, data, preset, seconds, Path(folder, name.replace(", ", "-")))
                if best is None or trained.fid_ratio < best.fid_ratio:
                    best = trained
                    _keep(settings.out, best)
    if best is None:
        raise Skip("no run has finished")
    with record.part(f"full evaluation of {best.name}"):
        report = _evaluate(settings, best.export, tuple(METRICS))
        record.detail("evaluation", report.to_dict())
        (evaluated,) = report.results
        _keep(settings.out, replace(best, export=with_fields(best.export, quality=card_quality(report, evaluated))))
        for name, value in evaluated.measurements.items():
            if isinstance(value, Measurement):
                real = report.real_data_baseline[name]
                note = f"real images: {real.value:.4g}" if isinstance(real, Measurement) else ""
                record.row(f"{best.name}: {METRICS[name].title}", value.value, note=note)


def _train(settings: Settings, record: Recorder, data: LabelledImages, preset: str, seconds: int, out: Path) -> Trained:
    precision = resolve_precision("auto", settings.device)
    config = config_of(preset, settings, precision=precision, out=out, data_dir=settings.data_dir, **_data(settings))
    config = _fitted(config, data, 0.1 if settings.tiny else seconds)
    assert config.images is not None
    started = time.perf_counter()
    train(config)
    took = time.perf_counter() - started
    record.row(f"{preset}, {seconds} s: images", config.images, "images", note=f"{precision}, {took:.1f} s in all")
    checkpoint = load_checkpoint(out)
    exported = export(checkpoint)
    report = _evaluate(settings, exported, FAST)
    (evaluated,) = report.results
    ratio = report.fid_ratio(evaluated.measurements)
    assert ratio is not None, "the Frechet distance was measured"
    record.row(f"{preset}, {seconds} s: FID over its real-data baseline", ratio, "times", bound=GOAL)
    record.detail(f"{preset}, {seconds} s", {"seconds": took, "config": config.model_fields(), **report.to_dict()})
    return Trained(f"{preset}, {seconds} s", exported, checkpoint, ratio)


def _fitted(config: Config, data: LabelledImages, seconds: float) -> Config:
    """Returns the config with the number of images that fit into the time, and with schedules that end with the run."""
    recipe = RECIPES[config.preset]
    probe = {config.preset: package_loop(replace(config, **recipe), data)}
    speed = medians(alternate(probe, config.batch_size, min(2.0, seconds / 5), 1))[config.preset]
    images = max(config.batch_size, round(speed * seconds))
    burn_in = round(images * BURN_IN_SHARE) if PRESETS[config.preset].get("burn_in") else 0
    return replace(config, **recipe, images=images, burn_in=burn_in, ema_half_life=round(images * EMA_SHARE))


def _data(settings: Settings) -> dict[str, str]:
    return {"dataset": "uci-digits" if settings.tiny else "mnist"}


def _evaluate(settings: Settings, exported: Export, metrics: tuple[str, ...]) -> EvaluationReport:
    source = ImageSource(exported.generator.card.name, exported.generator)
    n = 256 if settings.tiny else None
    try:
        return evaluate_sources([source], settings.data_dir, n=n, metrics=metrics, fit_classifier=settings.tiny)
    except DataError as error:
        raise Skip(str(error)) from error


def _keep(out: Path, trained: Trained) -> None:
    """Writes the model file, the weights of its generator, and a grid of its images to the results."""
    generator = trained.export.generator
    (out / "generator.onnx").write_bytes(generator.file)
    part = "ema." if trained.checkpoint.part("ema") else "generator."
    weights = {
        name.replace(part, "generator.", 1): tensor
        for name, tensor in trained.checkpoint.tensors.items()
        if name.startswith(part)
    }
    with tempfile.TemporaryDirectory() as folder:
        saved = save_checkpoint(replace(trained.checkpoint, tensors=weights), Path(folder))
        (out / "generator.safetensors").write_bytes(saved.read_bytes())
    labels = generator.card.class_names or None
    images, _ = generator.images(seed=0, first=0, n=200, labels=list(labels) if labels else None)
    (out / "digits.png").write_bytes(png(grid(images, columns=20, scale=2)))
