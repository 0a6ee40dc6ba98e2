"""Files that are either whole or not there."""

import errno
import os
from pathlib import Path


def write_atomically(path: Path, data: bytes) -> None:
    """Writes to a temporary name beside `path`, then renames: a reader or a crash never meets a part of a file.

    Raises:
        OSError: the folder is missing or cannot be written, or `path` is a device or a folder, not a file.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "is not a regular file", str(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
