"""Writes a trace of a training step with and without a CUDA graph, and reports the bottleneck of each."""

from benchmarks.gpu_check.profiling import profile_steps
from benchmarks.gpu_check.report import Recorder
from benchmarks.gpu_check.settings import Settings
from benchmarks.gpu_check.speed import config_of, load_data

PRESET = "fast"


def run(settings: Settings, record: Recorder) -> None:
    data = load_data(settings)
    for name, cuda_graph in (("cuda-graph", True), ("eager", False)):
        with record.part(f"{name} step of {PRESET}"):
            trace = settings.out / f"profile-{name}.json.gz"
            profile = profile_steps(config_of(PRESET, settings, cuda_graph=cuda_graph), data, trace, steps=1)
            record.row(f"{name} step of {PRESET}", profile.step_seconds * 1e6, "µs", note=f"{profile}; {trace.name}")
