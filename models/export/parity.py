"""The parity check: compares the ONNX graph of an export with its PyTorch module, metric by metric against bounds.

- Reference: the PyTorch module in float64.
- Compared with it: the graph's float pixels in [-1, 1], before they are quantized, and its uint8 image. The module in
  float32 is compared too, to know which error is PyTorch's own.
- For fp32, errors on single pixels, the uint8 image and extreme inputs have their own bounds, and no class may be drawn
  as another. For fp16 and int8, the check covers only whether all pixels are finite, the mean error, and batches
  against single rows.
- Inputs: 512 latents drawn at random, 4 more for each class (fewer of both where images are large), and extreme inputs:
  the zero latent, latents four standard deviations out in every coordinate, and latents at the smallest truncation.
- Batch sizes: 1 to the largest that `Generator` runs, and three larger ones. Each row in a batch is compared with the
  same row alone.
- Execution providers: the CPU, and those of an NVIDIA GPU if the machine has one.

`models.export.exporter` writes a file only if all metrics are within their bounds.
"""

import copy
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
"""Seed of the latents that are compared. The golden images have seed 0."""
RANDOM_LATENTS = 512
"""Maximum number of random latents; their labels cycle through the classes."""
LATENTS_PER_CLASS = 4
"""Maximum number of further random latents for each class."""
REGULAR_VALUES = 2**23
"""Number of values that the images of all random latents have together, and those of all latents for the classes. The
numbers of latents are reduced to it where images are large, but not below `MIN_RANDOM_LATENTS` and one for each
class."""
MIN_RANDOM_LATENTS = 32
"""Minimum number of random latents."""
EXTREME = 4.0
"""Absolute value of every coordinate of an extreme latent, in standard deviations. A random draw practically never
has such large values in all coordinates."""
MIN_TRUNCATION = 1e-3
"""Smallest truncation that is compared."""
MAX_ERROR_RATIO = 4
"""Allowed ratio of the ONNX error to PyTorch's own float32 error, both measured against float64. The largest
ratio measured on correct exports is 2.04: the two sum products in different orders, and the maximum of half a million
errors varies by chance."""
MIN_ERROR_BOUND = 1e-6
"""An error up to this value is always allowed, even if PyTorch's own is much smaller."""
MAX_BATCH_SIZE = 1000
"""Largest batch size that is compared."""
ROWS_ALONE = 256
"""Maximum number of rows that are run alone, to compare them with the same rows in batches."""
GPU_PROVIDERS = (CUDA, "TensorrtExecutionProvider")


@dataclass(frozen=True)
class Bounds:
    """Largest differences that are allowed between a file and the float64 module.

    Errors are absolute differences of float pixels in [-1, 1]. Levels are those of the image, 0 to 255.
    """

    mean_error: float
    """Mean of the errors of all pixels."""
    max_error: float = math.inf
    """Maximum error of a pixel."""
    max_levels: float = math.inf
    """Maximum difference of a pixel in levels."""
    pixel_share: float = 1.0
    """Share of pixels, 0 to 1, that may differ in their level, unless PyTorch's own float32 changes more."""


BOUNDS: dict[Precision, Bounds] = {
    "fp32": Bounds(mean_error=1e-6, max_error=1e-5, max_levels=1, pixel_share=1e-4),
    "fp16": Bounds(mean_error=1e-3),
    # No bound on single pixels: int8 arithmetic can turn a pixel at the edge of a stroke from black to white.
    "int8": Bounds(mean_error=5e-2),
}


class ParityError(MnistGanError):
    """A metric of an export is beyond its bound, so no file is written."""


@dataclass(frozen=True)
class ParityMetric:
    """One measured difference and its bound."""

    name: str
    value: float
    bound: float
    """Largest value that passes."""

    @property
    def passes(self) -> bool:
        """Whether the value is at most the bound. A NaN value does not pass."""
        return self.value <= self.bound


