"""Container image that `bentoml containerize` builds: for CPUs, or with MNIST_GAN_IMAGE=cuda for NVIDIA GPUs."""

import os
from pathlib import Path

import bentoml

BASE = "docker.io/library/python:3.13-slim"
RUNTIMES = ("cpu", "cuda")
"""Variants of the image; each has its pinned packages in requirements-NAME.txt."""


def image() -> bentoml.images.Image:
    """Describes the image for the runtime that MNIST_GAN_IMAGE names, cpu by default.

    Raises:
        ValueError: MNIST_GAN_IMAGE names an unknown runtime.
    """
    runtime = os.environ.get("MNIST_GAN_IMAGE") or "cpu"
    if runtime not in RUNTIMES:
        raise ValueError(f"MNIST_GAN_IMAGE: {runtime!r} is unknown; set it to {' or '.join(RUNTIMES)}")
    return bentoml.images.Image(
        base_image=BASE,
        distro="none",  # for any distribution that BentoML knows, it installs a compiler and git
        python_version="3.13",
        python_requirements=Path(__file__).with_name(f"requirements-{runtime}.txt").read_text(),
        lock_python_packages=False,  # the requirements are already pinned, with hashes
    )
