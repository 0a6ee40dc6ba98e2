"""A lock on a folder, so that two processes never write into it at the same time."""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from models.common.errors import MnistGanError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
"""Name of the file that is locked. It contains the process id and the host of the owner."""

_HELD = (errno.EAGAIN, errno.EACCES)
_UNSUPPORTED = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)


class LockedError(MnistGanError):
    """A folder into which another process writes."""


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Makes a folder if it does not exist, and locks it until the context ends.

    The kernel releases the lock when the process ends, however it ends, so a killed process blocks nobody. The lock
    file is deleted at the end, and so is a folder that was made here and stayed empty. On a file system without locks,
    and on Windows, nothing is locked.

    Raises:
        LockedError: another process has the lock; the message names its process id and its host.
        OSError: the folder cannot be made or written.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    descriptor = _acquire(path)
    try:
        with suppress(OSError):  # on a full disk the lock names no owner
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        with suppress(OSError):
            path.unlink()
            if made:
                folder.rmdir()
        os.close(descriptor)


def _acquire(path: Path) -> int:
    """Opens and locks a file; returns its descriptor."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _UNSUPPORTED:
                return descriptor
            owner = os.read(descriptor, 1_000).decode() or "another process"
            os.close(descriptor)
            if error.errno not in _HELD:
                raise OSError(error.errno, error.strerror, str(path)) from error
            raise LockedError(
                f"{path.parent} is in use by {owner}: wait until it ends, or choose another --out"
            ) from None
        if _is(path, descriptor):
            return descriptor
        os.close(descriptor)  # its owner deleted the file after we had opened it


def _is(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