@dataclass(frozen=True)
class ParityReport:
    """Everything that was checked before an export was written. The card and `--report` contain it."""

    checks: tuple[str, ...]
    """Names of the checks of the graph's structure that passed. A check that fails raises its own error instead."""
    metrics: tuple[ParityMetric, ...]
    """Metrics in the order in which they were measured."""

    def check(self) -> None:
        """Checks all metrics against their bounds.

        Raises:
            ParityError: a metric is beyond its bound; the message names the first such metric.
        """
        for metric in self.metrics:
            if not metric.passes:
                raise ParityError(f"{metric.name}: {metric.value:.3g}, at most {metric.bound:.3g} allowed")

    def to_dict(self) -> dict[str, Any]:
        """Returns the report in types that JSON has: names of checks, and value and bound of each metric by name."""
        metrics = {metric.name: {"value": metric.value, "bound": metric.bound} for metric in self.metrics}
        return {"graph": list(self.checks), "metrics": metrics}

    def __str__(self) -> str:
        """Formats the report as a line of checks and a table of metrics."""
        width = max(len(metric.name) for metric in self.metrics)
        lines = [f"graph: {', '.join(self.checks)}", f"{'metric':{width}}  {'measured':>8}  {'allowed':>8}"]
        lines += [f"{metric.name:{width}}  {metric.value:8.3g}  {metric.bound:8.3g}" for metric in self.metrics]
        return "\n".join(lines)


def batch_sizes(rows: int) -> tuple[int, ...]:
    """Returns the batch sizes that are compared. The exporter traces only a batch of 2.

    Args:
        rows: the largest batch size that `Generator` runs.
    """
    return (*range(1, rows + 1), rows + 1, 2 * rows, min(4 * rows, MAX_BATCH_SIZE))


def measure_parity(
    generator: Network, debug_graph: bytes, precision: Precision = "fp32", rows: int = MAX_ROWS_PER_RUN
) -> Iterator[ParityMetric]:
    """Compares a PyTorch generator with an ONNX graph of it. The module docstring lists what is compared.

    Args:
        generator: on the CPU. It is copied, so its dtype and its mode do not change.
        debug_graph: a serialized ONNX model with the outputs `image` (uint8) and `pixels` (float, before quantization).
        precision: selects the bounds. Fewer metrics apply to fp16 and int8.
        rows: number of rows that are run at a time, which is the largest that `Generator` runs.

    Yields:
        The metrics. The most specific metrics come first, so that the first one beyond its bound identifies the fault.

    Raises:
        ModelFileError: onnxruntime cannot open the graph.
    """
    bounds = BOUNDS[precision]
    latents, labels, regular = _inputs(generator)
    feeds = make_feeds(latents, labels)
    module = copy.deepcopy(generator).eval()
    float64 = _render(module.double(), feeds, rows)
    float32 = _render(module.float(), feeds, rows)
    torch_errors = np.abs(float32 - float64)
    expected = quantize(torch.from_numpy(float64)).numpy()
    # Where most pixels are at the edge between two levels, the rounding of float32 itself changes more than the bound.
    torch_pixels_off = int((quantize(torch.from_numpy(float32).float()).numpy() != expected).sum())

    for provider, session in _open_sessions(debug_graph).items():
        suffix = "" if provider == "CPU" else f" on {provider}"
        outputs = run(session, feeds, rows)
        pixels = outputs["pixels"].astype(np.float64)
        yield ParityMetric(f"pixels that are not finite{suffix}", float((~np.isfinite(pixels)).sum()), 0)
        # For fp16 and int8, training.export_quality checks the label agreement instead.
        if labels is not None and precision == "fp32":
            swapped = _count_swapped_classes(pixels, float64, labels)
            yield ParityMetric(f"classes drawn as another class{suffix}", swapped, 0)
        errors = np.abs(pixels - float64)
        yield ParityMetric(f"mean error against float64{suffix}", float(errors.mean()), bounds.mean_error)
        if precision == "fp32":
            maximum = float(errors[:regular].max())
            yield ParityMetric(f"maximum error against float64{suffix}", maximum, bounds.max_error)
            maximum = float(np.abs(pixels - float32)[:regular].max())
            yield ParityMetric(f"maximum error against PyTorch in float32{suffix}", maximum, bounds.max_error)
            # On extreme inputs float32 itself can be off by more than the bound.
            allowed = max(MAX_ERROR_RATIO * float(torch_errors[regular:].max()), bounds.max_error)
            yield ParityMetric(f"maximum error on extreme inputs{suffix}", float(errors[regular:].max()), allowed)
            allowed = max(MAX_ERROR_RATIO * float(torch_errors.max()), MIN_ERROR_BOUND)
            yield ParityMetric(f"maximum error on all inputs{suffix}", float(errors.max()), allowed)
            levels, (pixels_off, allowed) = _compare_images(outputs["image"], expected, bounds)
            yield ParityMetric(f"maximum difference in levels against float64{suffix}", *levels)
            allowed = max(MAX_ERROR_RATIO * torch_pixels_off, allowed)
            yield ParityMetric(f"pixels that differ from float64{suffix}", pixels_off, allowed)

    # The graph is compared with itself, so the precision does not matter and the bounds of fp32 apply to all: only the
    # kernels of another batch size can make a difference.
    in_batches, alone = _render_in_batches(debug_graph, feeds, rows)
    levels, differing = _compare_images(in_batches, alone, BOUNDS["fp32"])
    yield ParityMetric("maximum difference in levels in a batch and alone", *levels)
    yield ParityMetric("pixels that differ in a batch and alone", *differing)


