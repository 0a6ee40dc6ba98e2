"""The layout of a folder of images: its classes, and the layouts that are almost certainly a mistake."""

import unicodedata
from pathlib import Path

from models.common.files import is_utf8
from training.data.images import DataError
from training.data.scan import IMAGE_SUFFIXES, Scan, count, entries, listed, listing, shown

SPLIT_NAMES = frozenset(("train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"))


def find_classes(scan: Scan) -> dict[str, Path]:
    """The class folders by name, in the order of the names. Names are composed (NFC), as keyboards type them.

    Raises:
        DataError: there are none, a name cannot be stored, or the layout is almost certainly a mistake.
    """
    path, loose, folders = scan.root, [], []
    for entry in entries(path, scan):
        if entry.is_dir():
            folders.append(Path(entry.path))
        elif Path(entry.name).suffix.lower() in IMAGE_SUFFIXES:
            loose.append(shown(Path(entry.name)))
        else:
            scan.skipped["next to the class folders"] += 1
    if not folders:
        raise DataError(f"{path}: no subfolders; put the images of each class into a folder of the class's name")
    if loose:
        raise DataError(
            f"{path}: {count(len(loose), 'image')} next to the class folders ({listing(loose)}); move each into the "
            "folder of its class, or elsewhere"
        )
    _check_names(path, folders)
    _check_not_splits(path, folders)
    classes = {unicodedata.normalize("NFC", folder.name): folder for folder in folders}
    return dict(sorted(classes.items()))


def _check_names(path: Path, folders: list[Path]) -> None:
    """Raises:
    DataError: a name is not valid UTF-8, so that no checkpoint could store it, or two names look the same.
    """
    if invalid := [shown(Path(folder.name)) for folder in folders if not is_utf8(folder.name)]:
        raise DataError(
            f"{path}: names of class folders that are not valid UTF-8 ({listing(invalid)}); rename them, for example "
            "with convmv -f latin1 -t utf-8"
        )
    by_look: dict[str, str] = {}
    for name in sorted(folder.name for folder in folders):
        look = _look(name)
        if look in by_look:
            raise DataError(
                f"{path}: two class folders whose names look the same, {by_look[look]!a} and {name!a}; "
                "merge them, or rename one"
            )
        by_look[look] = name


def _look(name: str) -> str:
    """A name with composed accents, without invisible characters, and with single spaces."""
    composed = unicodedata.normalize("NFC", name)
    return " ".join("".join(c for c in composed if unicodedata.category(c) != "Cf").split())


def _check_not_splits(path: Path, folders: list[Path]) -> None:
    """Raises:
    DataError: the subfolders are the splits of a data set, not classes.
    """
    if not {folder.name.lower() for folder in folders} <= SPLIT_NAMES:
        return
    nested = [folder for folder in folders if any(entry.is_dir() for entry in listed(folder))]
    names = listing(sorted(folder.name for folder in folders))
    if nested:
        first = next((folder for folder in nested if folder.name.lower().startswith("train")), nested[0])
        raise DataError(f"{path}: its subfolders are splits ({names}), not classes; did you mean --data-dir {first}?")
    if len(folders) > 1:
        raise DataError(
            f"{path}: its subfolders are splits ({names}), not classes; move their images into one folder per class"
        )
