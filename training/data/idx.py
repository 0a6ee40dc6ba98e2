"""Loads MNIST and the data sets in its format: IDX files, plain or compressed with gzip.

The files are read where they are, so a read-only folder suffices. torchvision is only used to download them.
"""

import gzip
import math
import socket
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from training.data.labelled_images import DataError, DataUnavailableError, Loaded, LoadOptions, Split
from training.data.resampling import resample
from training.data.scan import check_is_folder, find_image

DOWNLOAD_TIMEOUT_SECONDS = 20
"""Time limit of each network operation, not of the whole download."""
GZIP_MAGIC = b"\x1f\x8b"
_REPLACE = "replace it, or move it away so that it is downloaded again"
DIGITS = tuple("0123456789")


@dataclass(frozen=True)
class IdxSet:
    """A data set with two IDX files per split, images and labels, in a folder named after torchvision's class."""

    torchvision_class: str
    """Name of the class in torchvision.datasets."""
    class_names: tuple[str, ...]
    prefixes: Mapping[Split, str] = field(default_factory=lambda: MappingProxyType({"train": "train", "test": "t10k"}))
    """Beginning of the file names of each split."""
    transposed: bool = False
    """Whether the files store images column by column."""
    subset: str | None = None
    """Argument `split` of torchvision's class, which selects one of several data sets; None if there is one only."""

    def load(self, options: LoadOptions) -> Loaded:
        """Loads a split, and downloads the data set first if files are missing.

        Raises:
            DataError: a file is damaged, or `data_dir` contains images or IDX files directly.
            DataUnavailableError: files are missing and cannot be downloaded.
        """
        if options.data_dir.exists():
            check_is_folder(options.data_dir)
        names = self._names(options.split)
        files = [self._find(options.data_dir, name) for name in names]
        if None in files:
            self._download(options)
            files = [self._find(options.data_dir, name) for name in names]
        images, labels = (_read_idx(file) for file in files if file)
        images, notes = resample((images.mT if self.transposed else images).unsqueeze(1), options)
        return Loaded(images, labels.long(), list(self.class_names), notes)

    def _names(self, split: Split) -> tuple[str, str]:
        return f"{self.prefixes[split]}-images-idx3-ubyte", f"{self.prefixes[split]}-labels-idx1-ubyte"

    def _raw(self, data_dir: Path) -> Path:
        return data_dir / self.torchvision_class / "raw"

    def _find(self, data_dir: Path, name: str) -> Path | None:
        """Returns the file in raw/ or next to it, by any name that `_find_in` accepts; None if there is none."""
        return _find_in(self._raw(data_dir), name) or _find_in(data_dir / self.torchvision_class, name)

    def _download(self, options: LoadOptions) -> None:
        """Downloads all files into a temporary folder, and then moves the missing ones to their place.

        Raises:
            DataError: `data_dir` contains images or IDX files directly, so the user probably means those.
            DataUnavailableError: the download is not allowed, or it fails.
        """
        from torchvision import datasets

        data_dir, split = options.data_dir, options.split
        if image := find_image(data_dir):
            raise DataError(
                f"{data_dir} contains images ({image}) instead of {self.torchvision_class}: add --dataset folder to "
                "train on them, or give another --data-dir"
            )
        if _find_in(data_dir, self._names(split)[0]):
            raise DataError(
                f"{data_dir} contains IDX files directly, so their data set is unknown; if they are "
                f"{self.torchvision_class}, move or link them to {self._raw(data_dir)}"
            )
        advice = (
            f"put its IDX files ({self._names(split)[0]} and so on, plain or .gz) there, or use --dataset uci-digits, "
            "which needs no download"
        )
        if not options.download:
            raise DataUnavailableError(
                f"{self.torchvision_class} is not in {self._raw(data_dir)}, and a dry run downloads nothing; {advice}"
            )
        nearest = next(folder for folder in (data_dir, *data_dir.absolute().parents) if folder.is_dir())
        try:
            with TemporaryDirectory(prefix=".download-", dir=nearest) as temporary, _download_timeout():
                subset = {"split": self.subset} if self.subset else {}
                getattr(datasets, self.torchvision_class)(temporary, train=split == "train", download=True, **subset)
                self._raw(data_dir).mkdir(parents=True, exist_ok=True)
                for name in (name for each_split in self.prefixes for name in self._names(each_split)):
                    if not self._find(data_dir, name):
                        (self._raw(Path(temporary)) / name).rename(self._raw(data_dir) / name)
        except (RuntimeError, OSError, HTTPException) as error:
            reason = " ".join(str(error).split())  # torchvision's message has one or two lines for each mirror
            raise DataUnavailableError(
                f"{self.torchvision_class} is not in {self._raw(data_dir)} and cannot be downloaded ({reason}); "
                f"{advice}"
            ) from error


IDX_SETS = {
    "mnist": IdxSet("MNIST", DIGITS),
    "fashion-mnist": IdxSet(
        "FashionMNIST",
        ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    "kmnist": IdxSet("KMNIST", ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")),
    "emnist-digits": IdxSet(
        "EMNIST",
        DIGITS,
        MappingProxyType({"train": "emnist-digits-train", "test": "emnist-digits-test"}),
        transposed=True,
        subset="digits",
    ),
}


def _find_in(folder: Path, name: str) -> Path | None:
    """Returns the file of this name in a folder, plain or .gz, with "-idx" or ".idx"; None if there is none."""
    for stem in (name, name.replace("-idx", ".idx")):
        for file in (folder / stem, folder / f"{stem}.gz"):
            if file.is_file():
                return file
    return None


def _read_idx(file: Path) -> Tensor:
    """Reads an IDX file: two zero bytes, the type (8: uint8), the number of dimensions, their sizes as big-endian
    int32, then the values.

    Whether the file is compressed is decided by its content, because browsers and archivers may unpack a file without
    renaming it, or rename it without unpacking it.

    Returns:
        uint8 (n, height, width) if "images" is in the name of the file, otherwise uint8 (n,).

    Raises:
        DataError: the file is damaged or of another format; the message names it.
    """
    content = file.read_bytes()
    if content.startswith(GZIP_MAGIC):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{file}: not an IDX file, its gzip data is damaged ({error}); {_REPLACE}") from error
    rank = 3 if "images" in file.name else 1
    start = 4 + 4 * rank
    shape = [int.from_bytes(content[i : i + 4]) for i in range(4, start, 4)]
    if content[:4] != bytes((0, 0, 8, rank)) or len(content) < start or 0 in shape:
        raise DataError(f"{file}: not an IDX file with {rank} dimensions of uint8; {_REPLACE}")
    expected = start + math.prod(shape)
    if len(content) != expected:
        raise DataError(f"{file}: has {len(content):,} bytes, but {expected:,} according to its header; {_REPLACE}")
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy())


@contextmanager
def _download_timeout() -> Iterator[None]:
    """Limits the time of each network operation. A network that drops packets would block for minutes per mirror."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
