"""The gate: what an export must prove before there is a file, metric by metric, each against its bound.

The reference is the PyTorch module in float64. The ONNX graph is judged by the float pixels that its image is
quantised from, on addressed latents, on every class, and in the extremes where networks go wrong.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from models.common.errors import MnistGanError, ModelFileError
from models.networks import Network
from models.networks.pixels import quantize
from models.onnx_file.card import Precision
from models.onnx_file.latents import draw_latents
from models.onnx_file.session import CUDA, MAX_ROWS_PER_RUN, make_feeds, open_session, run, split

SEED = 1
"""Of the latents that are tried; the golden images have 0."""
SEEDED = 512
PER_CLASS = 4
EXTREME = 4.0
"""Standard deviations, of all coordinates at once: further out than any address leads."""
MIN_TRUNCATION = 1e-3
MAX_ERROR_RATIO = 4
"""What the graph may be off by, over what PyTorch is off by in float32. Of an honest network the ratio came to 2.04:
the two add up a row's products in different orders, and the largest of half a million errors is a matter of luck."""
BATCH_SIZES = (*range(1, 257), 257, 512, 1000)
"""The exporter traces a batch of 2 only; 257 is more than one `artifact.MAX_ROWS_PER_RUN`."""
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
    # No bound on single pixels: int8 arithmetic can turn a pixel at the edge of a stroke from black to white.
    "int8": Bounds(5e-2),
}


class ParityError(MnistGanError):
    """A metric beyond its bound: there is no file."""


@dataclass(frozen=True)
class ParityMetric:
    name: str
    value: float
    bound: float
    """The largest value that passes."""

    @property
    def passes(self) -> bool:
        return self.value <= self.bound  # a NaN compares false with everything, and so fails


@dataclass(frozen=True)
class ParityReport:
    """The metrics of an export."""

    checks: tuple[str, ...]
    """Of the graph; those that are not passed raise on their own."""
    metrics: tuple[ParityMetric, ...]

    def check(self) -> None:
        """Raises:
        ParityError: a metric is beyond its bound; the message names the first one.
        """
        for metric in self.metrics:
            if not metric.passes:
                raise ParityError(f"{metric.name}: {metric.value:.3g}, at most {metric.bound:.3g} allowed")

    def report(self) -> dict[str, Any]:
        """For JSON."""
        metrics = {metric.name: {"value": metric.value, "bound": metric.bound} for metric in self.metrics}
        return {"graph": list(self.checks), "metrics": metrics}

    def __str__(self) -> str:
        width = max(len(metric.name) for metric in self.metrics)
        lines = [f"graph: {', '.join(self.checks)}", f"{'metric':{width}}  {'measured':>8}  {'allowed':>8}"]
        lines += [f"{f.name:{width}}  {f.value:8.3g}  {f.bound:8.3g}" for f in self.metrics]
        return "\n".join(lines)


def measure_parity(generator: Network, debug_graph: bytes, precision: Precision = "fp32") -> Iterator[ParityMetric]:
    """Compares a module with a graph that yields `image` (uint8) and `pixels` (float, before quantisation).

    Yields:
        The metrics, in the order in which they are best read: a fault shows first in the one that is meant for it.
    """
    bounds = BOUNDS[precision]
    latents, labels, extremes = _probes(generator)
    feeds = make_feeds(latents, labels)
    exact = _render(generator.double(), feeds)
    single = _render(generator.float(), feeds)
    torch_errors = np.abs(single - exact)

    for provider, session in _sessions(debug_graph).items():
        of = "" if provider == "CPU" else f" on {provider}"
        outputs = run(session, feeds)
        pixels = outputs["pixels"].astype(np.float64)
        yield ParityMetric(f"pixels that are not finite{of}", float((~np.isfinite(pixels)).sum()), 0)
        if labels is not None and precision == "fp32":  # of the others, `evaluate` counts the labels that are read
            yield ParityMetric(f"classes drawn as another{of}", _count_swapped_classes(pixels, exact, labels), 0)
        errors = np.abs(pixels - exact)
        yield ParityMetric(f"mean error against float64{of}", float(errors.mean()), bounds.mean_error)
        if precision == "fp32":
            yield ParityMetric(f"error against float64{of}", float(errors[:extremes].max()), bounds.error)
            yield ParityMetric(
                f"error against PyTorch{of}", float(np.abs(pixels - single)[:extremes].max()), bounds.error
            )
            # So far out, float32 itself may be off by more.
            allowed = max(MAX_ERROR_RATIO * float(torch_errors[extremes:].max()), bounds.error)
            yield ParityMetric(f"error in the extremes{of}", float(errors[extremes:].max()), allowed)
            allowed = max(MAX_ERROR_RATIO * float(torch_errors.max()), 1e-6)
            yield ParityMetric(f"error over PyTorch's own{of}", float(errors.max()), allowed)
            expected = quantize(torch.from_numpy(exact)).numpy()
            yield from _levels(f"against float64{of}", outputs["image"], expected, bounds)

    # Of a processor's kernels, not of a network's arithmetic: where they differ the card says by how much.
    batches, alone = _in_batches(debug_graph, feeds)
    yield from _levels("in a batch against alone", batches, alone, BOUNDS["fp32"])


