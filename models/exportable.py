"""Finds out before training whether the generator will be small enough for a model file."""

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from models.architectures import Network, NetworkConfig, build_generator, parameter_count
from models.card import MAX_SIZE
from models.errors import MnistGanError
from models.graph import MAX_ELEMENTS, MAX_FILE_BYTES

QUANTIZATION_STEPS = 5
"""Tensors of the size of the image that `models.pixels.quantize` adds to the graph."""
UNCERTAIN = (0.98, 2.0)
"""Range of the estimate, as a share of the limit, within which the graph itself decides: the estimate counts operators
that the exporter fuses, such as normalisations, and leaves out those that only compute a shape."""


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
    elements = estimate_elements(generator)
    if UNCERTAIN[0] < elements / MAX_ELEMENTS < UNCERTAIN[1]:
        # Imported only now, as it takes seconds and needs onnxruntime.
        from models.exporter import graph_elements

        elements = graph_elements(build_generator(config))
    _require(
        elements <= MAX_ELEMENTS,
        f"it makes {elements:,} numbers of one latent, at most {MAX_ELEMENTS:,} are allowed; choose a smaller "
        "image size or smaller generator widths",
    )


def estimate_elements(generator: Network) -> int:
    """About how many numbers the exported graph makes of one latent, in all of its tensors together."""
    config, device = generator.config, next(generator.parameters()).device
    latent = torch.zeros(1, config.latent_dim, device=device)
    label = torch.zeros(1, dtype=torch.int64, device=device) if config.classes else None
    with torch.inference_mode(), _CountingElements() as counted:
        image = generator.eval()(latent, label)
    return counted.elements + QUANTIZATION_STEPS * image.numel()


class _CountingElements(TorchDispatchMode):
    """Counts the elements of the tensors that operators return."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        self.elements += sum(leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
        return result


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise NotExportableError(f"the generator could not be exported: {otherwise}")
