"""Checks of a network that a user brings, before it is trained or exported. Each error names the cause and the fix."""

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from models.networks.base import Network
from models.networks.own import NetworkError, OwnDiscriminator, OwnGenerator, describe

ROWS = 32
"""Number of latents or images that a network is called with."""
ROWS_ALONE = 4
"""Number of them that are also computed alone."""
TOLERANCE = 1e-3
"""Allowed difference of a pixel or logit that should be the same, in units of [-1, 1]. Rounding causes less than 1e-4,
another order of the batch or other random numbers cause more."""
MAX_OUTSIDE = 0.01
"""Share of the pixels that may be outside of the range, where the file clamps them."""

_Network = TypeVar("_Network", bound=Network)
_BATCH_NORM = (
    "Batch normalization has to keep running statistics (track_running_stats=True), and the network must not set it to "
    "training mode"
)


def check_generator(generator: OwnGenerator) -> None:
    """Checks shape, type and range of the images, and that each depends on nothing but its latent and its label.

    Args:
        generator: on the CPU. It is copied, so its mode does not change.

    Raises:
        NetworkError: a check fails.
    """
    name, config = generator.config.architecture, generator.config
    generator = _copied(generator).eval()
    double = _copied(generator).double()
    random = torch.Generator().manual_seed(0)
    latent = torch.randn(ROWS, config.latent_dim, generator=random)
    inputs = (latent, *_labels(generator))
    images = _call(generator, inputs, f"(n, {', '.join(map(str, generator.own.latent_shape or (config.latent_dim,)))})")
    if images.shape != (ROWS, *config.image_shape):
        expected = ", ".join(map(str, config.image_shape))
        raise NetworkError(
            f"{name} returns images of the shape {_shape(images)}, but (n, {expected}) is needed; correct the "
            "network or the shape of the images"
        )
    _check_type(name, images)
    _check_independence(generator, inputs, images, "an image", "the latent")
    _check_range(generator, images)
    try:
        with torch.inference_mode():
            double(latent.double(), *inputs[1:])
    except (Exception, SystemExit) as error:
        raise NetworkError(
            f"{name} does not run in float64, with which the file is compared: {describe(error)}; create "
            "tensors in the type of the latent, for example one_hot(label, 10).to(latent.dtype) instead of .float()"
        ) from error


def check_discriminator(discriminator: OwnDiscriminator) -> None:
    """Checks shape and type of the logits, and that they are not probabilities.

    Args:
        discriminator: on the CPU. It is copied, so its mode does not change.

    Raises:
        NetworkError: a check fails.
    """
    name, config = discriminator.config.architecture, discriminator.config
    discriminator = _copied(discriminator).eval()
    image = torch.rand(ROWS, *config.image_shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    logits = _call(discriminator, (image, *_labels(discriminator)), f"(n, {', '.join(map(str, config.image_shape))})")
    if logits.shape != (ROWS,):
        raise NetworkError(
            f"{name} returns the shape {_shape(logits)}, but a discriminator returns one logit for each image"
        )
    _check_type(name, logits)
    with torch.inference_mode(), _SigmoidRecorder() as recorder:
        discriminator(image, *_labels(discriminator))
    if any(output.shape[0] == ROWS and torch.equal(output.flatten(), logits) for output in recorder.outputs):
        raise NetworkError(
            f"{name} ends in a Sigmoid, so it returns probabilities; the losses need logits: remove the Sigmoid"
        )


def has_batch_norm(network: nn.Module) -> bool:
    """Whether a network normalizes over the batch, so that the output for one row depends on the others in training."""
    return any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in network.modules())


