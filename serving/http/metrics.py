"""Metrics of the service, for /metrics.

With one worker they are values in its memory. Several workers share them through files that are mapped into memory, one
file for each process and kind of metric, in a folder of their server's own.
"""

import logging
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from models.common.files import write_atomically

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)

WORKERS_REPLACED = "MNIST_GAN_WORKERS_REPLACED"
"""Variable in which the server process passes to each new worker how many workers have been replaced."""
FOLDER = "mnist-gan-metrics-"
"""Start of the names of the servers' folders, in the system's folder for temporary files."""
FILE_BYTES = 1 << 20
"""Size of each file: the series of all routes, statuses and buckets take half of it."""

logger = logging.getLogger("bentoml.mnist-gan")


class Metrics:
    def __init__(self) -> None:
        # Imported only in a worker: prometheus_client finds out when it is imported whether it is to use files.
        from prometheus_client import Counter, Gauge, Histogram

        def name(of: str) -> str:
            return f"mnist_gan_{of}"

        self.images = Counter(name("images"), "Images made for answers.", ["route"])
        self.rejected = Counter(name("rejected"), "Requests answered with an error, by its code.", ["reason"])
        self.queued_images = Gauge(
            name("queued_images"), "Images in the queue that are not yet in a batch.", multiprocess_mode="livesum"
        )
        self.batch_images = Histogram(name("batch_images"), "Images a run of the network.", buckets=IMAGES)
        self.queue_seconds = Histogram(
            name("queue_seconds"), "From a request's arrival in the queue to its first run.", buckets=SECONDS
        )
        self.model_seconds = Histogram(name("model_seconds"), "A run of the network.", buckets=SECONDS)
        self.encode_seconds = Histogram(
            name("encode_seconds"), "Turning images into an answer.", ["route"], buckets=SECONDS
        )
        self.model_info = Gauge(
            name("model_info"),
            "1, of the model that is being served.",
            ["name", "file_sha256", "dataset", "precision"],
            multiprocess_mode="livemax",
        )
        workers_replaced = Gauge(
            name("workers_replaced"),
            "Workers that died and were replaced since the server started.",
            multiprocess_mode="max",
        )
        workers_replaced.set(int(os.environ.get(WORKERS_REPLACED, 0)))


@cache
def metrics() -> Metrics:
    """The metrics of this process, created by the first call."""
    return Metrics()


class _UnsharedValues:
    """Stands in for a file of prometheus_client that cannot be written: its values stay in this process, unreported."""

    def __init__(self) -> None:
        self._values: dict[str, tuple[float, float]] = {}

    def read_value(self, key: str) -> tuple[float, float]:
        return self._values.get(key, (0.0, 0.0))

    def write_value(self, key: str, value: float, timestamp: float) -> None:
        self._values[key] = value, timestamp

    def close(self) -> None:
        pass


def allocate_files() -> None:
    """Makes prometheus_client allocate the whole of each file before it maps it into memory.

    It only sets a file's size, so that the file system allocates pages when they are first written. On a full disk that
    write is not an error that could be handled: the kernel kills the process with SIGBUS. Where a file cannot be
    allocated, the metrics that it would hold are not reported, and the log says so once.
    """
    from prometheus_client import values

    mapped, logged = values.MmapedDict, False

    def allocated(filename: str) -> Any:
        nonlocal logged
        try:
            if not Path(filename).exists():
                write_atomically(Path(filename), bytes(FILE_BYTES))
            return mapped(filename)
        except OSError as error:
            if not logged:
                logger.warning("metrics of process %d are not reported: %s", os.getpid(), error)
            logged = True
            return _UnsharedValues()

    values.MmapedDict = allocated  # type: ignore[assignment,misc]


def make_folder() -> tuple[str, int | None]:
    """Makes a folder for the metrics of one server, and removes those of servers that have ended.

    Returns:
        The folder, and the descriptor of a lock on it, which child processes inherit: the lock is released when the
        server and its workers have ended, however they end. None where there are no locks.

    Raises:
        OSError: the folder cannot be made.
    """
    if fcntl is None:
        return tempfile.mkdtemp(prefix=FOLDER), None
    _remove_unused()
    while True:
        folder = tempfile.mkdtemp(prefix=FOLDER)
        if (lock := _lock(Path(folder))) is not None:
            os.set_inheritable(lock, True)
            return folder, lock
        # Another server has removed it before it was locked.


def remove_folder(folder: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _remove_unused() -> None:
    for folder in Path(tempfile.gettempdir()).glob(FOLDER + "*"):
        if (descriptor := _lock(folder)) is not None:
            remove_folder(str(folder))
            os.close(descriptor)


def _lock(folder: Path) -> int | None:
    """Locks a folder; returns its descriptor, or None if it is locked, missing or another user's."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(folder.stat(), os.fstat(descriptor)):
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None
