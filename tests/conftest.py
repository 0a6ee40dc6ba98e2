"""Fixtures of all tests: small models, conditional and unconditional, which are trained and exported once."""

import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.checkpoint import load_checkpoint
from models.export.exporter import export
from training.config import Config
from training.data_dir import default_data_dir
from training.loop import train

KINDS = ("unconditional", "conditional")


def small_config(out: Path, **differences) -> Config:
    """Returns a configuration that trains for seconds on the digits of scikit-learn, on the CPU in fp32."""
    small = Config(
        out=out,
        dataset="uci-digits",
        latent_dim=16,
        generator_widths=(32, 64),
        discriminator_widths=(64, 32),
        epochs=2,
        device="cpu",
        precision="fp32",
    )
    return replace(small, **differences)


def small_run(out: Path, **differences) -> None:
    """Trains the small configuration with some differences."""
    train(small_config(out, **differences))


@contextmanager
def file_limit(limit: int) -> Iterator[None]:
    """Limits the size of every file in bytes, which acts like a full disk. Child processes inherit the limit."""
    resource = pytest.importorskip("resource", reason="only on Unix")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def run_with_file_limit(command: Iterable[object], limit: int) -> subprocess.CompletedProcess[str]:
    with file_limit(limit):
        return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)


@pytest.fixture(autouse=True)
def _seed_of_pytorch() -> None:
    """Gives every test the same random weights and tensors in each run."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Returns the run folder of each kind."""
    folder = tmp_path_factory.mktemp("runs")
    for kind in KINDS:
        small_run(folder / kind, conditional=kind == "conditional")
    return {kind: folder / kind for kind in KINDS}


@pytest.fixture(scope="session")
def files(runs: dict[str, Path]) -> dict[str, Path]:
    """Returns the exported model file of each kind."""
    for run in runs.values():
        (run / "generator.onnx").write_bytes(export(load_checkpoint(run)).generator.file)
    return {kind: run / "generator.onnx" for kind, run in runs.items()}


@pytest.fixture(scope="session")
def mnist() -> Path:
    """Returns the folder that contains MNIST/raw, or skips the test if MNIST is not there."""
    folder = default_data_dir()
    if not (folder / "MNIST" / "raw" / "train-images-idx3-ubyte").is_file():
        pytest.skip(f"no MNIST in {folder}: set MNIST_GAN_DATA to the folder that contains MNIST/raw")
    return folder.resolve()
