"""Checks that onnxruntime runs a generator on the GPU with the images of the CPU, and measures its speed."""

import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime

from benchmarks.gpu_check.report import Recorder, Skip
from benchmarks.gpu_check.settings import Settings
from models.onnx_file.generator import Generator
from models.onnx_file.golden import GOLDEN_BOUNDS
from models.onnx_file.session import CPU, CUDA
from models.onnx_file.store import SHIPPED

BATCHES = (1, 8, 64, 256, 1024)
IMAGES = 1024
READY_SECONDS = 60


def run(settings: Settings, record: Recorder) -> None:
    if settings.device == "cuda" and CUDA not in onnxruntime.get_available_providers():
        raise Skip(f"onnxruntime {onnxruntime.__version__} has no {CUDA}; install onnxruntime-gpu")
    kept = settings.out / "generator.onnx"
    path = kept if kept.exists() else SHIPPED
    provider = CUDA if settings.device == "cuda" else CPU
    with record.part(
        f"{provider} opens the file"
    ):  # Generator.open raises if onnxruntime falls back to another provider
        generator = Generator.open(path, provider)
        record.row(f"{provider} opens {path.name}", status="passed", note=str(generator.golden_comparison))
        _compare(record, generator, Generator.open(path))
        for batch in (8,) if settings.tiny else BATCHES:
            speed = _images_per_second(generator, batch, 0.05 if settings.tiny else 1.0)
            record.row(f"{provider}, batch {batch}", speed, "images/s")
    with record.part("the service is ready with that device"):
        _check_service(record, path, settings.device)


def _compare(record: Recorder, generator: Generator, on_cpu: Generator) -> None:
    images, _ = generator.images(seed=3, first=0, n=IMAGES)
    expected, _ = on_cpu.images(seed=3, first=0, n=IMAGES)
    off = np.abs(images.astype(np.int16) - expected.astype(np.int16))
    levels, share = GOLDEN_BOUNDS[generator.card.precision]
    for name, value, bound in (
        ("largest difference from the CPU, in levels", int(off.max()), levels),
        ("share of pixels that differ from the CPU", float((off > 0).mean()), share),
    ):
        status = "passed" if value <= bound else "failed"
        record.row(name, value, status=status, bound=f"at most {bound:g}")


def _images_per_second(generator: Generator, batch: int, seconds: float) -> float:
    latents, labels = generator.draw(seed=0, first=0, n=batch)
    generator.decode(latents, labels)
    images, started = 0, time.perf_counter()
    while (passed := time.perf_counter() - started) < seconds:
        generator.decode(latents, labels)
        images += batch
    return images / passed


def _check_service(record: Recorder, path: Path, device: str) -> None:
    if find_spec("bentoml") is None or find_spec("httpx") is None:
        raise Skip("bentoml is not installed")
    from tools.service_process import serving

    with tempfile.TemporaryDirectory() as folder:
        variables = {"MNIST_GAN_MODEL": str(path), "MNIST_GAN_DEVICE": device}
        with serving(Path(folder), **variables) as (client, _):
            deadline = time.monotonic() + READY_SECONDS
            while client.get("/readyz").status_code != 200 and time.monotonic() < deadline:
                time.sleep(0.5)
            response = client.post("/generate", json={"n": 4, "seed": 1})
        log = Path(folder, "service.log").read_text()
    status = "passed" if response.status_code == 200 else "failed"
    note = "" if status == "passed" else log.strip().splitlines()[-1]
    record.row(f"`bentoml serve` with MNIST_GAN_DEVICE={device} is ready", status=status, note=note)