class _SigmoidRecorder(TorchDispatchMode):
    """Context manager that records the outputs of all sigmoids inside it."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs: list[Tensor] = []

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        result = function(*arguments, **keywords or {})
        if function.overloadpacket in (torch.ops.aten.sigmoid, torch.ops.aten.sigmoid_):
            self.outputs.append(result.clone())
        return result


def _copied(network: _Network) -> _Network:
    """Copies a network.

    Raises:
        NetworkError: the network of a user has an attribute that cannot be copied.
    """
    try:
        return copy.deepcopy(network)
    except Exception as error:
        raise NetworkError(
            f"{network.config.architecture} cannot be copied: {describe(error)}; keep neither results of forward nor "
            "open files in its attributes, and use weight_norm of torch.nn.utils.parametrizations, not the older one"
        ) from error


def _shape(output: Tensor) -> str:
    """Describes the shape of an output for `ROWS` rows, for an error message."""
    sizes = list(map(str, output.shape))
    if sizes[:1] == [str(ROWS)]:
        return f"(n, {', '.join(sizes[1:])})"
    return f"({', '.join(sizes)}) for n = {ROWS}"


def _labels(network: Network) -> tuple[Tensor, ...]:
    return (torch.arange(ROWS) % network.config.classes,) if network.config.classes else ()


def _call(network: Network, inputs: tuple[Tensor, ...], shape: str) -> Tensor:
    """Runs a network. `shape` describes the first input, for the error message."""
    name = network.config.architecture
    try:
        with torch.inference_mode():
            return network(*inputs)
    except NetworkError:
        raise
    except (Exception, SystemExit) as error:
        labels = " and labels int64 (n,)" if len(inputs) > 1 else ""
        raise NetworkError(
            f"{name} raised {describe(error)}, when it was called with float32 {shape}{labels}; see docs/own-network.md"
        ) from error


def _check_type(name: str, output: Tensor) -> None:
    if output.dtype != torch.float32:
        raise NetworkError(f"{name} returns {output.dtype}, but float32 is needed; remove the conversion")
    if not output.isfinite().all():
        raise NetworkError(f"{name} returns values that are not finite; check its weights")


def _check_independence(network: Network, inputs: tuple[Tensor, ...], output: Tensor, what: str, source: str) -> None:
    """Checks that the same inputs give the same outputs, in a batch and alone."""
    name = network.config.architecture
    with torch.inference_mode():
        again = network(*inputs)
        if (again - output).abs().max() > TOLERANCE:
            raise NetworkError(
                f"{name} draws random numbers: two calls with the same input return other values; take all randomness "
                f"from {source}, and use nn.Dropout, which evaluation mode switches off, instead of functional.dropout"
            )
        try:
            alone = torch.cat([network(*(value[row : row + 1] for value in inputs)) for row in range(ROWS_ALONE)])
        except (Exception, SystemExit) as error:
            advice = f". {_BATCH_NORM}" if has_batch_norm(network) else ""
            raise NetworkError(
                f"{name} fails with one row, although it runs with {ROWS}: {describe(error)}; it has to accept "
                f"any number{advice}"
            ) from error
    if alone.shape != output[:ROWS_ALONE].shape or (alone - output[:ROWS_ALONE]).abs().max() > TOLERANCE:
        raise NetworkError(f"{name}: {what} depends on the others of its batch, even in evaluation mode. {_BATCH_NORM}")


def _check_range(generator: OwnGenerator, images: Tensor) -> None:
    """Checks that the images fill the range that they should have, and not only one half of it."""
    low, high = generator.own.value_range
    values = (images + 1) / 2 * (high - low) + low
    found = f"{generator.own.name} returns values from {values.min():.3g} to {values.max():.3g}"
    if generator.own.arguments is None:
        advice = "end it with a tanh, or return 2 * x - 1 after a sigmoid"
    else:
        advice = "give the values of black and white with --range, for example --range 0:1 after a sigmoid"
    outside = (images.abs() > 1 + TOLERANCE).float().mean().item()
    if outside > MAX_OUTSIDE:
        raise NetworkError(f"{found}, and {outside:.0%} of them are outside of {low:g} to {high:g}; {advice}")
    if images.min() >= 0:
        raise NetworkError(f"{found}, so it never uses the lower half of {low:g} to {high:g}; {advice}")
