"""Networks that a user brings: PyTorch modules outside of this package, named as "module:Class".

    import_network("my_gan:MyGenerator")
    generator = build_generator(NetworkConfig("my_gan:MyGenerator", (1, 28, 28), widths=(), latent_dim=100))

Importing a module runs its code. Therefore only commands import one, and only if their command line names it. A
checkpoint or a model file also contains the name, but only to say what has to be given on the command line.

docs/own-network.md describes what such a network has to accept and to return.
"""

import hashlib
import importlib
import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from models.common.errors import MnistGanError
from models.networks.base import Network, NetworkConfig

_GUIDE = "see docs/own-network.md"


class NetworkError(MnistGanError):
    """A network that a user brings cannot be imported, built or run, or breaks a rule of docs/own-network.md."""


@dataclass(frozen=True)
class OwnNetwork:
    """A class that was imported because the command line names it, and how its generator is called."""

    name: str
    """The class as "module:Class"."""
    module: type[nn.Module]
    """The class."""
    source_sha256: str
    """SHA-256 of the file that defines the class."""
    arguments: Mapping[str, Any] | None = None
    """Arguments of the constructor. None: those of docs/own-network.md."""
    latent_shape: tuple[int, ...] = ()
    """Shape of one latent that the generator takes. Empty: a vector."""
    value_range: tuple[float, float] = (-1.0, 1.0)
    """Values that the generator returns for black and for white."""

    def build(self, config: NetworkConfig, role: str) -> nn.Module:
        """Calls the constructor.

        Args:
            config: sizes of the network.
            role: "generator" or "discriminator"; only the former takes `latent_dim`.

        Raises:
            NetworkError: the constructor raises an error, or the source file is not the one of `config`.
        """
        if config.source_sha256 not in (None, self.source_sha256):
            raise NetworkError(
                f"{self.name}: its source file has changed (SHA-256 {self.source_sha256[:12]}..., it was "
                f"{str(config.source_sha256)[:12]}...); restore the file, or start a new run from these weights: "
                "train --init RUN"
            )
        arguments = self.arguments
        if arguments is None:
            arguments = {"image_shape": config.image_shape, "classes": config.classes}
            if role == "generator":
                arguments = {"latent_dim": config.latent_dim, **arguments}
            if config.widths:
                arguments["widths"] = config.widths
        try:
            return self.module(**arguments)
        except (Exception, SystemExit) as error:  # the code of the user may raise anything
            call = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
            raise NetworkError(f"{self.name}({call}) raised {describe(error)}; {_GUIDE}") from error


_imported: dict[str, OwnNetwork] = {}


def is_own(architecture: str) -> bool:
    """Whether the name of an architecture is that of a class, "module:Class", instead of one of this package."""
    return ":" in architecture


