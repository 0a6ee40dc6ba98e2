"""Generates millions of images as shards: files with equal numbers of images (up to one).

The shards are written in parallel, and an interrupted run can be resumed.

Shard k of s has the images from `first + k n / s` up to `first + (k + 1) n / s`. Because an image depends only on the
model, seed and index, any process of any machine can make any shard, and its bytes are always the same.
"""

import collections.abc
import json
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

from models.common.files import atomic_file
from models.common.lock import lock_folder
from models.onnx_file.generator import Generator
from models.onnx_file.latents import LATENTS_VERSION
from serving.offline.manifest import (
    ManifestEntry,
    ShardError,
    ShardPlan,
    describe_shard,
    find_finished_shards,
    remove_entries,
    remove_temporary_files,
    save_entry,
    save_manifest,
)
from serving.offline.process_pool import run_in_processes
from serving.offline.shard_formats import IMAGES_IN_MEMORY, WRITERS, Chunk, Format, ShardFile

FinishedShards = collections.abc.Generator[tuple[int, ManifestEntry]]
"""Number and manifest entry of each shard, in the order in which the shards are finished."""
Executor = Callable[[Path, Path, ShardPlan, list[int]], FinishedShards]
"""Function (model file, folder, plan, shard numbers) that calls `make_shard` for each number in parallel. Closing the
returned generator ends the work."""


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
    executor: Executor,
) -> collections.abc.Generator[tuple[int, bool]]:
    """Makes the shards that are missing in a folder.

    Args:
        model: the model file.
        generator: the same file, opened.
        folder: where to write the shards and the manifest. It is created if it does not exist.
        seed: seed of all images.
        first: index of the first image.
        n: number of images.
        labels: labels to cycle over the images; None draws them.
        truncation: factor of the latents, in (0, 1].
        format: file format of the shards.
        shards: number of shards, 1 to n.
        executor: distributes the work: `process_executor` or `ray_executor`.

    Yields:
        the number of a finished shard, and whether the folder already had it.

    Raises:
        InputError: seed, index, labels or truncation are out of range.
        ShardError: the folder has shards of another plan or a damaged manifest, or the model file has changed.
        WorkerError: a process that made shards was killed.
        LockedError: another process makes shards in the folder.
        OSError: a file cannot be written; the message names it.
    """
    generator.seeded_latents(seed, first, n, labels, truncation)  # raises InputError before anything is written
    plan = ShardPlan(generator.card.file_sha256, LATENTS_VERSION, seed, first, n, labels, truncation, format, shards)
    with lock_folder(folder):
        finished = find_finished_shards(folder, plan)
        for shard in finished:
            yield shard, True
        missing = [shard for shard in range(shards) if shard not in finished]
        save_manifest(folder, plan, finished)
        try:
            with closing(executor(model, folder, plan, missing)) as results:
                for shard, entry in results:
                    finished[shard] = entry
                    save_manifest(folder, plan, finished)
                    yield shard, False
            remove_entries(folder, plan, finished)
        finally:
            remove_temporary_files(folder, plan)


def process_executor(processes: int) -> Executor:
    """Returns an executor that makes shards in up to this number of processes of this machine."""

    def execute(model: Path, folder: Path, plan: ShardPlan, shards: list[int]) -> FinishedShards:
        if shards:
            arguments = [(model, folder, plan, shard) for shard in shards]
            with closing(run_in_processes(make_shard, arguments, min(processes, len(shards)))) as results:
                for i, entry in results:
                    yield shards[i], entry

    return execute


def ray_executor(address: str) -> Executor:
    """Returns an executor that makes shards on a Ray cluster.

    All machines of the cluster must see the model file and the folder under the same paths.

    Args:
        address: address of the cluster, as `ray.init` takes it; "local" starts a cluster on this machine.
    """

    def execute(model: Path, folder: Path, plan: ShardPlan, shards: list[int]) -> FinishedShards:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # otherwise Ray sends usage reports to its vendor
        import ray

        ray.init(address, log_to_driver=False)
        try:
            ray.data.DataContext.get_current().enable_progress_bars = False
            items: Any = ray.data.from_items([{"shard": shard} for shard in shards], override_num_blocks=len(shards))
            paths = str(model.resolve()), str(folder.resolve())
            results = items.map(_ray_task, fn_args=(*paths, plan))
            for row in results.iter_rows():
                yield row["shard"], json.loads(row["entry"])
        finally:
            ray.shutdown()

    return execute


def _ray_task(row: dict[str, Any], model: str, folder: str, plan: ShardPlan) -> dict[str, Any]:
    entry = make_shard(Path(model), Path(folder), plan, row["shard"])
    return {"shard": row["shard"], "entry": json.dumps(entry)}


def make_shard(model: Path, folder: Path, plan: ShardPlan, shard: int) -> ManifestEntry:
    """Writes one shard and returns its manifest entry.

    At most IMAGES_IN_MEMORY images are in memory at a time. An .npz file also needs memory for all labels of the shard.

    Raises:
        ShardError: the model file is not the one of the plan.
        OSError: the shard cannot be written; the message names it.
    """
    generator = _open(model, plan.file_sha256)
    span = plan.span(shard)
    path = folder / plan.name(shard)
    with atomic_file(path) as temporary:
        with ShardFile(temporary) as stream:
            WRITERS[plan.format](stream, generator, span, _chunks(generator, plan, span))
        entry = describe_shard(temporary, plan, shard)
        save_entry(folder, plan, shard, entry)  # before the rename: a shard without an entry would be made again
    return entry


@cache
def _open(model: Path, file_sha256: str) -> Generator:
    """Opens the model file once per process."""
    generator = Generator.open(model)
    if generator.card.file_sha256 != file_sha256:
        raise ShardError(f"{model}: the file was replaced while its shards were made; choose another folder")
    return generator


def _chunks(generator: Generator, plan: ShardPlan, span: range) -> Iterator[Chunk]:
    """Generates the images of a shard, IMAGES_IN_MEMORY at a time."""
    for first in range(span.start, span.stop, IMAGES_IN_MEMORY):
        n = min(IMAGES_IN_MEMORY, span.stop - first)
        yield first, *generator.images(plan.seed, first, n, plan.labels, plan.truncation)
