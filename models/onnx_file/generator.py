"""The model file: opened, verified and run with onnxruntime.

    from models.onnx_file.generator import Generator

    images, labels = Generator.open("generator.onnx").images(seed=1, first=0, n=64)

Needs neither torch nor BentoML.
"""

import base64
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from models.common.checksum import verify_checksum
from models.common.errors import InputError, ModelFileError
from models.onnx_file import graph_checks as graph
from models.onnx_file import graph_memory as sizes
from models.onnx_file.card import Card, CardError, Precision
from models.onnx_file.latents import LATENTS_VERSION, check_range, draw_latents

Images = NDArray[np.uint8]

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
PROVIDER_OPTIONS = {CUDA: {"use_tf32": 0}}
"""TF32's 10 bits of mantissa would not do for the gate."""

MAX_ROWS_PER_RUN = 256
"""Maximum number of rows of one run of the network: enough for full speed, few enough to stay in the cache."""

GOLDEN_BOUNDS: dict[Precision, tuple[int, float]] = {"fp32": (1, 1e-4), "fp16": (2, 1e-2), "int8": (8, 0.2)}
"""Levels by which a pixel of the golden images may be off, and the share of pixels that may, where onnxruntime picks
other kernels: on another kind of processor. In int8, where a last bit can tip a rounding within the network, it picks
other arithmetic."""


@dataclass(frozen=True)
class GoldenComparison:
    """How the golden images came out on this machine."""

    pixels: int
    pixels_off: int
    levels_off: int
    """By how much at most, of 255."""

    def __str__(self) -> str:
        if not self.pixels_off:
            return f"golden images: all {self.pixels:,} pixels as exported"
        return f"golden images: {self.pixels_off:,} of {self.pixels:,} pixels off, by up to {self.levels_off} levels"


@dataclass(frozen=True)
class SeededLatents:
    """Images `first` to `first + n - 1` of a seed, as they were asked for: each can be drawn without the rest."""

    card: Card
    seed: int
    first: int
    n: int
    classes: NDArray[np.int64] | None
    """Indices to cycle over; None where they are drawn."""
    truncation: float

    def __len__(self) -> int:
        return self.n

    def rows(self, start: int, stop: int) -> tuple[NDArray[np.float32], NDArray[np.int64] | None]:
        """Latents float32 (stop - start, D), and labels int64 (stop - start,) or None; see `Generator.draw`."""
        first, n = self.first + start, stop - start
        latents, labels = draw_latents(self.seed, first, n, self.card.latent_dim, self.card.class_weights)
        if self.classes is not None:
            labels = _cycled(self.classes, first, n)
        return latents * np.float32(self.truncation), labels


@dataclass(frozen=True)
class LatentBatch:
    """Latents of somebody's own, and their labels, as `Generator.check` returns them."""

    latents: NDArray[np.float32]
    labels: NDArray[np.int64] | None

    def __len__(self) -> int:
        return len(self.latents)

    def rows(self, start: int, stop: int) -> tuple[NDArray[np.float32], NDArray[np.int64] | None]:
        """As `SeededLatents.rows`."""
        return self.latents[start:stop], None if self.labels is None else self.labels[start:stop]


def _cycled(classes: NDArray[np.int64], first: int, n: int) -> NDArray[np.int64]:
    return classes[np.arange(first, first + n) % len(classes)]


