"""Command that generates images from a model file.

    sample a.onnx --n 64 --seed 1 --out digits.png
    sample a.onnx --n 10000 --out digits.npz
    sample a.onnx --n 10 --labels 0123456789 --out digits/
    sample a.onnx --n 10M --shards 80 --out digits/

The same model file, seed and index always give the same image.
"""

from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from models.common.commands import Count, Version, command, interruptible_imports
from models.common.errors import InputError
from models.common.files import write_atomically
from models.common.threads import available_cpus


@dataclass(frozen=True)
class Options:
    """Generates images from a model file. The same file, seed and index always give the same image."""

    file: tyro.conf.Positional[Path]
    """ONNX file that export-onnx wrote."""
    out: Annotated[str, tyro.conf.arg(metavar="PATH")]
    """Output: a .png file for one image grid, an .npz file for arrays, or a folder for one PNG file per image. With
    --shards, a folder for the shards."""
    n: Count = 64
    """Number of images, at least 1; with --shards, the total number."""
    seed: int = 0
    """Seed of all images, 0 to 2^53 - 1."""
    first: int = 0
    """Index of the first image, 0 to 2^53 - 1. Another range of indices gives other images of the same seed."""
    labels: str | None = None
    """Classes to generate, repeated over the images: class names or indices separated by commas, or class names of one
    character without separators (0123456789). If omitted, classes are drawn with their frequencies in the training
    data. Only for class-conditional generators."""
    truncation: float = 1.0
    """Factor for the latents, above 0 and at most 1. Lower values give more typical but less varied images."""
    columns: int | None = None
    """Images per row of the grid, 1 to 64. If omitted, the grid is as square as possible."""
    scale: int = 2
    """Width and height of each image pixel in the grid, in output pixels, 1 to 16."""
    shards: int | None = None
    """Number of shards, 1 to n. Shards are files that together have all images; they are written in parallel. Run the
    same command again to resume after an interruption."""
    format: Literal["npz", "webdataset", "parquet"] = "npz"
    """File format of the shards."""
    processes: Annotated[int, tyro.conf.arg(aliases=("--threads",))] = field(default_factory=available_cpus)
    """Number of processes that write shards, 1 to 1024, with one thread each. The default is the number of available
    CPUs."""
    ray: str | None = None
    """Address of a Ray cluster that writes the shards instead of local processes; its machines must share the output
    folder. "local" starts a cluster on this machine."""
    version: Version = False


@command("sample")
def main() -> None:
    options = tyro.cli(Options, prog="sample")
    check_grid_options(options)
    if not options.out:
        raise InputError("out", "must name a file or a folder, got nothing")
    out = Path(options.out)
    if options.shards is not None:
        write_shards(options, options.shards, out)
    else:
        write_images(options, out)
    print(f"{out}: images {options.first} to {options.first + options.n - 1} of seed {options.seed}")


def check_grid_options(options: Options) -> None:
    """Checks the options --columns and --scale.

    Raises:
        InputError: one of them is out of range.
    """
    with interruptible_imports("sample"):  # imported late so that --help and mistyped options respond quickly
        from models.common.image_files import MAX_COLUMNS, MAX_SCALE

    for name, limit in (("columns", MAX_COLUMNS), ("scale", MAX_SCALE)):
        if (value := getattr(options, name)) is not None and not 1 <= value <= limit:
            raise InputError(name, f"must be from 1 to {limit}, got {value}")


def write_images(options: Options, out: Path) -> None:
    """Writes all images to a PNG grid, to an .npz file, or as one PNG file each to a folder, depending on the suffix.

    Raises:
        InputError: the suffix is another one, or an option is out of range.
    """
    with interruptible_imports("sample"):
        from models.common.image_files import grid, npz, png
        from models.onnx_file.generator import Generator

    suffix = "" if out.is_dir() else out.suffix.lower()
    if suffix not in ("", ".png", ".npz"):
        raise InputError("out", f"must end in .png or .npz, or be a folder without a suffix, got {out}")
    generator = Generator.open(options.file)
    images, labels = generator.images(options.seed, options.first, options.n, options.labels, options.truncation)
    if suffix == ".png":
        write_atomically(out, png(grid(images, options.columns, options.scale)))
    elif suffix == ".npz":
        write_atomically(out, npz(images, labels))
    else:
        out.mkdir(parents=True, exist_ok=True)
        for i, image in enumerate(images):
            label = "" if labels is None else f"-{labels[i]}"
            write_atomically(out / f"{options.first + i:06}{label}.png", png(grid(image[None])))


def write_shards(options: Options, shards: int, folder: Path) -> None:
    """Writes the shards that are missing in the folder, and prints a line for each.

    Raises:
        InputError: an option is out of range.
    """
    with interruptible_imports("sample"):
        from models.onnx_file.generator import Generator
        from serving.offline.shards import make_shards, process_executor, ray_executor

    for name, limit in (("shards", options.n), ("processes", 1_024)):
        if not 1 <= (value := getattr(options, name)) <= limit:
            raise InputError(name, f"must be from 1 to {limit:,}, got {value}")
    finished = make_shards(
        options.file,
        Generator.open(options.file),
        folder,
        seed=options.seed,
        first=options.first,
        n=options.n,
        labels=options.labels,
        truncation=options.truncation,
        format=options.format,
        shards=shards,
        executor=ray_executor(options.ray) if options.ray else process_executor(options.processes),
    )
    with closing(finished):
        for count, (shard, existed) in enumerate(finished, 1):
            print(f"{count} of {shards}: shard {shard} {'already exists' if existed else 'written'}", flush=True)


if __name__ == "__main__":
    main()
