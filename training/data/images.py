"""A data set in memory, and what its loaders have in common: their request, their result and their errors."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from models.common.errors import MnistGanError
from models.onnx_file.card import Dataset

IMAGE_SIZE = 28
MIN_IMAGE_SIZE = 8

Split = Literal["train", "test"]


class DataError(MnistGanError):
    """A data set that is damaged, or not what its name says."""


class DataUnavailableError(DataError):
    """A data set that is missing and cannot be downloaded."""

    exit_code = os.EX_NOINPUT


@dataclass(frozen=True)
class LabelledImages:
    """A labelled data set in memory."""

    images: Tensor
    """uint8 (n, channels, height, width)."""
    labels: Tensor
    """int64 (n,), indices into `info.class_names`."""
    info: Dataset
    summary: tuple[str, ...] = ()
    """Lines for the user: what was loaded, and what the loader altered or skipped."""

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device) -> "LabelledImages":
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))


@dataclass(frozen=True)
class LoadOptions:
    """The arguments of `training.data.load`, less the name of the data set."""

    data_dir: Path
    image_size: int | None = None
    channels: int | None = None
    split: Split = "train"
    download: bool = True


@dataclass(frozen=True)
class Loaded:
    """The result of a loader."""

    images: Tensor
    labels: Tensor
    class_names: list[str]
    notes: tuple[str, ...] = ()
    """What the loader altered or skipped, one line each."""


def check_is_folder(path: Path) -> None:
    """Raises:
    DataUnavailableError: there is no such folder, or it is a file.
    """
    if path.exists() and not path.is_dir():
        raise DataUnavailableError(f"{path}: this is a file; give --data-dir a folder (unpack an archive first)")
    if not path.exists():
        raise DataUnavailableError(f"{path}: no such folder; check --data-dir")
