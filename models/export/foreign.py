"""Weights of a generator that was trained outside of this package, as a checkpoint that `models.export.exporter` takes.

Reading the weights runs no code: they are a safetensors file, or a PyTorch file that is loaded with `weights_only`.
"""

import ast
import hashlib
import io
import math
import pickle
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from models.checkpoint import Checkpoint
from models.common.errors import InputError
from models.networks import NetworkConfig, build_generator
from models.networks.own import NetworkError, describe, import_network
from models.onnx_file.card import MAX_SIZE, Dataset, Training

UNKNOWN_DATASET = "unknown"
"""Name of the data set on the card, if the user gives none."""
MAX_NAME = 100
"""Maximum number of characters of the name of a class or a data set."""
LISTED = 5
"""Maximum number of names of each kind that an error message lists."""
_PREFIXES = ("module.", "_orig_mod.")
"""Prefixes that DataParallel and torch.compile add to the names of all weights."""


@dataclass(frozen=True)
class ForeignGenerator:
    """A generator that was trained elsewhere: its weights, its class, and how the class is called."""

    weights: Path
    """File of the state dict: .safetensors, or a file of `torch.save`."""
    network: str
    """Class of the generator, as "module:Class"."""
    arguments: Mapping[str, Any]
    """Arguments of its constructor."""
    latent_shape: tuple[int, ...]
    """Shape of one latent that it takes."""
    image_shape: tuple[int, int, int]
    """Channels, height and width of its images. It may return them as flat vectors."""
    value_range: tuple[float, float] = (-1.0, 1.0)
    """Values that it returns for black and for white."""
    class_names: tuple[str, ...] = ()
    """Names of its classes, if it is class-conditional."""
    dataset: str = UNKNOWN_DATASET
    """Name of the data set that it was trained on."""


def load_foreign(foreign: ForeignGenerator) -> Checkpoint:
    """Imports the class, which runs its code, builds the generator and loads its weights.

    Returns:
        a checkpoint whose unknown fields are None.

    Raises:
        InputError: the weights cannot be read, or are not a state dict.
        NetworkError: the class cannot be imported or built, or the weights do not fit it.
    """
    file, weights = _read_weights(foreign.weights)
    own = import_network(
        foreign.network,
        arguments=foreign.arguments,
        latent_shape=foreign.latent_shape,
        value_range=foreign.value_range,
    )
    config = NetworkConfig(
        foreign.network,
        foreign.image_shape,
        widths=(),
        classes=len(foreign.class_names),
        latent_dim=math.prod(foreign.latent_shape),
        source_sha256=own.source_sha256,
    )
    with torch.random.fork_rng(devices=[]):
        expected = build_generator(config).state_dict()
    weights = _without_prefix(weights, expected)
    tensors = {f"network.{name}": weight for name, weight in weights.items()}
    _check_names(foreign, expected, tensors)
    return Checkpoint(
        tensors={f"generator.{name}": weight for name, weight in tensors.items()},
        generator=config,
        dataset=Dataset(foreign.dataset, None, foreign.image_shape, foreign.class_names, None),
        training=Training(config=None, images_seen=None, seed=None, git_commit=None, versions={}),
        sha256=hashlib.sha256(file).hexdigest(),
    )


