from pathlib import Path

import numpy as np
import pytest

from tests.training.data.examples import CLASS_NAMES, SEVEN, TORCHVISION_CLASSES, IdxFiles, write_idx, write_image


@pytest.fixture(params=CLASS_NAMES)
def idx_set(request, tmp_path) -> IdxFiles:
    """One of the data sets in the format of MNIST, with twelve images per split."""
    raw = tmp_path / TORCHVISION_CLASSES[request.param] / "raw"
    raw.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (12, 28, 28))
    images[7] = SEVEN
    prefix, splits = "", ("train", "t10k")
    if request.param == "emnist-digits":
        images = images.transpose(0, 2, 1)
        prefix, splits = "emnist-digits-", ("train", "test")
    files = [
        (raw / f"{prefix}{split}-images-idx3-ubyte", raw / f"{prefix}{split}-labels-idx1-ubyte") for split in splits
    ]
    for images_file, labels_file in files:
        write_idx(images_file, images)
        write_idx(labels_file, np.arange(12) % 10)
    return IdxFiles(request.param, tmp_path, *files[0])


@pytest.fixture
def pets(tmp_path) -> Path:
    """A folder of images with two classes of one image each."""
    for name in ("cats", "dogs"):
        write_image(tmp_path / "pets" / name / "0.png")
    return tmp_path / "pets"
