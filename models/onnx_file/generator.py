"""The generator of a model file, checked and run with onnxruntime.

    from models.onnx_file.generator import Generator

    images, labels = Generator.open("generator.onnx").images(seed=1, first=0, n=64)

This module needs neither torch nor BentoML.
"""

import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from models.common.array_types import Images, Labels, Latents
from models.common.checksum import verify_checksum
from models.common.errors import InputError, ModelFileError
from models.onnx_file import graph_checks
from models.onnx_file.card import Card, CardError
from models.onnx_file.golden import GoldenComparison, compare_golden
from models.onnx_file.graph_memory import measure_memory
from models.onnx_file.latent_sources import SeededLatents, check_truncation, cycle_labels
from models.onnx_file.latents import LATENTS_VERSION, check_range
from models.onnx_file.session import CPU, MAX_ROWS_PER_RUN, make_feeds, open_session, run

CHECKS = (
    "signature",
    "size",
    "checksum",
    "pinned hash",
    "format",
    "card",
    *graph_checks.NAMES,
    "golden images",
)
"""Names of the checks of a model file, in the order in which they are made."""


def _ignore(check: str) -> None:
    pass


class Generator:
    """A generator that turns latents, and labels if it is class-conditional, into images.

    Its methods can be called from several threads. `open` and `from_bytes` create it from a model file.
    """

    def __init__(self, file: bytes, card: Card, rows_per_run: int, provider: str = CPU):
        """Opens a session and compares the golden images. `open` and `from_bytes` make all other checks first.

        Args:
            file: content of the model file.
            card: the card in the file.
            rows_per_run: see the attribute.
            provider: execution provider of onnxruntime, `CPU` or `CUDA` of `models.onnx_file.session`.

        Raises:
            ModelFileError: onnxruntime rejects the file or cannot use the provider, or the golden images differ by more
                than `models.onnx_file.golden.GOLDEN_BOUNDS` allows.
        """
        self.file = file
        """Content of the model file."""
        self.card = card
        """The card in the file."""
        self.rows_per_run = rows_per_run
        """Maximum number of rows that the network computes at a time, from 1 to `MAX_ROWS_PER_RUN`. It is less where
        images are large, so that the memory stays within `PREFERRED_RUN_ELEMENTS` of
        `models.onnx_file.graph_memory`."""
        self.provider = provider
        """Execution provider of onnxruntime."""
        self._session = open_session(file, provider)
        self.golden_comparison = self._compare_golden()
        """Differences between the golden images of the card and those that this machine renders."""

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        provider: str = CPU,
        public_key: Path | None = None,
        allowed_hashes: Collection[str] = (),
        begin: Callable[[str], None] = _ignore,
    ) -> Self:
        """Opens a model file. Checks its signature, its checksum, its graph and its card before onnxruntime loads it,
        and its golden images after that.

        Args:
            path: the ONNX file. It is read once.
            provider: execution provider of onnxruntime, `CPU` or `CUDA` of `models.onnx_file.session`.
            public_key: PEM file of the key that must have signed the file, see `models.onnx_file.signature`. The
                signature is checked before anything in the file is parsed. None: it is not checked.
            allowed_hashes: values of `file_sha256` that are allowed. Empty: all are.
            begin: is called with the name of each check, before it is made; see `CHECKS`.

        Raises:
            ModelFileError: the file cannot be read, or a check fails, or onnxruntime cannot use the provider. The
                message begins with the path of the file.
        """
        try:
            with Path(path).open("rb") as stream:
                file = stream.read(graph_checks.MAX_FILE_BYTES + 1)
            if public_key is not None:
                begin("signature")
                _check_signature(Path(path), file, public_key)
            return cls.from_bytes(file, provider, allowed_hashes, begin)
        except OSError as error:
            raise ModelFileError(f"{path}: {error.strerror}") from error
        except ModelFileError as error:
            raise ModelFileError(f"{path}: {error}") from error

    @classmethod
    def from_bytes(
        cls,
        file: bytes,
        provider: str = CPU,
        allowed_hashes: Collection[str] = (),
        begin: Callable[[str], None] = _ignore,
    ) -> Self:
        """Opens a model file that is in memory, with the same checks as `open`, except that of the signature.

        Raises:
            ModelFileError: a check fails, or onnxruntime cannot use the provider. If a check of this
                module or of the graph fails, the message begins with the name of the check.
        """
        begin("size")
        if len(file) > graph_checks.MAX_FILE_BYTES:
            raise ModelFileError(
                f"size: the file is larger than the maximum of {graph_checks.MAX_FILE_BYTES >> 20} MiB"
            )
        begin("checksum")
        sha256 = verify_checksum(file)
        if allowed_hashes:
            begin("pinned hash")
            _check_hash(sha256, allowed_hashes)
        begin("format")
        model = graph_checks.parse(file)
        begin("card")
        card = graph_checks.read_card(model)
        if card.file_sha256 != sha256:
            raise CardError("card: its file_sha256 is not the checksum of the file")
        if card.latents_version != LATENTS_VERSION:
            raise CardError(
                f"card: its latents are of version {card.latents_version}; this program draws version {LATENTS_VERSION}"
            )
        graph_checks.check(model, card, begin)
        begin("golden images")
        return cls(file, card, measure_memory(model).rows(MAX_ROWS_PER_RUN), provider)

    def images(
        self,
        seed: int,
        first: int,
        n: int,
        labels: str | Sequence[str | int] | None = None,
        truncation: float = 1.0,
    ) -> tuple[Images, Labels]:
        """Makes images `first` to `first + n - 1` of a seed. The arguments are those of `draw`.

        Returns:
            images: uint8 (n, channels, height, width).
            labels: int64 (n,), or None if the generator is not class-conditional.

        Raises:
            InputError: an argument is out of range.
        """
        latents, drawn = self.draw(seed, first, n, labels, truncation)
        return self.decode(latents, drawn), drawn

    def draw(
        self,
        seed: int,
        first: int,
        n: int,
        labels: str | Sequence[str | int] | None = None,
        truncation: float = 1.0,
    ) -> tuple[Latents, Labels]:
        """Draws the latents and labels of images `first` to `first + n - 1` of a seed.

        Args:
            seed: from 0 to 2^53 - 1.
            first: index of the first image, from 0 to 2^53 - n.
            n: number of images, at least 1.
            labels: class names and indices, by the rule of docs/labels.md; image i gets labels[i % len(labels)]. None
                draws classes as often as they occur in the training data.
            truncation: factor of the latents, above 0 and at most 1. Smaller values make images more
                typical and less varied.

        Returns:
            latents: float32 (n, D).
            labels: int64 (n,), or None if the generator is not class-conditional.

        Raises:
            InputError: an argument is out of range.
        """
        return self.seeded_latents(seed, first, n, labels, truncation).rows(0, n)

    def seeded_latents(
        self,
        seed: int,
        first: int,
        n: int,
        labels: str | Sequence[str | int] | None = None,
        truncation: float = 1.0,
    ) -> SeededLatents:
        """Checks the arguments of `draw`, and returns an object whose `rows` method draws the latents.

        Raises:
            InputError: an argument is out of range.
        """
        check_truncation(truncation)
        check_range(seed, first, n)
        classes = None if labels is None else np.array(self.card.class_indices(labels), np.int64)
        return SeededLatents(self.card, seed, first, n, classes, truncation)

    def cycle(self, labels: str | Sequence[str | int], first: int, n: int) -> NDArray[np.int64]:
        """Repeats labels over images `first` to `first + n - 1`: image i gets labels[i % len(labels)].

        Args:
            labels: class names and indices, by the rule of docs/labels.md.
            first: index of the first image.
            n: number of images.

        Returns:
            Class indices int64 (n,).

        Raises:
            InputError: a label is not a class, or the generator takes no labels.
        """
        return cycle_labels(np.array(self.card.class_indices(labels), np.int64), first, n)

    def decode(self, latents: NDArray[np.floating], labels: Labels = None) -> Images:
        """Turns latents into images, `rows_per_run` at a time.

        Args:
            latents: (n, D), with n at least 1; finite when cast to float32.
            labels: class indices int64 (n,) if the generator is class-conditional, else None.

        Returns:
            uint8 (n, channels, height, width).

        Raises:
            InputError: see `check`.
        """
        return run(self._session, make_feeds(*self.check(latents, labels)), self.rows_per_run)["image"]

    def check(self, latents: NDArray[np.floating], labels: Labels) -> tuple[Latents, Labels]:
        """Checks the arguments of `decode`.

        Returns:
            The latents as float32 and the labels as int64, the types that the network takes.

        Raises:
            InputError: the latents have another shape or are not finite, or a label is missing, not a class, or given
                to a generator that takes none.
        """
        # For most invalid inputs, onnxruntime returns wrong images without an error.
        if latents.ndim != 2 or latents.shape[1] != self.card.latent_dim or len(latents) == 0:
            raise InputError("latents", f"must have shape (n, {self.card.latent_dim}), got {latents.shape}")
        with np.errstate(over="ignore", invalid="ignore"):  # the next check finds what does not fit into float32
            latents = latents.astype(np.float32, copy=False)
        if not np.isfinite(latents).all():
            raise InputError("latents", "must be finite float32 numbers")
        if self.card.conditional:
            if labels is None:
                raise InputError("labels", f"{self.card.name} is class-conditional, so labels are required")
            if labels.shape != (len(latents),) or labels.min() < 0 or labels.max() >= len(self.card.class_names):
                raise InputError(
                    "labels",
                    f"must be {len(latents)} class indices from 0 to {len(self.card.class_names) - 1}, "
                    "one for each latent",
                )
            labels = labels.astype(np.int64, copy=False)
        elif labels is not None:
            raise InputError("labels", f"{self.card.name} was trained without classes and takes none")
        return latents, labels

    def _compare_golden(self) -> GoldenComparison:
        golden = self.card.golden
        try:
            rendered, _ = self.images(golden.seed, 0, golden.n)
        except Exception as error:  # onnxruntime's exceptions have no common base class except Exception
            raise ModelFileError(f"golden images: they cannot be rendered: {error}") from error
        return compare_golden(rendered, golden.pixels, self.card.precision)


def _check_signature(path: Path, file: bytes, public_key: Path) -> None:
    try:
        # A local import, because programs that check no signature do not need the library `cryptography`.
        from models.onnx_file.signature import verify_path
    except ModuleNotFoundError as error:
        raise ModelFileError(
            f"signature: it cannot be checked, because {error.name} is not installed: pip install '.[signing]'"
        ) from None
    verify_path(path, file, public_key)


def _check_hash(sha256: str, allowed: Collection[str]) -> None:
    if sha256 not in allowed:
        raise ModelFileError(
            f"pinned hash: its file_sha256 is {sha256}, and only {', '.join(sorted(allowed))} is allowed "
            "(file_sha256 is not what sha256sum prints)"
        )
