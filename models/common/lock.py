"""Locks a folder, so that two processes never write into it at the same time."""

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
"""Name of the file in the folder that is locked. It contains the process id and the host of the process."""

_HELD = (errno.EAGAIN, errno.EACCES)
_UNSUPPORTED = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)


class LockedError(MnistGanError):
    """Another process writes into the folder."""


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Creates a folder if it does not exist, and locks it until the context ends.

    The kernel releases the lock when the process ends, so a killed process leaves no lock. At the end of the context
    the lock file is deleted, and the folder too if it was created here and is empty. On Windows, and on file systems
    without locks, nothing is locked.

    Raises:
        LockedError: another process has the lock; the message names its process id and its host.
        OSError: the folder cannot be created or written.
    """
    created = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    descriptor = _acquire(path)
    try:
        with suppress(OSError):  # on a full disk the lock file stays empty
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        with suppress(OSError):
            path.unlink()
            if created:
                folder.rmdir()
        os.close(descriptor)


def _acquire(path: Path) -> int:
    """Opens or creates a file, locks it and returns its descriptor."""
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
                f"{path.parent} is in use by {owner}: wait until it has ended, or choose another --out"
            ) from None
        if _is_open(path, descriptor):
            return descriptor
        os.close(descriptor)  # the previous owner deleted the file after it was opened here


def _is_open(path: Path, descriptor: int) -> bool:
    """Whether a descriptor refers to the file that is now at this path."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
