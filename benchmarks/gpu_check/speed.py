"""Training speed, compared with a tutorial's loop, and for each preset and precision with and without a CUDA graph."""

from dataclasses import replace
from typing import Any

import torch

from benchmarks.gpu_check.profiling import profile_steps
from benchmarks.gpu_check.report import Recorder
from benchmarks.gpu_check.settings import Settings
from benchmarks.training_loops import (
    Loop,
    alternate,
    matrix_flops,
    medians,
    package_loop,
    step_flops,
    tutorial_loop,
)
from training.config import Config
from training.data import LabelledImages, load_dataset
from training.presets import PRESETS

PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
GOAL = "goal: 30, aim: 50"


def run(settings: Settings, record: Recorder) -> None:
    data = load_data(settings)
    with record.part("textbook"):
        _textbook(settings, record, data)
    with record.part("peak"):
        peaks = {
            name: matrix_flops(256 if settings.tiny else 8192, dtype, settings.device)
            for name, dtype in PRECISIONS.items()
        }
        for name, peak in peaks.items():
            record.row(f"{name} matrix products", peak / 1e12, "TFLOP/s", note="highest rate of this GPU in this check")
    for preset in PRESETS:
        for cuda_graph in (True, False):
            with record.part(f"bottleneck of {preset}, {_mode(cuda_graph)}"):
                profile = profile_steps(config_of(preset, settings, cuda_graph=cuda_graph), data)
                record.row(
                    f"bottleneck of {preset}, {_mode(cuda_graph)}",
                    profile.step_seconds * 1e6,
                    "µs a step",
                    note=str(profile),
                )
        for precision in PRECISIONS:
            for cuda_graph in (True, False):
                with record.part(f"{preset}, {precision}, {_mode(cuda_graph)}"):
                    _preset(settings, record, data, preset, precision, cuda_graph, peaks[precision])


def load_data(settings: Settings) -> LabelledImages:
    """Loads MNIST onto the device; for a tiny run, 640 of scikit-learn's digits."""
    data = load_dataset("uci-digits" if settings.tiny else "mnist", settings.data_dir)
    if settings.tiny:
        data = replace(data, images=data.images[:640], labels=data.labels[:640])
    return data.to(torch.device(settings.device))


def config_of(preset: str, settings: Settings, **differences: Any) -> Config:
    """Returns a preset's configuration without burn-in, so that its step can be captured in a CUDA graph."""
    tiny = {"generator_widths": (8, 8), "discriminator_widths": (8, 8), "batch_size": 16} if settings.tiny else {}
    fixed = {"device": settings.device, "precision": "bf16", "images": 1, "burn_in": 0}
    return Config(preset=preset, **PRESETS[preset] | tiny | fixed | differences)


def _textbook(settings: Settings, record: Recorder, data: LabelledImages) -> None:
    config = replace(Config(), device=settings.device, precision="fp32", images=1)
    loops: dict[str, Loop] = {
        "tutorial's loop, fp32": tutorial_loop(config, data),
        "train --preset mlp, fp32": package_loop(config, data),
        "train --preset mlp, bf16": package_loop(replace(config, precision="bf16"), data),
    }
    seconds, rounds = (0.05, 2) if settings.tiny else (1.5, 5)
    measured = alternate(loops, config.batch_size, seconds, rounds)
    record.detail("textbook_images_per_second", measured)
    typical = medians(measured)
    for name, speed in typical.items():
        record.row(name, speed, "images/s", note=f"batch 64, median of {rounds} alternating rounds")
    tutorial, *others = typical
    for name in others:
        record.row(f"{name}, relative to the tutorial's loop", typical[name] / typical[tutorial], "times", bound=GOAL)


def _preset(
    settings: Settings,
    record: Recorder,
    data: LabelledImages,
    preset: str,
    precision: str,
    cuda_graph: bool,
    peak: float,
) -> None:
    config = config_of(preset, settings, precision=precision, cuda_graph=cuda_graph)
    measured = alternate({preset: package_loop(config, data)}, config.batch_size, 0.05 if settings.tiny else 0.7, 1)
    speed = medians(measured)[preset]
    share = speed * step_flops(config, data) / config.batch_size / peak
    record.row(
        f"{preset}, {precision}, {_mode(cuda_graph)}", speed, "images/s", note=f"{share:.2%} of the peak of {precision}"
    )


def _mode(cuda_graph: bool) -> str:
    return "CUDA graph" if cuda_graph else "eager"
