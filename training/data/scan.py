"""Searches a folder for images: what may be one is returned, and what is skipped is counted."""

import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

IMAGE_SUFFIXES = frozenset(
    (
        *(".avif", ".bmp", ".gif", ".heic", ".jfif", ".jp2", ".jpeg", ".jpg"),
        *(".pbm", ".pgm", ".png", ".ppm", ".tga", ".tif", ".tiff", ".webp"),
    )
)
OTHER_SUFFIXES = frozenset(
    (
        *(".htm", ".html", ".log", ".md", ".pdf", ".txt", ".url"),
        *(".aae", ".csv", ".ini", ".json", ".jsonl", ".toml", ".tsv", ".xml", ".xmp", ".yaml", ".yml"),
        *(".ai", ".eps", ".ps", ".svg", ".svgz"),
        *(".db", ".mat", ".npy", ".npz", ".pickle", ".pkl", ".py", ".sh"),
    )
)
"""Text, annotations, vector graphics, data and programs: known not to be images of pixels."""
JUNK_FILES = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"))
JUNK_FOLDERS = frozenset(
    ("@eadir", "@tmp", "#recycle", "@recycle", "$recycle.bin", "__macosx", "lost+found", "system volume information")
)
"""Folders that network storage and operating systems create: thumbnails, deleted files, metadata."""
LISTED = 8
"""Most names in one message."""


@dataclass
class Scan:
    """The files of a folder, as a search finds them."""

    root: Path
    files: list[Path] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    """Paths below `root` that cannot be read, and why."""

    def relative(self, path: Path) -> str:
        return shown(path.relative_to(self.root))


def search(folder: Path, scan: Scan) -> Iterator[Path]:
    """The files of a class, at any depth. Each folder is read once, wherever links lead."""
    files: list[Path] = []
    folders, seen = [folder], {_identity(scan.root)}
    while folders:
        inner = folders.pop()
        if (identity := _identity(inner)) in seen:
            scan.skipped["link to a folder that is read already"] += 1
            continue
        seen.add(identity)
        for entry in entries(inner, scan):
            (folders if entry.is_dir() else files).append(Path(entry.path))
    return iter(sorted(files, key=lambda file: (str(file.parent), file.name)))


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def entries(folder: Path, scan: Scan) -> Iterator[os.DirEntry[str]]:
    """The entries of a folder that may be images or hold some; the others are counted."""
    try:
        found = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        scan.problems.append(f"{scan.relative(folder)} ({error.strerror})")
        return
    for entry in found:
        if reason := _reason_to_skip(entry):
            scan.skipped[reason] += 1
        else:
            yield entry


def _reason_to_skip(entry: os.DirEntry[str]) -> str | None:
    name = entry.name.lower()
    if name.startswith("."):
        return "hidden"
    if name in JUNK_FILES:
        return entry.name.strip()
    try:
        mode = entry.stat().st_mode
    except OSError:
        return "broken link" if entry.is_symlink() else None
    if stat.S_ISDIR(mode):
        return entry.name if name in JUNK_FOLDERS else None
    if not stat.S_ISREG(mode):
        return "not a regular file"
    suffix = Path(name).suffix
    return suffix if suffix in OTHER_SUFFIXES else None


def find_image(folder: Path) -> str | None:
    """The first image, by its name's ending, in a folder or its subfolders; None if there is none."""
    for inner in (folder, *sorted(entry for entry in listed(folder) if entry.is_dir())):
        for entry in sorted(listed(inner)):
            if entry.suffix.lower() in IMAGE_SUFFIXES and entry.is_file():
                return shown(entry.relative_to(folder))
    return None


def listed(folder: Path) -> list[Path]:
    """The visible entries of a folder; none if it cannot be read."""
    try:
        return [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError:
        return []


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def listing(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED:,} more" if len(names) > LISTED else "")


def in_brackets(counts: Counter[str]) -> str:
    return f" ({', '.join(f'{reason}: {count:,}' for reason, count in counts.most_common())})" if counts else ""


def shown(path: Path) -> str:
    r"""A path that any terminal can print: bytes that are not UTF-8 become \xe9."""
    return os.fsencode(path).decode(errors="backslashreplace")
