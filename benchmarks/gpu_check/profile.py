"""Keeps a trace of one captured step and of one eager step, and says what each one is bound by."""

from benchmarks.gpu_check.profiling import profile_steps
from benchmarks.gpu_check.report import Recorder
from benchmarks.gpu_check.settings import Settings
from benchmarks.gpu_check.speed import config_of, load_data

PRESET = "fast"


def run(settings: Settings, record: Recorder) -> None:
    data = load_data(settings)
    for name, capture in (("captured", True), ("eager", False)):
        with record.part(f"{name} step of {PRESET}"):
            trace = settings.out / f"profile-{name}.json.gz"
            profile = profile_steps(config_of(PRESET, settings, cuda_graph=capture), data, trace, steps=1)
            record.row(f"{name} step of {PRESET}", profile.step_seconds * 1e6, "µs", note=f"{profile}; {trace.name}")