def import_network(name: str, **options: Any) -> OwnNetwork:
    """Imports a class, so that `build_generator` and `build_discriminator` find it. This runs the code of its module.

    Call it only with a name from the command line. The module may be in the current folder.

    Args:
        name: "module:Class".
        options: fields of `OwnNetwork` that describe how the class is called.

    Raises:
        NetworkError: the class cannot be imported, or is not a PyTorch module.
    """
    module_name, _, class_name = name.partition(":")
    if not module_name or not class_name:
        raise NetworkError(f"network {name!r}: give it as module:Class, for example my_gan:MyGenerator")
    if module_name.endswith(".py") or not all(part.isidentifier() for part in module_name.split(".")):
        raise NetworkError(
            f"network {name!r}: give the module as in an import statement, without folder and .py, for example "
            "my_gan:MyGenerator; a file of another folder is found if PYTHONPATH has that folder"
        )
    if (folder := str(Path.cwd())) not in sys.path:
        sys.path.append(folder)  # last, so that a file of the user cannot replace a library
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            advice = f"run the command in the folder that contains {error.name}.py or {error.name}/, or set PYTHONPATH"
            raise NetworkError(f"{name}: there is no module {error.name}; {advice}") from error
        raise NetworkError(
            f"{name}: importing {module_name} failed: {describe(error)}; install what it needs"
        ) from error
    except (Exception, SystemExit) as error:
        raise NetworkError(
            f"{name}: importing {module_name} raised {describe(error)}; if it is a script, move the class to a file "
            'that only defines classes, or put the rest below `if __name__ == "__main__":`'
        ) from error
    found = getattr(module, class_name, None)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        problem = f"has no class {class_name}" if found is None else f"has a {class_name} that is not a torch.nn.Module"
        classes = [
            key for key, value in vars(module).items() if isinstance(value, type) and issubclass(value, nn.Module)
        ]
        known = f"its modules are {', '.join(classes[:5])}" if classes else "it has no class of a PyTorch module"
        file = getattr(module, "__file__", None) or module_name  # a folder without __init__.py has no file
        raise NetworkError(f"{name}: {file} {problem}; {known}")
    try:
        source = Path(inspect.getfile(found)).read_bytes()
    except (OSError, TypeError) as error:
        raise NetworkError(f"{name}: its source file cannot be read ({describe(error)})") from error
    own = OwnNetwork(name, found, hashlib.sha256(source).hexdigest(), **options)
    _imported[name] = own
    return own


def find_network(name: str) -> OwnNetwork:
    """Returns a class that `import_network` imported.

    Raises:
        NetworkError: it was not imported, because the command line did not name it.
    """
    if name not in _imported:
        raise NetworkError(
            f"the network {name} is not part of mnist-gan, and code is imported only if the command line names it: "
            f"give --network {name} (in train: --generator or --discriminator)"
        )
    return _imported[name]


class OwnGenerator(Network):
    """Wraps a generator of a user: maps latent (n, latent_dim) and, if class-conditional, label int64 (n,) to image
    (n, channels, height, width) in [-1, 1].

    Reshapes the latent, calls the network, reshapes its output if that is a flat vector, and scales its values to
    [-1, 1], as `OwnNetwork` describes.
    """

    def __init__(self, config: NetworkConfig):
        super().__init__(config, embedding_dim=0)
        self.own = find_network(config.architecture)
        self.network = self.own.build(config, "generator")

    def forward(self, latent: Tensor, label: Tensor | None = None) -> Tensor:
        if len(self.own.latent_shape) > 1:
            latent = latent.unflatten(1, self.own.latent_shape)
        image = self.network(latent) if label is None else self.network(latent, label)
        if not isinstance(image, Tensor):
            raise NetworkError(f"{self.own.name} returns a {type(image).__name__}, but it has to return one tensor")
        if image.dim() == 2 and image.shape[1] == self.config.pixels:
            image = image.unflatten(1, self.config.image_shape)
        low, high = self.own.value_range
        return image if (low, high) == (-1, 1) else (image - low) * (2 / (high - low)) - 1


class OwnDiscriminator(Network):
    """Wraps a discriminator of a user: maps image (n, channels, height, width) in [-1, 1] and, if class-conditional,
    label int64 (n,) to logit (n,). A network that returns (n, 1) or (n, 1, 1, 1) is accepted."""

    def __init__(self, config: NetworkConfig):
        super().__init__(config, embedding_dim=0)
        self.network = find_network(config.architecture).build(config, "discriminator")

    def forward(self, image: Tensor, label: Tensor | None = None) -> Tensor:
        logit = self.network(image) if label is None else self.network(image, label)
        if not isinstance(logit, Tensor):
            name = self.config.architecture
            raise NetworkError(f"{name} returns a {type(logit).__name__}, but it has to return one tensor")
        return logit.flatten(1).squeeze(1) if logit.dim() > 1 else logit


def describe(error: BaseException) -> str:
    """Returns the type and the first line of an error of someone else's code."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]:.300}" if lines else type(error).__name__