def parse_arguments(text: str) -> dict[str, Any]:
    """Parses the arguments of a constructor, such as "nz=100,sizes=(64, 32),activation=relu".

    Values are Python literals. A name without quotes is a text.

    Raises:
        InputError: the text has another form.
    """
    try:
        call = ast.parse(f"_({text}\n)", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            raise ValueError
        names = [str(_required(entry.arg)) for entry in call.keywords]
        if len(set(names)) != len(names):
            raise ValueError
        return {name: _literal(entry.value) for name, entry in zip(names, call.keywords, strict=True)}
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        raise InputError(
            "network-args",
            "must be name=value,name=value with a Python literal as each value, such as 100, (64, 32), relu or True, "
            f"got {text!r:.80}",
        ) from None


def parse_shape(option: str, text: str, dimensions: int | None = None) -> tuple[int, ...]:
    """Parses a shape such as "1x28x28".

    Args:
        option: name of the option, for the error message.
        text: the value of the option.
        dimensions: number of dimensions that it must have. None: at least one.

    Raises:
        InputError: the text has another form, or a dimension is out of range.
    """
    parts = text.lower().split("x")
    example = "1x28x28 (channels x height x width)" if dimensions else "100 or 100x1x1"
    if not all(part.isascii() and part.isdigit() for part in parts) or dimensions not in (None, len(parts)):
        raise InputError(option, f"must be a shape such as {example}, got {text!r:.80}")
    shape = tuple(map(int, parts))
    if not all(1 <= size <= MAX_SIZE for size in (*shape, 1 if dimensions else math.prod(shape))):
        raise InputError(option, f"must have sizes from 1 to {MAX_SIZE:,}, got {text!r:.80}")
    return shape


def parse_range(text: str) -> tuple[float, float]:
    """Parses the values of black and white, such as "-1:1".

    Raises:
        InputError: the text has another form, or the two values are not finite or equal.
    """
    try:
        low, high = map(float, text.split(":"))
    except ValueError:
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low != high):
        raise InputError("range", f"must be BLACK:WHITE, such as -1:1 or 0:1, got {text!r:.80}")
    return low, high


def parse_classes(text: str) -> tuple[str, ...]:
    """Parses classes: their number, such as "10" for the names "0" to "9", or their names, such as "cat,dog".

    Raises:
        InputError: the number is out of range, or names are empty or occur twice.
    """
    if text.isascii() and text.isdigit():
        names = tuple(map(str, range(int(text)))) if int(text) <= MAX_SIZE else ()
    else:
        names = tuple(name.strip() for name in text.split(","))
        if len(names) < 2 or not all(map(_is_name, names)):
            names = ()
    if not names or len(set(names)) != len(names):
        raise InputError(
            "classes",
            f"must be a number from 1 to {MAX_SIZE:,} or different names such as cat,dog, each of 1 to {MAX_NAME} "
            f"printable characters, got {text!r:.80}",
        )
    return names


def parse_dataset(text: str, known: Collection[str]) -> str:
    """Parses the name of a data set, which need not be a known one.

    Raises:
        InputError: the name is empty, too long or not printable, or is a known one in another spelling.
    """
    if not _is_name(text):
        raise InputError("dataset", f"must have 1 to {MAX_NAME} printable characters, got {text!r:.80}")
    same = [name for name in known if name != text and _letters(name) == _letters(text)]
    if same:
        raise InputError("dataset", f"got {text!r}, but the data set is called {same[0]}")
    return text


def _is_name(text: str) -> bool:
    return text.isprintable() and 0 < len(text.strip()) <= MAX_NAME


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower()))


def _literal(value: ast.expr) -> Any:
    """Returns the value of a Python literal, or the text of a name without quotes.

    Raises:
        ValueError: it is something else, or a name such as `false`, which as a text would count as true.
    """
    if not isinstance(value, ast.Name):
        return ast.literal_eval(value)
    if value.id.lower() in ("true", "false", "none", "null"):
        raise ValueError
    return value.id


def _required(name: str | None) -> str:
    if name is None:  # **values
        raise ValueError
    return name


