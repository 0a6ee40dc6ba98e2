"""The manifest of a folder of shards: the plan that they belong to, and size and SHA-256 of each finished shard.

A run that is repeated after an interruption reads it and keeps the shards that are unchanged. A process that finishes a
shard first writes the entry of this shard to a file of its own (`.NAME.json`). So the shard is also kept if the run is
killed before the entry is in the manifest.
"""

import hashlib
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from models.common.errors import MnistGanError
from models.common.files import remove_temporaries, write_atomically
from serving.offline.shard_formats import SUFFIXES, Format

MANIFEST = "manifest.json"
"""File name of the manifest in the folder of the shards."""
ManifestEntry = dict[str, Any]
"""Description of a finished shard: `first` (index of its first image), `n` (number of images), `bytes` and `sha256`."""


class ShardError(MnistGanError):
    """The folder has shards of another plan or a damaged manifest, or the model file has changed."""


@dataclass(frozen=True)
class ShardPlan:
    """All images to generate, and the number of shards to split them into.

    Attributes:
        file_sha256: hash of the model file, from its card.
        latents_version: version of the rule that draws latents from seed and index.
        seed: seed of all images.
        first: index of the first image.
        n: total number of images.
        labels: labels to cycle over the images, as `Generator.images` takes them; None draws them.
        truncation: factor of the latents, in (0, 1].
        format: file format of the shards.
        shards: number of shards, 1 to n.
    """

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
        """Returns the file name of a shard, 0 to `shards` - 1: 00000-of-00080.npz."""
        return f"{shard:05}-of-{self.shards:05}.{SUFFIXES[self.format]}"

    def span(self, shard: int) -> range:
        """Returns the indices of the images of a shard. The sizes of two shards differ by at most 1."""
        start, stop = (self.first + self.n * k // self.shards for k in (shard, shard + 1))
        return range(start, stop)


def describe_shard(path: Path, plan: ShardPlan, shard: int) -> ManifestEntry:
    """Reads the file of a shard and returns the entry that describes it."""
    span = plan.span(shard)
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        size = stream.seek(0, io.SEEK_END)
    return {"first": span.start, "n": len(span), "bytes": size, "sha256": sha256}


def find_finished_shards(folder: Path, plan: ShardPlan) -> dict[int, ManifestEntry]:
    """Returns the entries of the shards in a folder that are finished and unchanged, by shard number.

    Raises:
        ShardError: the folder has the shards of another plan, or its manifest is damaged.
    """
    path = folder / MANIFEST
    if not path.exists():
        return {}
    try:
        manifest = json.loads(path.read_text())
        manifest_plan = {name: manifest["plan"][name] for name in asdict(plan)}
        listed = dict(manifest["shards"])
    except (ValueError, LookupError, TypeError):
        raise ShardError(f"{path}: it is not a manifest of shards; choose another folder") from None
    for name, value in asdict(plan).items():
        if manifest_plan[name] != value:
            raise ShardError(
                f"{path}: its shards have {name} {manifest_plan[name]!r}, not {value!r}; choose another folder"
            )
    finished = {}
    for shard in range(plan.shards):
        name = plan.name(shard)
        entry = listed[name] if name in listed else _read_entry(folder, plan, shard)
        if entry and (folder / name).is_file() and describe_shard(folder / name, plan, shard) == entry:
            finished[shard] = entry
    return finished


def save_manifest(folder: Path, plan: ShardPlan, finished: dict[int, ManifestEntry]) -> None:
    """Writes the manifest.

    Args:
        folder: folder of the shards.
        plan: the plan that they belong to.
        finished: entries of the finished shards, by shard number.
    """
    shards = {plan.name(shard): finished[shard] for shard in sorted(finished)}
    write_atomically(folder / MANIFEST, _as_json({"plan": asdict(plan), "shards": shards}))


def save_entry(folder: Path, plan: ShardPlan, shard: int, entry: ManifestEntry) -> None:
    """Writes the entry of one shard to a file of its own. The process that makes the shard calls it."""
    write_atomically(_entry_path(folder, plan, shard), _as_json({"plan": asdict(plan), "shard": entry}))


def remove_entries(folder: Path, plan: ShardPlan, finished: dict[int, ManifestEntry]) -> None:
    """Deletes the files that `save_entry` wrote, once the manifest has all entries."""
    for shard in finished:
        _entry_path(folder, plan, shard).unlink(missing_ok=True)


def remove_temporary_files(folder: Path, plan: ShardPlan) -> None:
    """Deletes the temporary files of processes that were killed."""
    shards = range(plan.shards)
    names = {plan.name(shard) for shard in shards} | {_entry_path(folder, plan, shard).name for shard in shards}
    remove_temporaries(folder, {MANIFEST, *names})


def _read_entry(folder: Path, plan: ShardPlan, shard: int) -> ManifestEntry | None:
    """Reads the entry that `save_entry` wrote. Returns None if there is none or it belongs to another plan."""
    try:
        content = json.loads(_entry_path(folder, plan, shard).read_text())
        return content["shard"] if content["plan"] == asdict(plan) else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _entry_path(folder: Path, plan: ShardPlan, shard: int) -> Path:
    return folder / f".{plan.name(shard)}.json"


def _as_json(value: Any) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()