def _probes(generator: Network) -> tuple[NDArray[np.float32], NDArray[np.int64] | None, int]:
    """Latents, labels, and the number of latents that are no extremes; the extremes are last."""
    config = generator.config
    drawn, _ = draw_latents(SEED, 0, SEEDED + PER_CLASS * config.classes, config.latent_dim)
    random, of_classes = drawn[:SEEDED], drawn[SEEDED:]
    extremes = np.concatenate(
        (
            np.zeros((1, config.latent_dim)),
            EXTREME * np.stack((np.ones(config.latent_dim), -np.ones(config.latent_dim))),
            EXTREME * np.sign(random[:13]),
            MIN_TRUNCATION * random[:16],
        )
    ).astype(np.float32)
    latents = np.concatenate((random, of_classes, extremes))
    if not config.classes:
        return latents, None, len(drawn)
    # The classes' own probes come class by class; the others go through them in turn.
    labels = np.arange(len(latents)) % config.classes
    labels[SEEDED : SEEDED + len(of_classes)] = np.repeat(np.arange(config.classes), PER_CLASS)
    return latents, labels, len(drawn)


@torch.inference_mode()
def _render(generator: Network, feeds: dict[str, NDArray]) -> NDArray[np.float64]:
    dtype = next(generator.parameters()).dtype
    rendered = []
    for chunk in split(feeds, MAX_ROWS_PER_RUN):
        latent, *label = (torch.from_numpy(value) for value in chunk.values())
        rendered.append(generator(latent.to(dtype), *label))
    return torch.cat(rendered).double().numpy()


def _count_swapped_classes(pixels: NDArray[np.float64], exact: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Classes whose mean image is nearer to that of another class."""
    classes = np.unique(labels)
    actual, expected = (
        np.stack([images[labels == label].mean(0).ravel() for label in classes]) for images in (pixels, exact)
    )
    # |a - b|^2 without a tensor of all pairs.
    distances = (actual**2).sum(1)[:, None] - 2 * actual @ expected.T + (expected**2).sum(1)
    return float((np.diag(distances) > distances.min(1) + 1e-6).sum())


def _levels(
    name: str, actual: NDArray[np.uint8], expected: NDArray[np.uint8], bounds: Bounds
) -> tuple[ParityMetric, ParityMetric]:
    off = np.abs(actual.astype(np.int16) - expected.astype(np.int16))  # uint8 differences would wrap
    return (
        ParityMetric(f"levels off {name}", float(off.max()), bounds.levels),
        ParityMetric(f"pixels off {name}", float((off > 0).sum()), math.floor(bounds.share * off.size)),
    )


def _sessions(debug_graph: bytes) -> dict[str, ort.InferenceSession]:
    """By the provider's name, those that this machine can use."""
    sessions = {"CPU": open_session(debug_graph)}
    for provider in ort.get_available_providers():
        if provider in GPU_PROVIDERS:
            try:
                sessions[provider.removesuffix("ExecutionProvider")] = open_session(debug_graph, provider)
            except ModelFileError:
                continue  # it is listed wherever onnxruntime-gpu is installed, GPU or not
    return sessions


def _in_batches(debug_graph: bytes, feeds: dict[str, NDArray]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images of rows in a batch of every size, and of the same rows alone."""
    session = open_session(debug_graph)

    def image(rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        return session.run(["image"], {name: value[rows] for name, value in feeds.items()})[0]

    alone = np.concatenate([image(np.array([row])) for row in range(256)])
    rows = [np.arange(size) % 256 for size in BATCH_SIZES]
    return np.concatenate([image(batch) for batch in rows]), alone[np.concatenate(rows)]
