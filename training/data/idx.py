"""The data sets of torchvision's MNIST family: IDX files, plain or compressed with gzip.

The files are read where they lie, so that a read-only folder will do. torchvision only downloads them.
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

from training.data.images import DataError, DataUnavailableError, Loaded, LoadOptions, Split, check_is_folder
from training.data.resampling import fit
from training.data.scan import find_image

DOWNLOAD_TIMEOUT_SECONDS = 20
GZIP_MAGIC = b"\x1f\x8b"
DIGITS = tuple("0123456789")


@dataclass(frozen=True)
class IdxSet:
    """A data set of two IDX files for each split, in a folder of torchvision's name for it."""

    torchvision_class: str
    class_names: tuple[str, ...]
    prefixes: Mapping[Split, str] = field(default_factory=lambda: MappingProxyType({"train": "train", "test": "t10k"}))
    """Start of the names of each split's files."""
    transposed: bool = False
    """Whether the files store the images column by column."""
    subset: str | None = None
    """torchvision's name for it, where a class has several data sets."""

    def load(self, request: LoadOptions) -> Loaded:
        """Reads a split; downloads it first if it is missing.

        Raises:
            DataError: a file is damaged, or `data_dir` itself holds images or IDX files.
            DataUnavailableError: the files are missing and cannot be downloaded.
        """
        if request.data_dir.exists():
            check_is_folder(request.data_dir)
        if not all(self._find(request.data_dir, name) for name in self._names(request.split)):
            self._download(request)
        images, labels = (_read_idx(self._found(request.data_dir, name)) for name in self._names(request.split))
        fitted, notes = fit((images.mT if self.transposed else images).unsqueeze(1), request)
        return Loaded(fitted, labels.long(), list(self.class_names), notes)

    def _names(self, split: Split) -> tuple[str, str]:
        return f"{self.prefixes[split]}-images-idx3-ubyte", f"{self.prefixes[split]}-labels-idx1-ubyte"

    def _raw(self, data_dir: Path) -> Path:
        return data_dir / self.torchvision_class / "raw"

    def _find(self, data_dir: Path, name: str) -> Path | None:
        """The file under one of the names in use: plain or .gz, in raw/ or next to it, "-idx3" or ".idx3"."""
        return _find_in(self._raw(data_dir), name) or _find_in(data_dir / self.torchvision_class, name)

    def _found(self, data_dir: Path, name: str) -> Path:
        file = self._find(data_dir, name)
        assert file
        return file

    def _download(self, request: LoadOptions) -> None:
        """Downloads all files into a temporary folder, then moves those that are missing to their place."""
        from torchvision import datasets

        data_dir, split = request.data_dir, request.split
        if image := find_image(data_dir):
            raise DataError(
                f"{data_dir} does not hold {self.torchvision_class}, but images ({image}): add --dataset folder to "
                "use those, or give another --data-dir"
            )
        if _find_in(data_dir, self._names(split)[0]):
            raise DataError(
                f"{data_dir} itself holds IDX files, which may be of any data set of this format; if they are of "
                f"{self.torchvision_class}, move or link them to {self._raw(data_dir)}"
            )
        advice = (
            f"put its IDX files ({self._names(split)[0]} ..., plain or .gz) there, or use --dataset uci-digits, which "
            "needs no download"
        )
        if not request.download:
            raise DataUnavailableError(
                f"{self.torchvision_class} is not in {self._raw(data_dir)}, and a dry run downloads nothing; {advice}"
            )
        nearest = next(folder for folder in (data_dir, *data_dir.absolute().parents) if folder.is_dir())
        try:
            with TemporaryDirectory(prefix=".download-", dir=nearest) as temporary, _download_timeout():
                subset = {"split": self.subset} if self.subset else {}
                getattr(datasets, self.torchvision_class)(temporary, train=split == "train", download=True, **subset)
                self._raw(data_dir).mkdir(parents=True, exist_ok=True)
                for name in (name for each in self.prefixes for name in self._names(each)):
                    if not self._find(data_dir, name):
                        (self._raw(Path(temporary)) / name).rename(self._raw(data_dir) / name)
        except (RuntimeError, OSError, HTTPException) as error:
            raise DataUnavailableError(
                f"{self.torchvision_class} is not in {self._raw(data_dir)} and cannot be downloaded ({error}); {advice}"
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
    for stem in (name, name.replace("-idx", ".idx")):
        for file in (folder / stem, folder / f"{stem}.gz"):
            if file.is_file():
                return file
    return None


def _read_idx(file: Path) -> Tensor:
    """IDX: two zero bytes, a type (8: uint8), the number of dimensions, each as a big-endian int32, then the data.

    Whether the file is compressed is read from its content: browsers and archivers change content and name separately.
    """
    content = file.read_bytes()
    if content.startswith(GZIP_MAGIC):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{file}: not an IDX file: its gzip data are damaged ({error}); {_REPLACE}") from error
    rank = 3 if "images" in file.name else 1
    start = 4 + 4 * rank
    shape = [int.from_bytes(content[i : i + 4]) for i in range(4, start, 4)]
    if content[:4] != bytes((0, 0, 8, rank)) or len(content) < start or 0 in shape:
        raise DataError(f"{file}: not an IDX file of uint8 in {rank} dimensions; {_REPLACE}")
    expected = start + math.prod(shape)
    if len(content) != expected:
        raise DataError(f"{file}: {len(content):,} bytes long, its header says {expected:,}; {_REPLACE}")
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy())


_REPLACE = "replace it, or move it away so that it is downloaded again"


@contextmanager
def _download_timeout() -> Iterator[None]:
    """Limits each network operation; by default a network that drops packets would block for minutes per mirror."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
