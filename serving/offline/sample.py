"""Draws images from a model file.

    sample a.onnx --n 64 --seed 1 --out sheet.png
    sample a.onnx --n 10000 --out digits.npz
    sample a.onnx --n 10 --labels 0123456789 --out digits/
    sample a.onnx --n 10M --shards 80 --out digits/

The same file, seed and index give the same image.
"""

from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from models.common.commands import Count, interruptible_imports, report_errors_in_one_line
from models.common.errors import InputError
from models.common.files import write_atomically
from models.common.threads import available_cpus


@dataclass(frozen=True)
class Options:
    """Draws images from a model file: the same ones for the same file, seed and index."""

    file: tyro.conf.Positional[Path]
    """An ONNX file that export-onnx made."""
    out: Annotated[str, tyro.conf.arg(metavar="PATH")]
    """A .png for a sheet, a .npz for arrays, or a folder for a PNG an image, or for shards."""
    n: Count = 64
    """How many images."""
    seed: int = 0
    first: int = 0
    """Index of the first image."""
    labels: str | None = None
    """For a class-conditional generator: a class name, names or indices with commas between them, or names of one
    character each (0123456789), cycled over the images. As in the training data if omitted."""
    truncation: float = 1.0
    """In (0, 1]: less is more typical and less varied."""
    columns: int | None = None
    """Images a row of the sheet, from 1 to 64; as square as can be if omitted."""
    scale: int = 2
    """Edge of the square that each pixel of the sheet becomes, from 1 to 16."""
    shards: int | None = None
    """Files of equal size to make, side by side. The same command again goes on where it was stopped."""
    format: Literal["npz", "webdataset", "parquet"] = "npz"
    """Of the shards."""
    processes: Annotated[int, tyro.conf.arg(aliases=("--threads",))] = field(default_factory=available_cpus)
    """Processes that make shards, each with one thread; if omitted, one for each CPU that may be used."""
    ray: str | None = None
    """Address of a Ray cluster that makes the shards instead, whose machines share the folder; "local" starts one."""


@report_errors_in_one_line("sample")
def main() -> None:
    options = tyro.cli(Options, prog="sample")

    # Imported only now, so that --help or a mistyped option does not wait for it.
    with interruptible_imports("sample"):
        from models.common.image_files import MAX_COLUMNS, MAX_SCALE, grid, npz, png
        from models.onnx_file.generator import Generator

    for name, limit in (("columns", MAX_COLUMNS), ("scale", MAX_SCALE)):
        if (value := getattr(options, name)) is not None and not 1 <= value <= limit:
            raise InputError(name, f"must be from 1 to {limit}, got {value}")
    if not options.out:
        raise InputError("out", "must name a file or a folder, got nothing")
    out = Path(options.out)
    if options.shards is not None:
        sample_shards(options, out)
        return
    kind = "" if out.is_dir() else out.suffix.lower()
    if kind not in ("", ".png", ".npz"):
        raise InputError("out", f"must end in .png or .npz, or be a folder without a suffix, got {out}")
    images, drawn = Generator.open(options.file).images(
        options.seed, options.first, options.n, options.labels, options.truncation
    )
    if kind == ".png":
        write_atomically(out, png(grid(images, options.columns, options.scale)))
    elif kind == ".npz":
        write_atomically(out, npz(images, drawn))
    else:
        out.mkdir(parents=True, exist_ok=True)
        for i, image in enumerate(images):
            label = "" if drawn is None else f"-{drawn[i]}"
            write_atomically(out / f"{options.first + i:06}{label}.png", png(grid(image[None])))
    print(f"{out}: images {options.first} to {options.first + options.n - 1} of seed {options.seed}")


def sample_shards(options: Options, folder: Path) -> None:
    from models.onnx_file.generator import Generator
    from serving.offline.shards import in_processes, make_shards, on_ray

    for name, limit in (("shards", options.n), ("processes", 1_024)):
        if not 1 <= (value := getattr(options, name)) <= limit:
            raise InputError(name, f"must be from 1 to {limit:,}, got {value}")
    shards = make_shards(
        options.file,
        Generator.open(options.file),
        folder,
        seed=options.seed,
        first=options.first,
        n=options.n,
        labels=options.labels,
        truncation=options.truncation,
        format=options.format,
        shards=options.shards or 1,
        run=on_ray(options.ray) if options.ray else in_processes(options.processes),
    )
    with closing(shards):
        for done, (shard, kept) in enumerate(shards, 1):
            print(f"{done} of {options.shards}: shard {shard} {'was there' if kept else 'made'}", flush=True)
    print(f"{folder}: images {options.first} to {options.first + options.n - 1} of seed {options.seed}")


if __name__ == "__main__":
    main()
