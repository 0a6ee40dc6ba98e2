"""Writes files atomically: under its name, a file has either its old or its new content, even after a crash or on a
full disk.

`append` is the exception: a crash can leave part of the data.
"""

import errno
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Replaces a file once a context has written all of its new content.

    Yields:
        A temporary path in the same folder. The context writes a file there and closes it. At the end the file is
        synchronized to the disk and renamed to `path`. After an error it is deleted, and `path` is unchanged.

    Raises:
        OSError: the file cannot be written, the folder is missing, or `path` is a folder or a device. The error names
            `path`, not the temporary path.
    """
    temporary = _temporary(path)
    with _errors_name(path, temporary):
        try:
            _check_regular(path)
            yield temporary
            _synchronize(temporary)
            temporary.replace(path)
        finally:
            with suppress(OSError):
                temporary.unlink()


def write_atomically(path: Path, data: bytes) -> None:
    """Writes or replaces a file as `atomic_file` does.

    Raises:
        OSError: see `atomic_file`.
    """
    with atomic_file(path) as temporary:
        temporary.write_bytes(data)


def write_together(files: Mapping[Path, bytes]) -> None:
    """Writes several files atomically. All of them are on the disk before the first one is renamed.

    Raises:
        OSError: a file cannot be written; the error names it, and no file has changed. Or a file cannot be renamed, in
            which case others may have changed already.
    """
    with ExitStack() as stack:
        for path, data in files.items():
            temporary = stack.enter_context(atomic_file(path))
            temporary.write_bytes(data)
            _synchronize(temporary)


def append(path: Path, data: bytes) -> None:
    """Appends data to a file, or creates the file. After an error, the file has its previous length again,
    and an empty file is deleted.

    Raises:
        OSError: the data cannot be written; the error names the file.
    """
    with _errors_name(path, path), path.open("ab", buffering=0) as stream:
        size = stream.seek(0, os.SEEK_END)
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[stream.write(rest) :]
        except OSError:
            stream.truncate(size)
            if not size:
                path.unlink()
            raise


def check_writable(path: Path) -> None:
    """Checks that `write_atomically` could write a file. Commands call it before they start long work.

    Raises:
        OSError: see `atomic_file`.
    """
    temporary = _temporary(path)
    with _errors_name(path, temporary):
        _check_regular(path)
        temporary.touch()
        temporary.unlink()


def remove_temporaries(folder: Path, names: Collection[str]) -> None:
    """Deletes the temporary files that killed processes left when they wrote files with these names. Ignores errors.

    It also deletes the temporary files of running processes, so the caller must hold the lock of the folder.
    """
    for path in folder.glob(".*"):
        name, _, process = path.name[1:].rpartition(".")
        if process.isdigit() and name in names:
            with suppress(OSError):
                path.unlink()


def signature_path(file: Path) -> Path:
    """Returns the path of the signature of a model file: `a.onnx.sig` for `a.onnx`."""
    return file.with_name(f"{file.name}.sig")


def is_utf8(text: str) -> bool:
    """Whether a name or a path is valid Unicode. Python represents undecodable bytes of a file name as surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _temporary(path: Path) -> Path:
    return path.parent / f".{path.name}.{os.getpid()}"


def _check_regular(path: Path) -> None:
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "is not a regular file")


def _synchronize(path: Path) -> None:
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())


@contextmanager
def _errors_name(path: Path, temporary: Path) -> Iterator[None]:
    """Makes errors name `path` instead of the temporary file, or instead of no file, as when the disk is full."""
    try:
        yield
    except OSError as error:
        if error.filename in (None, str(temporary), temporary):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
