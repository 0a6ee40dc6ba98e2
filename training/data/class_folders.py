"""Finds the class folders of a folder of images, and rejects layouts that are almost certainly a mistake."""

import unicodedata
from pathlib import Path

from models.common.files import is_utf8
from training.data.labelled_images import DataError
from training.data.messages import counted, enumerated, printable
from training.data.scan import IMAGE_SUFFIXES, Scan, candidates, visible_entries

SPLIT_NAMES = frozenset(("train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"))
"""Names of folders that usually hold a split of a data set rather than a class."""


def find_classes(scan: Scan) -> dict[str, Path]:
    """Returns the class folders of `scan.root` by class name, sorted by name.

    Names are normalized to Unicode NFC, because file systems store accents in different forms.

    Raises:
        DataError: there are no class folders, a name cannot be stored, or the layout is almost certainly a mistake.
    """
    path, loose_images, folders = scan.root, [], []
    for entry in candidates(path, scan):
        if entry.is_dir():
            folders.append(Path(entry.path))
        elif Path(entry.name).suffix.lower() in IMAGE_SUFFIXES:
            loose_images.append(printable(Path(entry.name)))
        else:
            scan.skipped["next to the class folders"] += 1
    if not folders:
        raise DataError(f"{path}: no subfolders; put the images of each class into a subfolder named after the class")
    if loose_images:
        raise DataError(
            f"{path}: {counted(len(loose_images), 'image')} next to the class folders ({enumerated(loose_images)}); "
            "move each into the folder of its class, or elsewhere"
        )
    _check_names(path, folders)
    _check_not_splits(path, folders)
    classes = {unicodedata.normalize("NFC", folder.name): folder for folder in folders}
    return dict(sorted(classes.items()))


def _check_names(path: Path, folders: list[Path]) -> None:
    """Checks that each name can be stored in a checkpoint and that no two names look the same.

    Raises:
        DataError: a name is not valid UTF-8, or two names look the same.
    """
    if invalid := [printable(Path(folder.name)) for folder in folders if not is_utf8(folder.name)]:
        raise DataError(
            f"{path}: names of class folders are not valid UTF-8 ({enumerated(invalid)}); rename them, for example "
            "with convmv -f latin1 -t utf-8"
        )
    name_by_appearance: dict[str, str] = {}
    for name in sorted(folder.name for folder in folders):
        first = name_by_appearance.setdefault(_appearance(name), name)
        if first != name:
            raise DataError(
                f"{path}: the names of two class folders look the same, {first!a} and {name!a}; merge the folders, or "
                "rename one"
            )


def _appearance(name: str) -> str:
    """Returns a name with composed accents and single spaces, without invisible characters."""
    composed = unicodedata.normalize("NFC", name)
    return " ".join("".join(c for c in composed if unicodedata.category(c) != "Cf").split())


def _check_not_splits(path: Path, folders: list[Path]) -> None:
    """Checks that the subfolders are classes, not splits such as train and test.

    Raises:
        DataError: all subfolders have names of splits, and they have subfolders themselves or are more than one. The
            message suggests the folder or the layout to use instead.
    """
    if not {folder.name.lower() for folder in folders} <= SPLIT_NAMES:
        return
    nested = [folder for folder in folders if any(entry.is_dir() for entry in visible_entries(folder))]
    names = enumerated(sorted(folder.name for folder in folders))
    if nested:
        first = next((folder for folder in nested if folder.name.lower().startswith("train")), nested[0])
        raise DataError(f"{path}: its subfolders are splits ({names}), not classes; did you mean --data-dir {first}?")
    if len(folders) > 1:
        raise DataError(
            f"{path}: its subfolders are splits ({names}), not classes; move their images into one folder per class"
        )
