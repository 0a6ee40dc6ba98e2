"""The gate: what an export must prove before there is a file, figure by figure, each against its bound.

The reference is the PyTorch module in float64. The ONNX graph is judged by the float pixels that its image is
quantised from, on addressed latents, on every class, and in the corners where networks go wrong.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from models import latents as addresses
from models.architectures import Network
from models.artifact import CHUNK, CUDA, make_feeds, open_session, run, split
from models.card import Precision
from models.errors import MnistGanError, ModelFileError
from models.pixels import quantize

SEED = 1
"""Of the latents that are tried; the golden images have 0."""
ADDRESSED = 512
PER_CLASS = 4
EXTREME = 4.0
"""Standard deviations, of all coordinates at once: further out than any address leads."""
LEAST_TRUNCATION = 1e-3
TIMES_TORCH = 4
"""What the graph may be off by, over what PyTorch is off by in float32. Of an honest network the ratio came to 2.04:
the two add up a row's products in different orders, and the largest of half a million errors is a matter of luck."""
BATCH_SIZES = (*range(1, 257), 257, 512, 1000)
"""The exporter traces a batch of 2 only; 257 is more than one `artifact.CHUNK`."""
GPU_PROVIDERS = (CUDA, "TensorrtExecutionProvider")


@dataclass(frozen=True)
class Bounds:
    """How far a file may be off; of the float pixels in [-1, 1], and of the image's 255 levels."""

    mean_error: float
    """From the float64 module."""
    error: float = math.inf
    """The largest."""
    levels: float = math.inf
    share: float = 1.0
    """Of pixels that may be off."""


BOUNDS: dict[Precision, Bounds] = {
    "fp32": Bounds(1e-6, 1e-5, 1, 1e-4),
    "fp16": Bounds(1e-3),
    # A pixel on the edge of a stroke may go from black to white in few bits, and does in the corners; what that does to
    # the images as a whole is for `evaluate` to say.
    "int8": Bounds(5e-2),
}


class GateError(MnistGanError):
    """A figure beyond its bound: there is no file."""


@dataclass(frozen=True)
class Figure:
    name: str
    value: float
    bound: float
    """The largest value that passes."""

    @property
    def passes(self) -> bool:
        return self.value <= self.bound  # a NaN compares false with everything, and so fails


@dataclass(frozen=True)
class Gate:
    """The figures of an export."""

    checks: tuple[str, ...]
    """Of the graph; those that are not passed raise on their own."""
    figures: tuple[Figure, ...]

    def check(self) -> None:
        """Raises:
        GateError: a figure is beyond its bound; the message names the first one.
        """
        for figure in self.figures:
            if not figure.passes:
                raise GateError(f"{figure.name}: {figure.value:.3g}, at most {figure.bound:.3g} allowed")

    def report(self) -> dict[str, Any]:
        """For JSON."""
        figures = {figure.name: {"value": figure.value, "bound": figure.bound} for figure in self.figures}
        return {"graph": list(self.checks), "figures": figures}

    def __str__(self) -> str:
        width = max(len(figure.name) for figure in self.figures)
        lines = [f"graph: {', '.join(self.checks)}", f"{'figure':{width}}  {'measured':>8}  {'allowed':>8}"]
        lines += [f"{f.name:{width}}  {f.value:8.3g}  {f.bound:8.3g}" for f in self.figures]
        return "\n".join(lines)


def measure(generator: Network, twin: bytes, precision: Precision = "fp32") -> Iterator[Figure]:
    """Compares a module with a graph that yields `image` (uint8) and `pixels` (float, before quantisation).

    Yields:
        The figures, in the order in which they are best read: a fault shows first in the one that is meant for it.
    """
    bounds = BOUNDS[precision]
    latents, labels, corners = _probes(generator)
    feeds = make_feeds(latents, labels)
    exact = _render(generator.double(), feeds)
    single = _render(generator.float(), feeds)
    torch_errors = np.abs(single - exact)

    for provider, session in _sessions(twin).items():
        of = "" if provider == "CPU" else f" on {provider}"
        outputs = run(session, feeds)
        pixels = outputs["pixels"].astype(np.float64)
        yield Figure(f"pixels that are not finite{of}", float((~np.isfinite(pixels)).sum()), 0)
        if labels is not None and precision == "fp32":  # of the others, `evaluate` counts the labels that are read
            yield Figure(f"classes drawn as another{of}", _swapped(pixels, exact, labels), 0)
        errors = np.abs(pixels - exact)
        yield Figure(f"mean error against float64{of}", float(errors.mean()), bounds.mean_error)
        if precision == "fp32":
            yield Figure(f"error against float64{of}", float(errors[:corners].max()), bounds.error)
            yield Figure(f"error against PyTorch{of}", float(np.abs(pixels - single)[:corners].max()), bounds.error)
            # So far out, float32 itself may be off by more.
            allowed = max(TIMES_TORCH * float(torch_errors[corners:].max()), bounds.error)
            yield Figure(f"error in the corners{of}", float(errors[corners:].max()), allowed)
            allowed = max(TIMES_TORCH * float(torch_errors.max()), 1e-6)
            yield Figure(f"error over PyTorch's own{of}", float(errors.max()), allowed)
            expected = quantize(torch.from_numpy(exact)).numpy()
            yield from _levels(f"against float64{of}", outputs["image"], expected, bounds)

    # Of a processor's kernels, not of a network's arithmetic: where they differ the card says by how much.
    batches, alone = _in_batches(twin, feeds)
    yield from _levels("in a batch against alone", batches, alone, BOUNDS["fp32"])


