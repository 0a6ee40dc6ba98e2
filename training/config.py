"""The configuration of a run: every default once, presets as differences from it, the command line from both."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import tyro


@dataclass(frozen=True)
class Config:
    """Trains a GAN. The defaults are those of the preset."""

    preset: str = "mlp"
    """Where the other defaults come from: mlp, the textbook GAN."""

    # Paths: they say nothing about the model, so they do not travel with it.
    out: Path = field(default=Path("runs/latest"), metadata={"path": True})
    """Folder for the run; must not hold one yet."""
    data_dir: Path = field(
        default_factory=lambda: Path(os.environ.get("MNIST_GAN_DATA", "data")), metadata={"path": True}
    )
    """Folder of the data sets; what is not there is downloaded. Defaults to $MNIST_GAN_DATA, else data."""

    # Data
    dataset: Literal["mnist", "uci-digits"] = "mnist"
    """uci-digits: 1,797 digits that come with scikit-learn, for where nothing can be downloaded."""

    # Networks
    latent_dim: int = 100
    generator_widths: tuple[int, ...] = (256, 512)
    """Hidden layers of the generator, from the latent on."""
    discriminator_widths: tuple[int, ...] = (512, 256)
    """Hidden layers of the discriminator, from the image on."""
    conditional: bool = False
    """Show both networks the labels, so that digits can be asked for by class."""

    # Optimization
    epochs: int = 50
    batch_size: int = 64
    loss: Literal["non-saturating", "minimax"] = "non-saturating"
    """Of the generator."""
    lr: float = 2e-4
    """Adam's learning rate, for both networks."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Adam's moments."""
    seed: int = 0

    # Execution
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Of the networks; weights, losses and optimizers stay in fp32. auto: the fastest safe one of the device."""

    # Journal
    sample_images: int = 64
    """Images of the sheet that is drawn after every epoch, always from the same latents."""

    def __post_init__(self) -> None:
        """Raises:
        ValueError: a value out of range.
        """
        for name in ("epochs", "batch_size", "latent_dim", "sample_images"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")
        for name in ("generator_widths", "discriminator_widths"):
            if not getattr(self, name) or min(getattr(self, name)) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be positive sizes, got {getattr(self, name)}")
        if not self.lr > 0:
            raise ValueError(f"--lr must be above 0, got {self.lr}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"--betas must be at least 0 and below 1, got {self.betas}")
        if not 0 <= self.seed < 2**53:
            raise ValueError(f"--seed must be from 0 to 2^53 - 1, got {self.seed}")

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}

    def model_fields(self) -> dict[str, Any]:
        """Everything but the paths: what the checkpoint and the card say of the training."""
        paths = {field.name for field in fields(self) if field.metadata.get("path")}
        return {name: value for name, value in self.to_dict().items() if name not in paths}


PRESETS: dict[str, dict[str, Any]] = {
    "mlp": {},
}


def parse(args: Sequence[str] | None = None) -> Config:
    """Reads the command line: first the preset, then what differs from it. Exits with a message if it is wrong."""
    first = argparse.ArgumentParser("train", add_help=False, allow_abbrev=False)
    first.add_argument("--preset", choices=PRESETS, default=Config.preset)
    preset = first.parse_known_args(args)[0].preset
    return tyro.cli(
        Config,
        prog="train",
        args=args,
        default=Config(preset=preset, **PRESETS[preset]),
        config=(tyro.conf.HelptextFromCommentsOff,),
    )
