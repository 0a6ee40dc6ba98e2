"""Finds the bottleneck of a training step from a profile of a few steps."""

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.autograd.profiler_util import FunctionEventAvg
from torch.profiler import ProfilerActivity, profile

from benchmarks.training_loops import CALIBRATION_BATCHES, package_loop
from training.config import Config
from training.data import LabelledImages

MATRIX = re.compile(r"gemm|gemv|nvjet|xmma|cutlass|conv|wgrad|dgrad|fprop|implicit|mm\b|bmm", re.IGNORECASE)
"""Names of the kernels of cuBLAS and cuDNN, and of ATen's operators on a CPU, that multiply matrices or convolve."""
TIMED_STEPS = 20
BUSY = 0.7
"""If kernels run for less than this share of a step, the device waits for the CPU to launch them."""
SMALL_KERNEL_SECONDS = 5e-6
"""Approximate duration of a kernel that has little to compute."""


@dataclass(frozen=True)
class Profile:
    """Duration of one training step, and number and durations of the CUDA kernels that it runs.

    On a CPU, ATen operators take the place of kernels.
    """

    step_seconds: float
    """Wall-clock time of a step in seconds, measured without the profiler."""
    kernels: float
    """Number of kernels that a step runs."""
    kernel_seconds: float
    """Total duration of all kernels of a step."""
    matrix_seconds: float
    """Total duration of the kernels that multiply matrices or convolve."""

    @property
    def bound(self) -> str:
        """Bottleneck of the step: launches, small kernels, arithmetic or memory."""
        if self.kernel_seconds < BUSY * self.step_seconds:
            return "launches"
        if self.kernel_seconds < SMALL_KERNEL_SECONDS * self.kernels:
            return "kernels too small to fill the device"
        return "arithmetic" if self.matrix_seconds > self.kernel_seconds / 2 else "memory"

    def __str__(self) -> str:
        busy, matrix = self.kernel_seconds / self.step_seconds, self.matrix_seconds / max(self.kernel_seconds, 1e-12)
        return (
            f"{self.bound}: {self.kernels:.0f} kernels busy for {busy:.0%} of the step, {matrix:.0%} of it matrix work"
        )


def profile_steps(config: Config, data: LabelledImages, trace: Path | None = None, steps: int = 3) -> Profile:
    """Profiles training steps.

    Args:
        config: the configuration of the training.
        data: the images, on the device of the configuration.
        trace: file for a trace that Chrome and Perfetto can open, compressed if its name ends in .gz; None writes none.
        steps: number of steps in the profile and the trace.
    """
    run = package_loop(config, data)
    run(CALIBRATION_BATCHES)
    seconds = run(TIMED_STEPS) / TIMED_STEPS
    on_gpu = config.device == "cuda"
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_gpu
    with profile(activities=activities) as profiler:
        run(steps)
    if trace:
        profiler.export_chrome_trace(str(trace))
    kernels = [event for event in profiler.key_averages() if _is_kernel(event, on_gpu)]
    times = {event.key: _microseconds(event, on_gpu) / 1e6 / steps for event in kernels}
    matrix = sum(seconds for name, seconds in times.items() if MATRIX.search(name))
    return Profile(seconds, sum(event.count for event in kernels) / steps, sum(times.values()), matrix)


def _is_kernel(event: FunctionEventAvg, on_gpu: bool) -> bool:
    """Returns whether an event is a kernel, or, on a CPU, an operator, which takes its place."""
    if on_gpu:
        return event.device_type == torch.autograd.DeviceType.CUDA and not event.is_user_annotation
    return event.key.startswith("aten::") and event.self_cpu_time_total > 0


def _microseconds(event: FunctionEventAvg, on_gpu: bool) -> float:
    return event.self_device_time_total if on_gpu else event.self_cpu_time_total
