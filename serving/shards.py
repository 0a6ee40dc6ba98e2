"""Millions of images, as files of equal size that are made side by side and can be resumed.

Shard k of s holds images `first + k n / s` and on, so it can be made without the others, by any process of any machine,
and comes out in the same bytes. A manifest beside the shards says what they hold and, of those that are done, their
SHA-256; a run that is begun again keeps the shards that still have it.
"""

import hashlib
import io
import json
import multiprocessing
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from models.artifact import Generator, Images
from models.errors import MnistGanError
from models.files import write_atomically
from models.latents import VERSION
from serving.images import png, sheet

Format = Literal["npz", "webdataset", "parquet"]
CHUNK = 4_096
"""Images that are in memory at a time, in each process."""
MANIFEST = "manifest.json"
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The oldest time that a zip file can tell: so that the same images are the same bytes."""


class ShardError(MnistGanError):
    """A folder that holds something else."""


@dataclass(frozen=True)
class Request:
    """What the shards are to hold, all together."""

    file_sha256: str
    latents_version: int
    seed: int
    first: int
    n: int
    labels: str | None
    truncation: float
    format: Format
    shards: int

    def name(self, shard: int) -> str:
        ending = {"npz": "npz", "webdataset": "tar", "parquet": "parquet"}[self.format]
        return f"{shard:05}-of-{self.shards:05}.{ending}"

    def span(self, shard: int) -> range:
        """Indices of the shard's images."""
        ends = [self.first + self.n * k // self.shards for k in (shard, shard + 1)]
        return range(*ends)


Chunk = tuple[int, Images, NDArray[np.int64] | None]
"""Index of the first image, images, labels."""


def make_shards(
    model: Path,
    generator: Generator,
    folder: Path,
    *,
    seed: int,
    first: int,
    n: int,
    labels: str | None,
    truncation: float,
    format: Format,
    shards: int,
    run: Callable[[Path, Path, Request, list[int]], Iterable[tuple[int, dict[str, Any]]]],
) -> Iterator[tuple[int, bool]]:
    """Makes what is missing of the shards.

    Args:
        model: the file that `generator` was opened from.
        run: what spreads the work, `in_processes` or `on_ray`.

    Yields:
        The number of a shard that is done, and whether it was there already.

    Raises:
        InputError: an address, label or truncation out of range.
        ShardError: the folder holds the shards of another request.
    """
    generator.addressed(seed, first, n, labels, truncation)  # refuses now what no shard could be made of
    request = Request(generator.card.file_sha256, VERSION, seed, first, n, labels, truncation, format, shards)
    folder.mkdir(parents=True, exist_ok=True)
    done = _resume(folder, request)
    for shard in done:
        yield shard, True
    missing = [shard for shard in range(shards) if shard not in done]
    _save(folder, request, done)
    for shard, told in run(model, folder, request, missing):
        done[shard] = told
        _save(folder, request, done)
        yield shard, False
    for name in (MANIFEST, *map(request.name, done)):
        for left in folder.glob(f".{name}.*"):  # by a run that was killed
            left.unlink(missing_ok=True)


def in_processes(processes: int) -> Callable[[Path, Path, Request, list[int]], Iterator[tuple[int, dict[str, Any]]]]:
    """Spreads shards over processes of this machine."""

    def run(model: Path, folder: Path, request: Request, shards: list[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        if not shards:
            return
        context = multiprocessing.get_context("spawn")  # a session does not survive a fork
        with ProcessPoolExecutor(min(processes, len(shards)), context) as pool:
            made = {pool.submit(make_shard, model, folder, request, shard): shard for shard in shards}
            try:
                for future in as_completed(made):
                    yield made[future], future.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    return run


def on_ray(address: str) -> Callable[[Path, Path, Request, list[int]], Iterator[tuple[int, dict[str, Any]]]]:
    """Spreads shards over a Ray cluster, whose machines see the model and the folder under the same paths.

    Args:
        address: as `ray.init` takes it; "local" starts a cluster on this machine.
    """

    def run(model: Path, folder: Path, request: Request, shards: list[int]) -> Iterator[tuple[int, dict[str, Any]]]:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell Anyscale
        import ray

        ray.init(address, log_to_driver=False)
        try:
            ray.data.DataContext.get_current().enable_progress_bars = False
            items: Any = ray.data.from_items([{"shard": shard} for shard in shards], override_num_blocks=len(shards))
            paths = str(model.resolve()), str(folder.resolve())
            made = items.map(_ray_task, fn_args=(*paths, request))
            for row in made.iter_rows():
                yield row["shard"], json.loads(row["told"])
        finally:
            ray.shutdown()

    return run


def _ray_task(row: dict[str, Any], model: str, folder: str, request: Request) -> dict[str, Any]:
    told = make_shard(Path(model), Path(folder), request, row["shard"])
    return {"shard": row["shard"], "told": json.dumps(told)}


def make_shard(model: Path, folder: Path, request: Request, shard: int) -> dict[str, Any]:
    """Makes one shard, in memory that does not depend on its size.

    Returns:
        What the manifest says of it.
    """
    generator = _open(model, request.file_sha256)
    span = request.span(shard)
    path = folder / request.name(shard)
    temporary = folder / f".{path.name}.{os.getpid()}"
    try:
        with temporary.open("wb") as stream:
            WRITERS[request.format](stream, generator, span, _chunks(generator, request, span))
            stream.flush()
            os.fsync(stream.fileno())
        told = _told(temporary, request, shard)
        temporary.replace(path)
        return told
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


@cache
def _open(model: Path, file_sha256: str) -> Generator:
    generator = Generator.open(model)
    if generator.card.file_sha256 != file_sha256:
        raise ShardError(f"{model}: it is not the file that the shards were begun with")
    return generator


def _chunks(generator: Generator, request: Request, span: range) -> Iterator[Chunk]:
    for first in range(span.start, span.stop, CHUNK):
        n = min(CHUNK, span.stop - first)
        yield first, *generator.images(request.seed, first, n, request.labels, request.truncation)


def _write_npz(stream: IO[bytes], generator: Generator, span: range, chunks: Iterator[Chunk]) -> None:
    """`images` uint8 (n, height, width), or (n, height, width, 3) for colour, and `labels` int64 (n,) if there are."""
    channels, height, width = generator.card.image_shape
    shape = (len(span), height, width) if channels == 1 else (len(span), height, width, channels)
    labels = []
    with zipfile.ZipFile(stream, "w") as archive:
        with archive.open(zipfile.ZipInfo("images.npy", EPOCH), "w", force_zip64=True) as entry:
            _write_npy_header(entry, np.dtype(np.uint8), shape)
            for _, images, drawn in chunks:
                entry.write((images[:, 0] if channels == 1 else images.transpose(0, 2, 3, 1)).tobytes())
                if drawn is not None:
                    labels.append(drawn)
        if labels:
            with archive.open(zipfile.ZipInfo("labels.npy", EPOCH), "w", force_zip64=True) as entry:
                _write_npy_header(entry, np.dtype(np.int64), (len(span),))
                entry.write(np.concatenate(labels).tobytes())


def _write_npy_header(entry: IO[bytes], dtype: np.dtype, shape: tuple[int, ...]) -> None:
    told = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    npy.write_array_header_1_0(entry, told)


def _write_webdataset(stream: IO[bytes], generator: Generator, span: range, chunks: Iterator[Chunk]) -> None:
    """Of image i: `i.png`, and `i.cls` with the number of its class if there are classes."""
    from webdataset import TarWriter

    writer = TarWriter(stream, encoder=False, mtime=0, user="", group="", format=tarfile.USTAR_FORMAT)
    for first, images, labels in chunks:
        for i, image in enumerate(images):
            sample = {"__key__": f"{first + i:016}", "png": png(sheet(image[None]))}
            if labels is not None:
                sample["cls"] = str(labels[i]).encode()
            writer.write(sample)
    writer.close()


def _write_parquet(stream: IO[bytes], generator: Generator, span: range, chunks: Iterator[Chunk]) -> None:
    """Columns `image` (a struct of PNG `bytes` and a `path`, as Hugging Face's datasets decode it) and `label`."""
    import pyarrow as pa
    from pyarrow import parquet

    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    names = list(generator.card.class_names)
    feature = {"label": {"names": names, "_type": "ClassLabel"}} if names else {}
    features = {"info": {"features": {"image": {"_type": "Image"}} | feature}}
    columns = [("image", image)] + ([("label", pa.int64())] if names else [])
    schema = pa.schema(columns, {"huggingface": json.dumps(features)})
    with parquet.ParquetWriter(stream, schema) as writer:
        for first, images, labels in chunks:
            rows = [{"bytes": png(sheet(one[None])), "path": f"{first + i:016}.png"} for i, one in enumerate(images)]
            arrays = [pa.array(rows, image)] + ([] if labels is None else [pa.array(labels)])
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


WRITERS = {"npz": _write_npz, "webdataset": _write_webdataset, "parquet": _write_parquet}


def _told(path: Path, request: Request, shard: int) -> dict[str, Any]:
    span = request.span(shard)
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        size = stream.seek(0, io.SEEK_END)
    return {"first": span.start, "n": len(span), "bytes": size, "sha256": sha256}


def _resume(folder: Path, request: Request) -> dict[int, dict[str, Any]]:
    """The shards that are there and have not changed."""
    path = folder / MANIFEST
    if not path.exists():
        return {}
    try:
        manifest = json.loads(path.read_text())
        told = {name: manifest["request"][name] for name in asdict(request)}
        shards = dict(manifest["shards"])
    except (ValueError, LookupError, TypeError):
        raise ShardError(f"{path}: it is not a manifest of shards; choose another folder") from None
    for name, value in asdict(request).items():
        if told[name] != value:
            raise ShardError(f"{path}: its shards have {name} {told[name]!r}, not {value!r}; choose another folder")
    names = {request.name(shard): shard for shard in range(request.shards)}
    return {
        names[name]: entry
        for name, entry in shards.items()
        if (folder / name).is_file() and _told(folder / name, request, names[name]) == entry
    }


def _save(folder: Path, request: Request, done: dict[int, dict[str, Any]]) -> None:
    shards = {request.name(shard): done[shard] for shard in sorted(done)}
    manifest = {"request": asdict(request), "shards": shards}
    write_atomically(folder / MANIFEST, (json.dumps(manifest, indent=2) + "\n").encode())
