"""A folder of images with one subfolder per class.

Everything that is wrong with a folder is reported in one message, and everything that is skipped in the summary.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import torch

from training.data.images import IMAGE_SIZE, DataError, Loaded, LoadOptions, check_is_folder
from training.data.layout import find_classes
from training.data.pictures import Picture, PictureError, describe_changes, is_grey, read_picture, read_size
from training.data.scan import Scan, count, in_brackets, listing, search, shown


def load_folder(request: LoadOptions) -> Loaded:
    """Reads images of any size, at any depth in one subfolder per class.

    Raises:
        DataError: the layout is almost certainly a mistake, or files cannot be read.
        DataUnavailableError: there is no such folder.
    """
    path = request.data_dir
    check_is_folder(path)
    scan = Scan(path)
    classes = find_classes(scan)
    for label, folder in enumerate(classes.values()):
        files = list(search(folder, scan))
        scan.files += files
        scan.labels += [label] * len(files)
    _check_no_class_is_empty(scan, list(classes.values()))
    if request.image_size is None:
        _check_default_size(scan)
    size = request.image_size or IMAGE_SIZE
    pictures = _read_all(scan, size, request.channels)
    images = torch.stack([picture.pixels for picture in pictures])
    if request.channels is None and is_grey(images):
        images = images[:, :1].contiguous()
    changes = Counter(change for picture in pictures for change in picture.changes)
    notes = [*describe_changes(changes, len(pictures), size), *_notes(scan, classes)]
    return Loaded(images, torch.tensor(scan.labels), list(classes), tuple(notes))


def _check_no_class_is_empty(scan: Scan, folders: list[Path]) -> None:
    filled = set(scan.labels)
    empty = [shown(folder) for label, folder in enumerate(folders) if label not in filled]
    if empty and not scan.problems:  # a folder that cannot be read only seems empty
        raise DataError(
            f"{listing(empty)}: no images of this class; add some, or delete the folder{in_brackets(scan.skipped)}"
        )


def _check_default_size(scan: Scan) -> None:
    """Raises:
    DataError: without --image-size, most images would lose at least three quarters of their pixels.
    """
    sides = [min(size) for size in map(read_size, scan.files) if size]
    if sides and median(sides) >= 2 * IMAGE_SIZE:
        raise DataError(
            f"{scan.root}: give --image-size; half of the images are at least {median(sides):g} pixels wide and high, "
            f"and the default of {IMAGE_SIZE} x {IMAGE_SIZE} keeps less than a quarter of their pixels. --image-size "
            f"{IMAGE_SIZE} accepts that; time and memory grow with the square of the size"
        )


def _read_all(scan: Scan, size: int, channels: int | None) -> list[Picture]:
    """Raises:
    DataError: some files cannot be read; the message lists them.
    """
    pictures = []
    for file in scan.files:
        try:
            pictures.append(read_picture(file, size, channels))
        except PictureError as error:
            scan.problems.append(f"{scan.relative(file)} ({error})")
    if scan.problems:
        raise DataError(
            f"{scan.root}: {count(len(scan.problems), 'file')} cannot be read as images: {listing(scan.problems)}; "
            "repair them, or move them elsewhere"
        )
    return pictures


def _notes(scan: Scan, classes: dict[str, Path]) -> Iterator[str]:
    if scan.skipped:
        yield f"skipped {scan.skipped.total():,} that are not images of a class{in_brackets(scan.skipped)}"
    if len(classes) == 1:
        [(name, folder)] = classes.items()
        inner = {Path(file.relative_to(folder).parts[0]) for file in scan.files if file.parent != folder}
        if len(inner) > 1 and not any(file.parent == folder for file in scan.files):
            yield (
                f"the only class, {name}, has subfolders ({listing(map(shown, sorted(inner)))}); if those are the "
                f"classes, give --data-dir {shown(folder)}"
            )