class Generator:
    """A generator: latents (and labels, if it is class-conditional) in, images out. Safe to call from many threads."""

    def __init__(self, file: bytes, card: Card, rows_per_run: int, provider: str = CPU):
        """Renders the golden images and compares them; `open` and `from_bytes` make all other checks.

        Args:
            rows_per_run: see the attribute.
        """
        self.file = file
        self.card = card
        self.rows_per_run = rows_per_run
        """Maximum number of rows of one run of the network, from 1 to `MAX_ROWS_PER_RUN`. It is smaller for large
        images, so that a run takes at most `MAX_RUN_ELEMENTS` of memory."""
        self.provider = provider
        self._session = open_session(file, provider)
        self.golden_comparison = self._check_golden()

    @classmethod
    def open(cls, path: str | os.PathLike[str], provider: str = CPU) -> Self:
        """Reads a model file once, and proves that it is whole, harmless, and renders its golden images.

        Args:
            provider: onnxruntime's execution provider, `CPU` or `CUDA`.

        Raises:
            ModelFileError: the file cannot be read or fails a check, which the message names; or onnxruntime cannot use
                the provider.
        """
        try:
            with Path(path).open("rb") as stream:
                return cls.from_bytes(stream.read(graph.MAX_FILE_BYTES + 1), provider)
        except OSError as error:
            raise ModelFileError(f"{path}: {error.strerror}") from error
        except ModelFileError as error:
            raise ModelFileError(f"{path}: {error}") from error

    @classmethod
    def from_bytes(cls, file: bytes, provider: str = CPU) -> Self:
        """As `open`, for a file in memory.

        Raises:
            ModelFileError: the file fails a check, which the message begins with.
        """
        if len(file) > graph.MAX_FILE_BYTES:
            raise ModelFileError(f"size: the file is larger than {graph.MAX_FILE_BYTES >> 20} MiB")
        sha256 = verify_checksum(file)
        model = graph.parse(file)
        card = graph.read_card(model)
        if card.file_sha256 != sha256:
            raise CardError("card: it is not the one that the file was sealed with")
        if card.latents_version != LATENTS_VERSION:
            raise CardError(f"card: its latents are of version {card.latents_version}, these are {LATENTS_VERSION}")
        graph.check(model, card)
        return cls(file, card, sizes.measure_memory(model).rows(MAX_ROWS_PER_RUN), provider)

    def images(
        self,
        seed: int,
        first: int,
        n: int,
        labels: str | Sequence[str | int] | None = None,
        truncation: float = 1.0,
    ) -> tuple[Images, NDArray[np.int64] | None]:
        """Makes images `first` to `first + n - 1` of a seed: what `draw` draws, decoded.

        Returns:
            images: uint8 (n, channels, height, width).
            labels: int64 (n,), or None if the generator is not class-conditional.

        Raises:
            InputError: an address, label or truncation out of range.
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
    ) -> tuple[NDArray[np.float32], NDArray[np.int64] | None]:
        """Draws what images `first` to `first + n - 1` of a seed are made from.

        Args:
            seed, first, n: addresses, see `models.onnx_file.latents.draw`.
            labels: what to draw, see `cycle`. None: classes as they occur in the training data.
            truncation: in (0, 1], multiplies the latents: less is more typical and less varied.

        Returns:
            latents: float32 (n, D).
            labels: int64 (n,), or None if the generator is not class-conditional.

        Raises:
            InputError: an address, label or truncation out of range.
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
        """What `draw` draws, checked now and drawn when it is needed.

        Raises:
            InputError: see `draw`.
        """
        if not 0 < truncation <= 1:
            raise InputError("truncation", f"must be above 0 and at most 1, got {truncation}")
        check_range(seed, first, n)
        classes = None if labels is None else np.array(self.card.class_indices(labels), np.int64)
        return SeededLatents(self.card, seed, first, n, classes, truncation)

    def cycle(self, labels: str | Sequence[str | int], first: int, n: int) -> NDArray[np.int64]:
        """Repeats labels over images `first` to `first + n - 1`: image i gets labels[i % len(labels)].

        By index, so that an image is the same whichever range it is asked for in.

        Args:
            labels: a text, or a list of class names and indices, by the rule of docs/labels.md.

        Returns:
            int64 (n,) class indices.

        Raises:
            InputError: a label that is no class, or a generator without classes.
        """
        return _cycled(np.array(self.card.class_indices(labels), np.int64), first, n)

    def decode(self, latents: NDArray[np.floating], labels: NDArray[np.int64] | None = None) -> Images:
        """Turns latents into images, `rows_per_run` at a time.

        Args:
            latents: (n, D), finite in float32, n at least 1.
            labels: int64 (n,) class indices if the generator is class-conditional, else None.

        Returns:
            uint8 (n, channels, height, width).

        Raises:
            InputError: another shape, a latent that is not finite, or labels that do not fit.
        """
        return run(self._session, make_feeds(*self.check(latents, labels)), self.rows_per_run)["image"]

    def check(
        self, latents: NDArray[np.floating], labels: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64] | None]:
        """What `decode` takes, in the types that the network takes.

        Raises:
            InputError: see `decode`.
        """
        # onnxruntime would answer each of these with an image, of nothing or of another class.
        if latents.ndim != 2 or latents.shape[1] != self.card.latent_dim or len(latents) == 0:
            raise InputError("latents", f"must have shape (n, {self.card.latent_dim}), got {latents.shape}")
        with np.errstate(over="ignore", invalid="ignore"):  # what comes of it is refused
            latents = latents.astype(np.float32, copy=False)
        if not np.isfinite(latents).all():
            raise InputError("latents", "must be finite float32 numbers")
        if self.card.conditional:
            if labels is None:
                raise InputError("labels", f"{self.card.name} is class-conditional and needs them")
            if labels.shape != (len(latents),) or labels.min() < 0 or labels.max() >= len(self.card.class_names):
                raise InputError("labels", f"must be {len(latents)} from 0 to {len(self.card.class_names) - 1}")
            labels = labels.astype(np.int64, copy=False)
        elif labels is not None:
            raise InputError("labels", f"{self.card.name} was trained without classes and takes none")
        return latents, labels

    def _check_golden(self) -> GoldenComparison:
        golden = self.card.golden
        try:
            rendered, _ = self.images(golden.seed, 0, golden.n)
        except Exception as error:  # onnxruntime's own exceptions share no base class but this
            raise ModelFileError(f"golden images: they cannot be rendered: {error}") from error
        off = np.abs(rendered.astype(np.int16) - unpack_golden(golden.pixels, rendered.shape).astype(np.int16))
        match = GoldenComparison(off.size, int((off > 0).sum()), int(off.max()))
        levels, share = GOLDEN_BOUNDS[self.card.precision]
        if match.levels_off > levels or match.pixels_off > share * match.pixels:
            raise ModelFileError(f"{match}; at most {share:.2%} of them may, by {levels}")
        return match


