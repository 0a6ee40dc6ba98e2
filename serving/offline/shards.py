"""Millions of images, as files of equal size that are made side by side and can be resumed.

Shard k of s holds images `first + k n / s` and on, so it can be made without the others, by any process of any machine,
and comes out in the same bytes. A manifest next to the shards says what they hold and, of those that are done, their
SHA-256; a run that is begun again keeps the shards that still have it. Whoever makes a shard leaves its entry in a file
of its own, so that shards are kept, too, that were finished before their entry was in the manifest.
"""

import collections.abc
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from models.common.errors import MnistGanError
from models.common.files import atomic_file, remove_temporaries, write_atomically
from models.common.lock import lock_folder
from models.onnx_file.generator import Generator
from models.onnx_file.latents import LATENTS_VERSION
from serving.offline.process_pool import run_in_processes
from serving.offline.shard_formats import IMAGES_IN_MEMORY, WRITERS, Chunk, Format, ShardFile

Entry = dict[str, Any]
"""What the manifest says of a shard."""
MANIFEST = "manifest.json"


class ShardError(MnistGanError):
    """A folder that holds something else."""


@dataclass(frozen=True)
class ShardRequest:
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


Run = Callable[[Path, Path, ShardRequest, list[int]], collections.abc.Generator[tuple[int, Entry]]]
"""Makes shards of a model file in a folder; yields the number of each with its entry in the manifest."""


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
    run: Run,
) -> collections.abc.Generator[tuple[int, bool]]:
    """Makes what is missing of the shards.

    Args:
        model: the file that `generator` was opened from.
        run: what spreads the work, `in_processes` or `on_ray`.

    Yields:
        The number of a shard that is done, and whether it was there already.

    Raises:
        InputError: an address, label or truncation out of range.
        ShardError: the folder holds the shards of another request.
        WorkerError: a process that made shards was killed.
        LockedError: another process makes shards in the folder.
        OSError: a file cannot be written; the message names it.
    """
    generator.seeded_latents(seed, first, n, labels, truncation)  # refuses now what no shard could be made of
    request = ShardRequest(
        generator.card.file_sha256, LATENTS_VERSION, seed, first, n, labels, truncation, format, shards
    )
    with lock_folder(folder):
        done = _resume(folder, request)
        for shard in done:
            yield shard, True
        missing = [shard for shard in range(shards) if shard not in done]
        _save(folder, request, done)
        try:
            with closing(run(model, folder, request, missing)) as made:
                for shard, told in made:
                    done[shard] = told
                    _save(folder, request, done)
                    yield shard, False
            for name in map(request.name, done):
                _entry_path(folder, name).unlink(missing_ok=True)
        finally:
            _remove_temporaries(folder, request)


def in_processes(processes: int) -> Run:
    """Spreads shards over processes of this machine."""

    def run(
        model: Path, folder: Path, request: ShardRequest, shards: list[int]
    ) -> collections.abc.Generator[tuple[int, Entry]]:
        if shards:
            arguments = [(model, folder, request, shard) for shard in shards]
            with closing(run_in_processes(make_shard, arguments, min(processes, len(shards)))) as made:
                for i, told in made:
                    yield shards[i], told

    return run


def on_ray(address: str) -> Run:
    """Spreads shards over a Ray cluster, whose machines see the model and the folder under the same paths.

    Args:
        address: as `ray.init` takes it; "local" starts a cluster on this machine.
    """

    def run(
        model: Path, folder: Path, request: ShardRequest, shards: list[int]
    ) -> collections.abc.Generator[tuple[int, Entry]]:
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


def _ray_task(row: dict[str, Any], model: str, folder: str, request: ShardRequest) -> dict[str, Any]:
    told = make_shard(Path(model), Path(folder), request, row["shard"])
    return {"shard": row["shard"], "told": json.dumps(told)}


def make_shard(model: Path, folder: Path, request: ShardRequest, shard: int) -> Entry:
    """Writes one shard, with at most `IMAGES_IN_MEMORY` images in memory. An .npz also needs memory for all its labels.

    Raises:
        OSError: the shard cannot be written; the message names it.
    """
    generator = _open(model, request.file_sha256)
    span = request.span(shard)
    path = folder / request.name(shard)
    with atomic_file(path) as temporary:
        with ShardFile(temporary) as stream:
            WRITERS[request.format](stream, generator, span, _chunks(generator, request, span))
        told = _told(temporary, request, shard)
        # Before the shard: one that is there without its entry could not be trusted.
        write_atomically(_entry_path(folder, path.name), _as_json({"request": asdict(request), "shard": told}))
    return told


@cache
def _open(model: Path, file_sha256: str) -> Generator:
    generator = Generator.open(model)
    if generator.card.file_sha256 != file_sha256:
        raise ShardError(f"{model}: it is not the file that the shards were begun with")
    return generator


def _chunks(generator: Generator, request: ShardRequest, span: range) -> Iterator[Chunk]:
    for first in range(span.start, span.stop, IMAGES_IN_MEMORY):
        n = min(IMAGES_IN_MEMORY, span.stop - first)
        yield first, *generator.images(request.seed, first, n, request.labels, request.truncation)


def _told(path: Path, request: ShardRequest, shard: int) -> Entry:
    span = request.span(shard)
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        size = stream.seek(0, io.SEEK_END)
    return {"first": span.start, "n": len(span), "bytes": size, "sha256": sha256}


def _resume(folder: Path, request: ShardRequest) -> dict[int, Entry]:
    """The shards that are there and have not changed, by number.

    Raises:
        ShardError: the folder holds the shards of another request.
    """
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
    entries = {shard: _finished(folder, request, shard) for shard in range(request.shards)}
    entries |= {shard: shards[name] for shard in entries if (name := request.name(shard)) in shards}
    return {
        shard: entry
        for shard, entry in entries.items()
        if entry and (path := folder / request.name(shard)).is_file() and _told(path, request, shard) == entry
    }


def _finished(folder: Path, request: ShardRequest, shard: int) -> Entry | None:
    """The entry that the maker of a shard has left, if it is one of this request."""
    try:
        left = json.loads(_entry_path(folder, request.name(shard)).read_text())
        return left["shard"] if left["request"] == asdict(request) else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _entry_path(folder: Path, name: str) -> Path:
    return folder / f".{name}.json"


def _remove_temporaries(folder: Path, request: ShardRequest) -> None:
    """Deletes what processes that were killed have left of unfinished files."""
    shards = [request.name(shard) for shard in range(request.shards)]
    remove_temporaries(folder, {MANIFEST, *shards, *(_entry_path(folder, name).name for name in shards)})


def _save(folder: Path, request: ShardRequest, done: dict[int, Entry]) -> None:
    shards = {request.name(shard): done[shard] for shard in sorted(done)}
    write_atomically(folder / MANIFEST, _as_json({"request": asdict(request), "shards": shards}))


def _as_json(value: Any) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()
