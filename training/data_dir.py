"""Default folder of the data sets. A module of its own, because it must not import torch: `train --help` reads it."""

import os
from pathlib import Path


def default_data_dir() -> Path:
    """Returns the folder that $MNIST_GAN_DATA names, or `data` in the working directory if it is not set."""
    return Path(os.environ.get("MNIST_GAN_DATA", "data"))