def open_session(file: bytes, provider: str = CPU) -> ort.InferenceSession:
    """Opens a session on a file's bytes, from which onnxruntime loads no external data.

    One thread a call: callers run side by side on one session, and threads that wait by spinning would slow them.

    Raises:
        ModelFileError: onnxruntime refuses the file, or runs it elsewhere than asked.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    if provider == CUDA:
        ort.preload_dlls()  # of the packages nvidia-*, which no path leads to
    try:
        session = ort.InferenceSession(
            file, options, [provider], [PROVIDER_OPTIONS.get(provider, {})], enable_fallback=0
        )
    except Exception as error:  # onnxruntime's own exceptions share no base class but this
        raise ModelFileError(f"onnxruntime refuses the file: {error}") from error
    if session.get_providers()[0] != provider:  # it falls back in silence
        raise ModelFileError(f"onnxruntime cannot use {provider} and fell back to {session.get_providers()[0]}")
    return session


def make_feeds(latents: NDArray[np.float32], labels: NDArray[np.int64] | None) -> dict[str, NDArray]:
    """The inputs of the network, by name."""
    return {"latent": latents} if labels is None else {"latent": latents, "label": labels}


def split(feeds: dict[str, NDArray], size: int) -> Iterator[dict[str, NDArray]]:
    """Feeds of `size` rows each, the last of what is left."""
    for i in range(0, len(feeds["latent"]), size):
        yield {name: value[i : i + size] for name, value in feeds.items()}


def run(session: ort.InferenceSession, feeds: dict[str, NDArray], rows: int = MAX_ROWS_PER_RUN) -> dict[str, NDArray]:
    """All outputs by name, computed `rows` rows at a time."""
    chunks = [session.run(None, chunk) for chunk in split(feeds, rows)]
    outputs = (values[0] if len(chunks) == 1 else np.concatenate(values) for values in zip(*chunks, strict=True))
    return {output.name: value for output, value in zip(session.get_outputs(), outputs, strict=True)}


def pack_golden(images: Images) -> str:
    return base64.b64encode(zlib.compress(images.tobytes(), 9)).decode()


def unpack_golden(pixels: str, shape: tuple[int, ...]) -> Images:
    """Undoes `pack_golden`.

    Raises:
        CardError: not images of that shape.
    """
    try:
        size = int(np.prod(shape))
        return np.frombuffer(zlib.decompressobj().decompress(base64.b64decode(pixels), size), np.uint8).reshape(shape)
    except (ValueError, zlib.error) as error:
        raise CardError(f"card: its golden images cannot be read ({error})") from error