def _probes(generator: Network) -> tuple[NDArray[np.float32], NDArray[np.int64] | None, int]:
    """Latents, labels, and the number of latents that are no corners; the corners are last."""
    config = generator.config
    drawn, _ = addresses.draw(SEED, 0, ADDRESSED + PER_CLASS * config.classes, config.latent_dim)
    random, of_classes = drawn[:ADDRESSED], drawn[ADDRESSED:]
    corners = np.concatenate(
        (
            np.zeros((1, config.latent_dim)),
            EXTREME * np.stack((np.ones(config.latent_dim), -np.ones(config.latent_dim))),
            EXTREME * np.sign(random[:13]),
            LEAST_TRUNCATION * random[:16],
        )
    ).astype(np.float32)
    latents = np.concatenate((random, of_classes, corners))
    if not config.classes:
        return latents, None, len(drawn)
    # The classes' own probes come class by class; the others go through them in turn.
    labels = np.arange(len(latents)) % config.classes
    labels[ADDRESSED : ADDRESSED + len(of_classes)] = np.repeat(np.arange(config.classes), PER_CLASS)
    return latents, labels, len(drawn)


@torch.inference_mode()
def _render(generator: Network, feeds: dict[str, NDArray]) -> NDArray[np.float64]:
    dtype = next(generator.parameters()).dtype
    rendered = []
    for chunk in split(feeds, CHUNK):
        latent, *label = (torch.from_numpy(value) for value in chunk.values())
        rendered.append(generator(latent.to(dtype), *label))
    return torch.cat(rendered).double().numpy()


def _swapped(pixels: NDArray[np.float64], exact: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Classes whose mean image is nearer to that of another class."""
    classes = np.unique(labels)
    actual, expected = (
        np.stack([images[labels == label].mean(0).ravel() for label in classes]) for images in (pixels, exact)
    )
    # |a - b|^2 without a tensor of all pairs.
    distances = (actual**2).sum(1)[:, None] - 2 * actual @ expected.T + (expected**2).sum(1)
    return float((np.diag(distances) > distances.min(1) + 1e-6).sum())


def _levels(name: str, actual: NDArray[np.uint8], expected: NDArray[np.uint8], bounds: Bounds) -> tuple[Figure, Figure]:
    off = np.abs(actual.astype(np.int16) - expected.astype(np.int16))  # uint8 differences would wrap
    return (
        Figure(f"levels off {name}", float(off.max()), bounds.levels),
        Figure(f"pixels off {name}", float((off > 0).sum()), math.floor(bounds.share * off.size)),
    )


def _sessions(twin: bytes) -> dict[str, ort.InferenceSession]:
    """By the provider's name, those that this machine can use."""
    sessions = {"CPU": open_session(twin)}
    for provider in ort.get_available_providers():
        if provider in GPU_PROVIDERS:
            try:
                sessions[provider.removesuffix("ExecutionProvider")] = open_session(twin, provider)
            except ModelFileError:
                continue  # it is listed wherever onnxruntime-gpu is installed, GPU or not
    return sessions


def _in_batches(twin: bytes, feeds: dict[str, NDArray]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images of rows in a batch of every size, and of the same rows alone."""
    session = open_session(twin)

    def image(rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        return session.run(["image"], {name: value[rows] for name, value in feeds.items()})[0]

    alone = np.concatenate([image(np.array([row])) for row in range(256)])
    rows = [np.arange(size) % 256 for size in BATCH_SIZES]
    return np.concatenate([image(batch) for batch in rows]), alone[np.concatenate(rows)]
