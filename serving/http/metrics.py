"""Prometheus metrics of the service, exposed at /metrics.

A single worker keeps them in memory. Several workers share them through memory-mapped files: one file for each process
and type of metric, in a folder that belongs to their server.
"""

import logging
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from models.common.files import write_atomically

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

SECONDS_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Upper bounds of the histogram buckets of durations, in seconds."""
IMAGES_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Upper bounds of the histogram buckets of batch sizes."""

WORKERS_REPLACED = "MNIST_GAN_WORKERS_REPLACED"
"""Environment variable in which the server process passes the number of replaced workers to each new worker."""
FOLDER_PREFIX = "mnist-gan-metrics-"
"""Prefix of the names of the metrics folders, one for each server, in the system's folder for temporary files."""
FILE_BYTES = 1 << 20
"""Size of each metrics file. The series of all routes, statuses and buckets of one model take half of it; each
further model takes at most 32 KiB."""

AnyMetric = TypeVar("AnyMetric", bound=Any)
"""A metric of prometheus_client."""

logger = logging.getLogger("bentoml.mnist-gan")


class Metrics:
    """All metrics of the service; their names begin with `mnist_gan_`."""

    def __init__(self) -> None:
        # Not imported at the top: prometheus_client decides when it is imported whether to use memory or files.
        from prometheus_client import Counter, Gauge, Histogram

        def name(suffix: str) -> str:
            return f"mnist_gan_{suffix}"

        self.images = remember_labels(
            Counter(name("images"), "Generated images in responses, by route and model.", ["route", "model"])
        )
        self.errors = remember_labels(Counter(name("errors"), "Error responses, by error code.", ["code"]))
        self.queued_images = Gauge(
            name("queued_images"),
            "Images in the queue that are not yet in a batch.",
            ["model"],
            multiprocess_mode="livesum",
        )
        self.batch_images = Histogram(
            name("batch_images"),
            "Images per batch, which one run of the network decodes.",
            ["model"],
            buckets=IMAGES_BUCKETS,
        )
        self.queue_seconds = Histogram(
            name("queue_seconds"),
            "Time from the arrival of a request in the queue to its first batch.",
            ["model"],
            buckets=SECONDS_BUCKETS,
        )
        self.model_seconds = Histogram(
            name("model_seconds"), "Duration of one run of the network.", ["model"], buckets=SECONDS_BUCKETS
        )
        self.encode_seconds = remember_labels(
            Histogram(
                name("encode_seconds"),
                "Time to encode the images of a response, by route and model.",
                ["route", "model"],
                buckets=SECONDS_BUCKETS,
            )
        )
        self.model_info = Gauge(
            name("model_info"),
            "Always 1; the labels describe a served model.",
            ["model", "name", "file_sha256", "dataset", "precision"],
            multiprocess_mode="livemax",
        )
        workers_replaced = Gauge(
            name("workers_replaced"),
            "Number of workers that died and were replaced since the server started.",
            multiprocess_mode="max",
        )
        workers_replaced.set(int(os.environ.get(WORKERS_REPLACED, 0)))


def remember_labels(metric: AnyMetric) -> AnyMetric:
    """Makes `metric.labels(...)` return a remembered series, and returns the metric.

    prometheus_client takes a lock and converts all labels at each call, which takes several microseconds. Use it for
    labels that have few values.
    """
    metric.labels = cache(metric.labels)
    return metric


@cache
def metrics() -> Metrics:
    """Returns the metrics of this process. The first call creates them."""
    return Metrics()


class _UnsharedValues:
    """Replacement for a metrics file that cannot be written. Its values stay in this process and are not reported."""

    def __init__(self) -> None:
        self._values: dict[str, tuple[float, float]] = {}

    def read_value(self, key: str) -> tuple[float, float]:
        return self._values.get(key, (0.0, 0.0))

    def write_value(self, key: str, value: float, timestamp: float) -> None:
        self._values[key] = value, timestamp

    def close(self) -> None:
        pass


def allocate_files() -> None:
    """Makes prometheus_client allocate all pages of a metrics file before it maps the file into memory.

    prometheus_client only sets the size of a file, and the file system allocates a page when it is first written. On a
    full disk the kernel would kill the process at that write with SIGBUS. If a file cannot be allocated, its metrics
    are not reported, and one warning is logged.
    """
    from prometheus_client import values

    memory_mapped_file, logged = values.MmapedDict, False

    def allocate_and_map(filename: str) -> Any:
        nonlocal logged
        try:
            if not Path(filename).exists():
                write_atomically(Path(filename), bytes(FILE_BYTES))
            return memory_mapped_file(filename)
        except OSError as error:
            if not logged:
                logger.warning(
                    "metrics of process %d are not reported, because their file cannot be written: %s",
                    os.getpid(),
                    error,
                )
            logged = True
            return _UnsharedValues()

    values.MmapedDict = allocate_and_map  # type: ignore[assignment,misc]


def make_folder() -> tuple[str, int | None]:
    """Creates a folder for the metrics of one server, and removes the folders of servers that have ended.

    Returns:
        the path of the folder, and the file descriptor of a lock on it, or None on Windows. Child processes inherit the
        lock, so it is released when the server and all its workers have ended, even if they were killed.

    Raises:
        OSError: the folder cannot be created.
    """
    if fcntl is None:
        return tempfile.mkdtemp(prefix=FOLDER_PREFIX), None
    _remove_unused_folders()
    while True:
        folder = tempfile.mkdtemp(prefix=FOLDER_PREFIX)
        if (lock := _lock(Path(folder))) is not None:
            os.set_inheritable(lock, True)
            return folder, lock
        # Another server removed the folder before it was locked.


def remove_folder(folder: str) -> None:
    """Removes a folder with all its files. Errors are ignored: the next server tries again."""
    shutil.rmtree(folder, ignore_errors=True)


def _remove_unused_folders() -> None:
    for folder in Path(tempfile.gettempdir()).glob(FOLDER_PREFIX + "*"):
        if (descriptor := _lock(folder)) is not None:
            remove_folder(str(folder))
            os.close(descriptor)


def _lock(folder: Path) -> int | None:
    """Locks a folder exclusively, without blocking.

    Returns:
        the file descriptor, or None if another process holds the lock or the folder is missing or inaccessible.
    """
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
