"""Searches folders for image files, and counts skipped entries by reason."""

import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from training.data.labelled_images import DataUnavailableError
from training.data.messages import printable

IMAGE_SUFFIXES = frozenset(
    (
        *(".avif", ".bmp", ".gif", ".heic", ".jfif", ".jp2", ".jpeg", ".jpg"),
        *(".pbm", ".pgm", ".png", ".ppm", ".tga", ".tif", ".tiff", ".webp"),
    )
)
SKIPPED_SUFFIXES = frozenset(
    (
        *(".htm", ".html", ".log", ".md", ".pdf", ".txt", ".url"),
        *(".aae", ".csv", ".ini", ".json", ".jsonl", ".toml", ".tsv", ".xml", ".xmp", ".yaml", ".yml"),
        *(".ai", ".eps", ".ps", ".svg", ".svgz"),
        *(".db", ".mat", ".npy", ".npz", ".pickle", ".pkl", ".py", ".sh"),
    )
)
"""Text, annotations, vector graphics, data and programs: files that are certainly not raster images.

Files with any other suffix are read as images, so that a damaged or misnamed image is reported, not skipped.
"""
JUNK_FILES = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"))
"""Files that operating systems create for their file managers."""
JUNK_FOLDERS = frozenset(
    ("@eadir", "@tmp", "#recycle", "@recycle", "$recycle.bin", "__macosx", "lost+found", "system volume information")
)
"""Folders that operating systems and network storage create for thumbnails, deleted files and metadata."""


@dataclass
class Scan:
    """Result of searching a folder, which the functions of this module fill."""

    root: Path
    """Folder that is searched."""
    files: list[Path] = field(default_factory=list)
    """Files to read as images, in the order of the data set."""
    labels: list[int] = field(default_factory=list)
    """Class index of each file."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Number of skipped files and folders by reason."""
    problems: list[str] = field(default_factory=list)
    """Paths relative to `root` that cannot be read, each with the reason in parentheses."""

    def relative(self, path: Path) -> str:
        """Returns a path relative to `root`, as messages show it."""
        return printable(path.relative_to(self.root))


def check_is_folder(path: Path) -> None:
    """Checks that a path is a folder.

    Raises:
        DataUnavailableError: it does not exist, or it is a file.
    """
    if not path.exists():
        raise DataUnavailableError(f"{path}: no such folder; check --data-dir")
    if not path.is_dir():
        raise DataUnavailableError(f"{path}: this is a file; give --data-dir a folder (unpack an archive first)")


def find_files(folder: Path, scan: Scan) -> Iterator[Path]:
    """Returns all files below a class folder that may be images, sorted by path.

    Links are followed, but each folder is read only once, so cyclic links do not cause an endless loop.
    """
    files: list[Path] = []
    folders, seen = [folder], {_identity(scan.root)}
    while folders:
        current = folders.pop()
        if (identity := _identity(current)) in seen:
            scan.skipped["link to a folder that is read already"] += 1
            continue
        seen.add(identity)
        for entry in candidates(current, scan):
            (folders if entry.is_dir() else files).append(Path(entry.path))
    return iter(sorted(files, key=lambda file: (str(file.parent), file.name)))


def candidates(folder: Path, scan: Scan) -> Iterator[os.DirEntry[str]]:
    """Yields the entries of a folder that may be images or contain images, sorted by name.

    Counts the other entries in `scan.skipped`, and adds a folder that cannot be read to `scan.problems`.
    """
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


def find_image(folder: Path) -> str | None:
    """Returns the relative path of the first image in a folder or its direct subfolders, by suffix."""
    for current in (folder, *sorted(entry for entry in visible_entries(folder) if entry.is_dir())):
        for entry in sorted(visible_entries(current)):
            if entry.suffix.lower() in IMAGE_SUFFIXES and entry.is_file():
                return printable(entry.relative_to(folder))
    return None


def visible_entries(folder: Path) -> list[Path]:
    """Returns the entries of a folder that are not hidden; an empty list if the folder cannot be read."""
    try:
        return [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError:
        return []


def _identity(path: Path) -> tuple[int, int]:
    """Returns device and inode, which are the same for all links to a folder."""
    status = path.stat()
    return status.st_dev, status.st_ino


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
    if not stat.S_ISREG(mode):  # reading a pipe or a device would block
        return "not a regular file"
    suffix = Path(name).suffix
    return suffix if suffix in SKIPPED_SUFFIXES else None
