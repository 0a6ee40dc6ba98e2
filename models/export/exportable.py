"""Finds out before training whether the generator will be small enough for a model file."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from models.common.errors import GraphError, MnistGanError
from models.networks import Network, NetworkConfig, build_generator, parameter_count
from models.onnx_file import graph_memory
from models.onnx_file.card import MAX_SIZE
from models.onnx_file.graph_checks import MAX_FILE_BYTES

QUANTIZATION_STEPS = 5
"""Tensors of the size of the image that `models.networks.pixels.quantize` adds to the graph."""
UNCERTAIN = (0.98, 2.0)
"""Range of the estimated elements, as a share of the limit, within which the exported graph itself is checked: the
estimate counts operators that the exporter fuses, such as normalisations, and omits those that only compute a shape."""
COPIES = 4
"""A convolution keeps its input and its output in a layout with padded channels as well."""
KERNEL = 16
"""Number of elements of the largest kernel: a convolution takes up to as much working memory for each element."""

_ADVICE = "choose a smaller image size or smaller generator widths"


class NotExportableError(MnistGanError):
    """A generator that `export-onnx` would refuse."""


def check_exportable(config: NetworkConfig) -> None:
    """Checks a generator against the limits of a model file. Takes milliseconds unless it is close to one.

    Raises:
        NotExportableError: it is beyond a limit; the message names the limit.
        ValueError: no such generator can be built.
    """
    sizes = {"latent": config.latent_dim, "height": config.image_shape[1], "width": config.image_shape[2]}
    for name, size in sizes.items():
        _require(size <= MAX_SIZE, f"its {name} is {size:,}, at most {MAX_SIZE:,} is allowed")
    with torch.device("meta"):  # shapes without memory
        generator = build_generator(config)
    file_bytes = 4 * parameter_count(generator)
    _require(
        file_bytes <= MAX_FILE_BYTES,
        f"its weights take {file_bytes >> 20:,} MiB, at most {MAX_FILE_BYTES >> 20:,} are allowed",
    )
    estimate = estimate_sizes(generator)
    share = estimate.elements / graph_memory.MAX_ELEMENTS
    _require(
        share < UNCERTAIN[1],
        f"it makes about {estimate.elements:,} numbers of one latent, at most {graph_memory.MAX_ELEMENTS:,} are "
        f"allowed; {_ADVICE}",
    )
    close_to_a_limit = (
        share > UNCERTAIN[0]
        or estimate.memory > graph_memory.MAX_RUN_ELEMENTS
        or estimate.operators > graph_memory.MAX_NODES / 2
    )
    if close_to_a_limit:
        # Imported only now, as it takes seconds and needs onnxruntime.
        from models.export.exporter import graph_sizes

        try:
            graph_sizes(build_generator(config)).rows(1)
        except GraphError as error:
            raise NotExportableError(f"the generator could not be exported: {error}; {_ADVICE}") from None


@dataclass
class Estimate:
    """What an exported graph takes, estimated from the operators that the network runs."""

    elements: int = 0
    """Number of elements that the graph makes for one latent, in all of its tensors together."""
    memory: int = 0
    """Upper bound of the elements that a run of one row takes, working memory included."""
    operators: int = 0

    def add(self, tensor: Tensor) -> None:
        """Counts a tensor that an operator returns."""
        image = tensor.dim() == 4
        padded = tensor.numel() // tensor.shape[1] * graph_memory.round_up(tensor.shape[1]) if image else tensor.numel()
        self.elements += tensor.numel()
        self.memory += (COPIES if image else 1) * padded + KERNEL * tensor.numel()


def estimate_sizes(generator: Network) -> Estimate:
    """Estimates what the exported graph of a generator takes. The network may lie on PyTorch's meta device."""
    config, device = generator.config, next(generator.parameters()).device
    latent = torch.zeros(1, config.latent_dim, device=device)
    label = torch.zeros(1, dtype=torch.int64, device=device) if config.classes else None
    with torch.inference_mode(), _Counting() as counted:
        image = generator.eval()(latent, label)
    for _ in range(QUANTIZATION_STEPS):
        counted.estimate.add(image)
    return counted.estimate


class _Counting(TorchDispatchMode):
    """Counts operators and the tensors that they return."""

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


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise NotExportableError(f"the generator could not be exported: {otherwise}")
