"""The container image that `bentoml containerize` builds: for CPUs, or with MNIST_GAN_IMAGE=cuda for NVIDIA GPUs."""

import os
from pathlib import Path

import bentoml

BASE = "docker.io/library/python:3.13-slim"
RUNTIMES = ("cpu", "cuda")


def image() -> bentoml.images.Image:
    """
    Raises:
        ValueError: MNIST_GAN_IMAGE names neither.
    """
    runtime = os.environ.get("MNIST_GAN_IMAGE") or "cpu"
    if runtime not in RUNTIMES:
        raise ValueError(f"MNIST_GAN_IMAGE: {runtime!r} is none of {', '.join(RUNTIMES)}")
    return bentoml.images.Image(
        base_image=BASE,
        distro="none",  # of those that BentoML knows, which would get a compiler and git
        python_version="3.13",
        python_requirements=Path(__file__).with_name(f"requirements-{runtime}.txt").read_text(),
        lock_python_packages=False,  # they are pinned, with hashes
    )
