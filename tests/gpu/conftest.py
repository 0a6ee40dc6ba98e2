"""Tests that need a GPU and are skipped without one. `make gpu-check` runs them.

MNIST_GAN_TEST_DEVICE=cpu runs them on the CPU, to check the tests themselves; no CUDA graph is captured there.
"""

import os
from collections.abc import Callable, Iterator

import pytest
import torch


@pytest.fixture(scope="session")
def device() -> str:
    name = os.environ.get("MNIST_GAN_TEST_DEVICE", "cuda")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    return name


@pytest.fixture
def deterministic() -> Iterator[None]:
    """Turns on deterministic algorithms. Without them, some kernels add in varying order."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def check(record_property: Callable[[str, object], None]) -> Callable[[float, float], None]:
    """Returns a function that asserts that a value is at most its bound, and records both for `make gpu-check`."""

    def at_most(value: float, bound: float) -> None:
        record_property("value", value)
        record_property("bound", bound)
        assert value <= bound, f"{value:.3g}, at most {bound:.3g} allowed"

    return at_most