def _read_weights(path: Path) -> tuple[bytes, dict[str, Tensor]]:
    """Returns the bytes of a file and the state dict in it.

    Raises:
        InputError: the file cannot be read, or contains something else than tensors by name.
    """
    try:
        file = path.read_bytes()
    except OSError as error:
        raise InputError("weights", f"{path}: {error.strerror}") from error
    kind = "safetensors" if path.suffix == ".safetensors" else "torch.save"
    try:
        content: Any
        if kind == "safetensors":
            content = safetensors.torch.load(file)
        else:
            with warnings.catch_warnings(action="ignore"):
                content = torch.load(io.BytesIO(file), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            "weights",
            f"{path}: contains Python objects, which could run code when they are loaded, or is not a file of PyTorch; "
            "save only the weights where the network was trained: torch.save(generator.state_dict(), FILE)",
        ) from error
    except Exception as error:  # Damaged files raise a dozen different types.
        reason = describe(error) if file else "it is empty"
        raise InputError(
            "weights",
            f"{path}: cannot be read as a file of {kind} ({reason}); it is damaged or has another format. Save the "
            "weights where the network was trained: torch.save(generator.state_dict(), FILE)",
        ) from error
    if (
        not isinstance(content, Mapping)
        or not content
        or not all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in content.items())
    ):
        keys = ", ".join(map(str, list(content)[:LISTED])) if isinstance(content, Mapping) else type(content).__name__
        raise InputError(
            "weights",
            f"{path}: is not a state dict, which has only tensors by name; it contains {keys or 'nothing'}. Save the "
            "part with the weights of the generator on its own: torch.save(torch.load(FILE)[KEY], NEW_FILE)",
        )
    return file, dict(content)


def _without_prefix(weights: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Removes a prefix that a wrapper added to all names, unless the network has the same names."""
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in weights) and not {f"network.{name}" for name in weights} & set(
            expected
        ):
            weights = {name.removeprefix(prefix): weight for name, weight in weights.items()}
    return weights


def _check_names(foreign: ForeignGenerator, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Checks that the weights have the names and shapes that the network has.

    Raises:
        NetworkError: they do not; the message lists the first differences of each kind.
    """

    def shown(names: list[str]) -> str:
        more = f" and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
        return ", ".join(name.removeprefix("network.") for name in names[:LISTED]) + more

    def shape(tensor: Tensor) -> str:
        return "x".join(map(str, tensor.shape)) or "a number"

    def optional(name: str) -> bool:
        return name.endswith("num_batches_tracked")

    problems = []
    missing = [name for name in expected if name not in found and not optional(name)]
    if missing:
        problems.append(f"missing: {shown(missing)}")
    if unexpected := [name for name in found if name not in expected]:
        problems.append(f"unexpected: {shown(unexpected)}")
    both = [name for name in expected if name in found]
    if other := [name for name in both if found[name].shape != expected[name].shape]:
        shapes = [f"{name} is {shape(found[name])}, the network needs {shape(expected[name])}" for name in other]
        problems.append(f"of another shape: {shown(shapes)}")
    if unusable := [name for name in both if not optional(name) and not _is_usable(found[name], expected[name])]:
        types = [f"{name} is {found[name].dtype}, {found[name].layout}" for name in unusable]
        problems.append(f"not a dense tensor of floating-point numbers: {shown(types)}")
    if problems:
        advice = "Give the class that was trained, with the --network-args of that time"
        if prefix := _common_prefix(missing, unexpected):
            advice = (
                f"The names begin with {prefix!r}: save the generator alone, "
                f"{{name.removeprefix({prefix!r}): x for name, x in weights.items() if name.startswith({prefix!r})}}"
            )
        raise NetworkError(
            f"{foreign.weights}: the weights do not fit {foreign.network}; {'; '.join(problems)}. {advice}"
        )


def _is_usable(found: Tensor, expected: Tensor) -> bool:
    """Returns whether a weight has values that can be copied to the weight of the network."""
    dense = found.layout == torch.strided and not found.is_quantized and not found.is_meta
    return dense and (found.is_floating_point() or not expected.is_floating_point())


def _common_prefix(missing: list[str], unexpected: list[str]) -> str:
    """Returns the prefix with which the weights have the names of all missing ones; empty if there is none."""
    names = {name.removeprefix("network.") for name in unexpected}
    wanted = [name.removeprefix("network.") for name in missing]
    prefixes = [name.removesuffix(wanted[0]) for name in names if wanted and name.endswith(wanted[0])]
    return next((prefix for prefix in prefixes if names.issuperset(prefix + name for name in wanted)), "")
