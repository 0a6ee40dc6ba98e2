"""Files that are either whole or not there."""

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path


def write_atomically(path: Path, data: bytes) -> None:
    """Writes to a temporary name beside `path`, then renames: a reader or a crash never meets a part of a file.

    Raises:
        OSError: the folder is missing or cannot be written, or `path` is a device or a folder, not a file.
    """
    write_together({path: data})


def write_together(files: Mapping[Path, bytes]) -> None:
    """As `write_atomically`, for several files: none is renamed before all are written.

    Raises:
        OSError: one cannot be written; the message names it, and no file has changed. Or one cannot be renamed; then
            those before it have changed already.
    """
    temporaries = {path: path.parent / f".{path.name}.{os.getpid()}" for path in files}
    try:
        for path, temporary in temporaries.items():
            with _naming(path):
                _write(path, temporary, files[path])
        for path, temporary in temporaries.items():
            with _naming(path):
                temporary.replace(path)
    finally:
        for temporary in temporaries.values():
            with suppress(OSError):
                temporary.unlink()


def append(path: Path, data: bytes) -> None:
    """Appends all of `data` to a file, which is made if need be, or nothing of it.

    Raises:
        OSError: the file cannot be written; the message names it.
    """
    with _naming(path), path.open("ab", buffering=0) as stream:
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
    """Finds out before long work whether its result can be written.

    Raises:
        OSError: as `write_atomically` would.
    """
    temporary = path.parent / f".{path.name}.{os.getpid()}"
    with _naming(path):
        _write(path, temporary, b"")
        temporary.unlink()


def _write(path: Path, temporary: Path, data: bytes) -> None:
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "is not a regular file")
    with temporary.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def is_utf8(text: str) -> bool:
    """Whether a name or a path is Unicode text, not bytes of another encoding."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Errors name the file that was asked for, not the temporary one; a full disk would name none."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
