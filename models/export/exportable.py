"""Checks before training whether a generator will be small enough to be exported."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from models.common.errors import GraphError, MnistGanError
from models.networks import Network, NetworkConfig, build_generator, parameter_count
from models.networks.own import OwnGenerator, is_own
from models.networks.own_checks import check_generator
from models.onnx_file import graph_memory
from models.onnx_file.card import MAX_SIZE
from models.onnx_file.graph_checks import MAX_FILE_BYTES

QUANTIZATION_STEPS = 5
"""Number of tensors with the size of the image that `models.networks.pixels.quantize` adds to the graph."""
UNCERTAIN = (0.98, 2.0)
"""If the estimated number of elements, divided by the limit, is in this range, the graph is exported and measured
exactly. The estimate counts operators that the exporter fuses, such as normalization, and omits those that only compute
a shape."""
COPIES = 4
"""Number of image-sized buffers that a convolution may allocate: its input and its output, each in the plain and in the
channel-padded layout."""
KERNEL = 16
"""Number of elements of the largest kernel (4 x 4). im2col needs up to this many elements of working memory for each
element of the input."""

_ADVICE = "choose a smaller image size or smaller generator widths"


class NotExportableError(MnistGanError):
    """The generator is beyond a limit of model files, so `export-onnx` would reject it."""


def check_exportable(config: NetworkConfig) -> None:
    """Checks a generator against the limits of a model file.

    Estimates the sizes, which takes milliseconds. If the estimate is close to a limit, or the network is that of a
    user, traces the graph, which takes seconds.

    Raises:
        NotExportableError: the generator is beyond a limit, or has an operator that is not allowed; the message names
            it.
        ExportError, NetworkError: the network is that of a user, and cannot be exported or breaks a rule.
        ValueError: the config is invalid.
    """
    sizes = {"latent": config.latent_dim, "height": config.image_shape[1], "width": config.image_shape[2]}
    for name, size in sizes.items():
        _require(size <= MAX_SIZE, f"its {name} is {size:,}, at most {MAX_SIZE:,} is allowed")
    if is_own(config.architecture):
        generator = build_generator(config)
        assert isinstance(generator, OwnGenerator)
        check_generator(generator)
        _check_graph(generator)
        return
    with torch.device("meta"):  # computes shapes without allocating memory
        generator = build_generator(config)
    file_bytes = 4 * parameter_count(generator)
    _require(
        file_bytes <= MAX_FILE_BYTES,
        f"its weights take {file_bytes >> 20:,} MiB, at most {MAX_FILE_BYTES >> 20:,} MiB are allowed; {_ADVICE}",
    )
    estimate = estimate_sizes(generator)
    share = estimate.elements / graph_memory.MAX_ELEMENTS
    _require(
        share < UNCERTAIN[1],
        f"it computes about {estimate.elements:,} elements for one image, at most {graph_memory.MAX_ELEMENTS:,} are "
        f"allowed; {_ADVICE}",
    )
    close_to_a_limit = (
        share > UNCERTAIN[0]
        or estimate.memory > graph_memory.MAX_RUN_ELEMENTS
        or estimate.operators > graph_memory.MAX_NODES / 2
    )
    if close_to_a_limit:
        _check_graph(build_generator(config))


def _check_graph(generator: Network) -> None:
    """Traces the graph of a generator and checks its operators and its sizes.

    Raises:
        NotExportableError: the graph would be rejected.
    """
    from models.export.exporter import graph_sizes  # takes seconds to import, and needs onnxruntime

    try:
        graph_sizes(generator).rows(1)
    except GraphError as error:
        advice = "" if isinstance(generator, OwnGenerator) else f"; {_ADVICE}"
        raise NotExportableError(f"the generator could not be exported: {error}{advice}") from None


@dataclass
class Estimate:
    """Size of an exported graph, estimated from the operators that the PyTorch network runs."""

    elements: int = 0
    """Number of elements that the graph computes for one latent, in all of its tensors together."""
    memory: int = 0
    """Upper bound of the number of elements that a run of one row allocates, with working memory."""
    operators: int = 0
    """Number of operators."""

    def add(self, tensor: Tensor) -> None:
        """Counts one tensor that an operator returns."""
        is_image = tensor.dim() == 4
        if is_image:
            padded = tensor.numel() // tensor.shape[1] * graph_memory.round_up(tensor.shape[1])
        else:
            padded = tensor.numel()
        self.elements += tensor.numel()
        self.memory += (COPIES if is_image else 1) * padded + KERNEL * tensor.numel()


def estimate_sizes(generator: Network) -> Estimate:
    """Runs a generator on one latent and counts the tensors. On PyTorch's meta device it computes shapes only.

    Sets the generator to evaluation mode.
    """
    config, device = generator.config, next(generator.parameters()).device
    latent = torch.zeros(1, config.latent_dim, device=device)
    label = torch.zeros(1, dtype=torch.int64, device=device) if config.classes else None
    with torch.inference_mode(), _TensorCounter() as counter:
        image = generator.eval()(latent, label)
    for _ in range(QUANTIZATION_STEPS):
        counter.estimate.add(image)
    return counter.estimate


class _TensorCounter(TorchDispatchMode):
    """Context manager that counts operators and the tensors that they return."""

    def __init__(self) -> None:
        super().__init__()
        self.estimate = Estimate()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        self.estimate.operators += 1
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.estimate.add(leaf)
        return result


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise NotExportableError(f"the generator could not be exported: {message}")
