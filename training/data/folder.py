"""Loads a folder of images with one subfolder per class.

One message reports all files that cannot be read. The summary reports everything that is skipped or changed.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import torch

from training.data.class_folders import find_classes
from training.data.image_file import (
    ImageFileError,
    TrainingImage,
    describe_changes,
    is_grey,
    read_image,
    read_size,
)
from training.data.labelled_images import (
    IMAGE_SIZE,
    MAX_IMAGE_SIZE,
    MIN_IMAGE_SIZE,
    DataError,
    Loaded,
    LoadOptions,
)
from training.data.messages import counted, enumerated, in_parentheses, printable
from training.data.scan import Scan, check_is_folder, find_files


def load_folder(options: LoadOptions) -> Loaded:
    """Loads images of any size, at any depth below one subfolder per class.

    Args:
        options: `data_dir` is the folder. `image_size` None means the size of the images if all have the same one of at
            most 256 pixels, otherwise 28. `channels` None means 1 if no image has colours, otherwise 3.

    Raises:
        DataError: files cannot be read, a class is empty, or the layout is almost certainly a mistake.
        DataUnavailableError: the folder does not exist.
    """
    path = options.data_dir
    check_is_folder(path)
    scan = Scan(path)
    classes = find_classes(scan)
    for label, folder in enumerate(classes.values()):
        files = list(find_files(folder, scan))
        scan.files += files
        scan.labels += [label] * len(files)
    _check_no_class_is_empty(scan, list(classes.values()))
    size = options.image_size or _default_size(scan)
    training_images = _read_all(scan, size, options)
    images = torch.stack([image.pixels for image in training_images])
    if options.channels is None and is_grey(images):
        images = images[:, :1].contiguous()
    changes = Counter(change for image in training_images for change in image.changes)
    notes = [*describe_changes(changes, len(images), size, options.background), *_notes(scan, classes)]
    return Loaded(images, torch.tensor(scan.labels), list(classes), tuple(notes))


def _check_no_class_is_empty(scan: Scan, folders: list[Path]) -> None:
    with_images = set(scan.labels)
    empty = [printable(folder) for label, folder in enumerate(folders) if label not in with_images]
    if empty and not scan.problems:  # a folder that cannot be read only seems empty
        raise DataError(
            f"{enumerated(empty)}: no images of this class{in_parentheses(scan.skipped, 'skipped: ')}; add images, or "
            "delete the folder"
        )


def _default_size(scan: Scan) -> tuple[int, int]:
    """Returns the size of the images if all have the same one and it is allowed, otherwise the default size.

    Raises:
        DataError: the images have several sizes, and most of them would lose at least three quarters of their pixels.
    """
    sizes = [size for size in map(read_size, scan.files) if size]
    if len(set(sizes)) == 1 and MIN_IMAGE_SIZE <= min(sizes[0]) <= max(sizes[0]) <= MAX_IMAGE_SIZE:
        return sizes[0]
    sides = [min(size) for size in sizes]
    if sides and median(sides) >= 2 * IMAGE_SIZE:
        raise DataError(
            f"{scan.root}: give --image-size; half of the images are at least {median(sides):g} pixels wide and high, "
            f"and the default of {IMAGE_SIZE} x {IMAGE_SIZE} keeps less than a quarter of their pixels. --image-size "
            f"{IMAGE_SIZE} accepts that; time and memory grow with the square of the size"
        )
    return IMAGE_SIZE, IMAGE_SIZE


def _read_all(scan: Scan, size: tuple[int, int], options: LoadOptions) -> list[TrainingImage]:
    """Reads all files of a scan.

    Raises:
        DataError: some files cannot be read; the message lists them.
    """
    images = []
    for file in scan.files:
        try:
            images.append(read_image(file, size, options.channels, options.fit, options.background))
        except ImageFileError as error:
            scan.problems.append(f"{scan.relative(file)} ({error})")
    if scan.problems:
        raise DataError(
            f"{scan.root}: {counted(len(scan.problems), 'file')} cannot be read as images: "
            f"{enumerated(scan.problems)}; repair them, or move them elsewhere"
        )
    return images


def _notes(scan: Scan, classes: dict[str, Path]) -> Iterator[str]:
    """Yields lines about skipped files, and about a single class that seems to contain the actual classes."""
    if scan.skipped:
        number = scan.skipped.total()
        entries = "file or folder that is not an image" if number == 1 else "files or folders that are not images"
        yield f"skipped {number:,} {entries} of a class{in_parentheses(scan.skipped)}"
    if len(classes) == 1:
        [(name, folder)] = classes.items()
        subfolders = {Path(file.relative_to(folder).parts[0]) for file in scan.files if file.parent != folder}
        if len(subfolders) > 1 and not any(file.parent == folder for file in scan.files):
            yield (
                f"the only class, {name}, has subfolders ({enumerated(map(printable, sorted(subfolders)))}); if those "
                f"are the classes, give --data-dir {printable(folder)}"
            )