def _inputs(generator: Network) -> tuple[NDArray[np.float32], NDArray[np.int64] | None, int]:
    """Makes the inputs of the comparison.

    Returns:
        Latents (n, latent_dim), labels (n,) or None, and the number of regular latents. The rest are extreme inputs.
    """
    config = generator.config
    images = REGULAR_VALUES // math.prod(config.image_shape)
    n_random = max(MIN_RANDOM_LATENTS, min(RANDOM_LATENTS, images))
    per_class = max(1, min(LATENTS_PER_CLASS, images // max(config.classes, 1)))
    regular, _ = draw_latents(SEED, 0, n_random + per_class * config.classes, config.latent_dim)
    random, of_classes = regular[:n_random], regular[n_random:]
    extreme = np.concatenate(
        (
            np.zeros((1, config.latent_dim)),
            EXTREME * np.stack((np.ones(config.latent_dim), -np.ones(config.latent_dim))),
            EXTREME * np.sign(random[:13]),
            MIN_TRUNCATION * random[:16],
        )
    ).astype(np.float32)
    latents = np.concatenate((random, of_classes, extreme))
    if not config.classes:
        return latents, None, len(regular)
    labels = np.arange(len(latents)) % config.classes
    labels[n_random : len(regular)] = np.repeat(np.arange(config.classes), per_class)
    return latents, labels, len(regular)


@torch.inference_mode()
def _render(generator: Network, feeds: dict[str, NDArray], rows: int) -> NDArray[np.float64]:
    """Runs the module in the dtype of its weights, a number of rows at a time."""
    dtype = next(generator.parameters()).dtype
    rendered = []
    for chunk in split(feeds, rows):
        latent, *label = (torch.from_numpy(value) for value in chunk.values())
        rendered.append(generator(latent.to(dtype), *label))
    return torch.cat(rendered).double().numpy()


def _count_swapped_classes(
    pixels: NDArray[np.float64], expected_pixels: NDArray[np.float64], labels: NDArray[np.int64]
) -> float:
    """Counts classes whose mean image is closer to the expected mean image of another class."""
    classes = np.unique(labels)
    actual, expected = (
        np.stack([images[labels == label].mean(0).ravel() for label in classes]) for images in (pixels, expected_pixels)
    )
    # Squared distances |a - b|^2 of all pairs of classes, without a tensor of all pairs of images.
    distances = (actual**2).sum(1)[:, None] - 2 * actual @ expected.T + (expected**2).sum(1)
    return float((np.diag(distances) > distances.min(1) + 1e-6).sum())


def _compare_images(
    actual: NDArray[np.uint8], expected: NDArray[np.uint8], bounds: Bounds
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Returns value and bound of the maximum difference in levels, then of the number of pixels that differ."""
    differences = np.abs(actual.astype(np.int16) - expected.astype(np.int16))  # uint8 differences would wrap around
    return (
        (float(differences.max()), bounds.max_levels),
        (float((differences > 0).sum()), math.floor(bounds.pixel_share * differences.size)),
    )


def _open_sessions(debug_graph: bytes) -> dict[str, ort.InferenceSession]:
    """Opens a session on the CPU and on each GPU provider that works here, by the name of the provider."""
    sessions = {"CPU": open_session(debug_graph)}
    for provider in ort.get_available_providers():
        if provider in GPU_PROVIDERS:
            try:
                sessions[provider.removesuffix("ExecutionProvider")] = open_session(debug_graph, provider)
            except ModelFileError:
                continue  # onnxruntime-gpu lists its providers even if the machine has no GPU
    return sessions


def _render_in_batches(
    debug_graph: bytes, feeds: dict[str, NDArray], largest: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Returns the images of rows in batches of every size, and the images of the same rows, each run alone."""
    session = open_session(debug_graph)

    def render(rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        return session.run(["image"], {name: value[rows] for name, value in feeds.items()})[0]

    sizes = batch_sizes(largest)
    alone = np.concatenate([render(np.array([row])) for row in range(min(ROWS_ALONE, len(feeds["latent"]), sizes[-1]))])
    batches = [np.arange(size) % len(alone) for size in sizes]
    return np.concatenate([render(rows) for rows in batches]), alone[np.concatenate(batches)]
