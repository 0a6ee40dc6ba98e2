"""Labelled images in memory, and the interface of the loaders: their options, result and errors."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self

import torch
from torch import Tensor

from models.common.errors import MnistGanError
from models.onnx_file.card import Dataset
from training.fit import Fit

IMAGE_SIZE = 28
"""Height and width of MNIST's images, and the default for a folder with images of several sizes; in pixels."""
MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 8, 256
"""Smallest and largest height and width that images can be resampled to, in pixels."""

Split = Literal["train", "test"]


class DataError(MnistGanError):
    """A data set is damaged or not in the expected format, or an option does not fit it."""


class DataUnavailableError(DataError):
    """A data set is missing and cannot be downloaded, or its path is not a folder."""

    exit_code = os.EX_NOINPUT


@dataclass(frozen=True)
class LabelledImages:
    """A data set in memory: images, and the class of each."""

    images: Tensor
    """uint8 (n, channels, height, width)."""
    labels: Tensor
    """int64 (n,): for each image the index of its class in `info.class_names`."""
    info: Dataset
    """Name, hash, image shape and classes, as they are stored in checkpoints and cards."""
    summary: tuple[str, ...] = ()
    """Lines for the user: first the data set in one line, then everything that the loader changed or skipped."""

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device) -> Self:
        """Returns the data set with its tensors on a device."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))


@dataclass(frozen=True)
class LoadOptions:
    """Arguments of a loader; `training.data.load_dataset` explains and checks them."""

    data_dir: Path
    """Folder of the data sets, or the folder of images itself."""
    image_size: tuple[int, int] | None = None
    """Width and height to resample to, in pixels. None: the default of the data set."""
    channels: int | None = None
    """1 for grey, 3 for RGB. None: as in the images."""
    fit: Fit = "crop"
    """How images of a folder with other proportions become `image_size`."""
    background: tuple[int, int, int] = (255, 255, 255)
    """Colour behind transparent images of a folder and around padded ones: red, green and blue from 0 to 255."""
    split: Split = "train"
    download: bool = True
    """Whether a missing data set may be downloaded."""


@dataclass(frozen=True)
class Loaded:
    """Result of a loader."""

    images: Tensor
    """uint8 (n, channels, height, width)."""
    labels: Tensor
    """int64 (n,): for each image the index of its class in `class_names`."""
    class_names: list[str]
    notes: tuple[str, ...] = ()
    """Lines for the user about everything that the loader changed or skipped."""
