"""Draws images from a model file.

    sample a.onnx --n 64 --seed 1 --out sheet.png
    sample a.onnx --n 10000 --out digits.npz
    sample a.onnx --n 10 --labels 0123456789 --out digits/

The same file, seed and index give the same image.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from models.artifact import Generator, ModelFileError
from models.errors import InputError
from models.files import write_atomically
from serving.images import npz, png, sheet


@dataclass(frozen=True)
class Options:
    """Draws images from a model file: the same ones for the same file, seed and index."""

    file: tyro.conf.Positional[Path]
    """An ONNX file that export-onnx made."""
    out: Path
    """A .png for a sheet, a .npz for arrays, anything else for a folder of PNGs."""
    n: int = 64
    """How many images."""
    seed: int = 0
    first: int = 0
    """Index of the first image."""
    labels: str | None = None
    """For a class-conditional generator: class names, one character each (0123456789) or with commas between them,
    cycled over the images. As in the training data if omitted."""
    truncation: float = 1.0
    """In (0, 1]: less is more typical and less varied."""
    columns: int | None = None
    """Images a row of the sheet; as square as can be if omitted."""
    scale: int = 2
    """Edge of the square that each pixel of the sheet becomes."""


def main() -> None:
    options = tyro.cli(Options, prog="sample")
    try:
        _draw(options)
    except InputError as error:
        sys.exit(f"sample: --{error}")
    except ModelFileError as error:
        sys.exit(f"sample: {error}")
    except OSError as error:
        sys.exit(f"sample: cannot write {error.filename}: {error.strerror}")


def _draw(options: Options) -> None:
    for name in ("n", "columns", "scale"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise InputError(name, f"must be at least 1, got {value}")
    images, drawn = Generator.open(options.file).images(
        options.seed, options.first, options.n, options.labels, options.truncation
    )
    if options.out.suffix.lower() == ".png":
        write_atomically(options.out, png(sheet(images, options.columns, options.scale)))
    elif options.out.suffix.lower() == ".npz":
        write_atomically(options.out, npz(images, drawn))
    else:
        options.out.mkdir(parents=True, exist_ok=True)
        for i, image in enumerate(images):
            label = "" if drawn is None else f"-{drawn[i]}"
            write_atomically(options.out / f"{options.first + i:06}{label}.png", png(sheet(image[None])))
    print(f"{options.out}: images {options.first} to {options.first + options.n - 1} of seed {options.seed}")


if __name__ == "__main__":
    main()
