"""Shares runs of the network among requests that come at the same time.

Threads take what waits, as soon as it waits: a request on an idle machine never waits for company, and those that come
while the threads are busy go into the next run together. Every waiting request gets its share of a run in turn, so that
a large one is cut and does not starve the small ones. Rows do not depend on their neighbours (`models.gate` proves it
for every file), so an image is the same whichever run it is made in.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from models.artifact import CHUNK, Generator, Images
from serving.errors import OverloadedError
from serving.metrics import metrics

SHARE = 64
"""Rows that a request may put into a run while others wait."""


class _Job:
    """A request's rows, and what has been made of them."""

    def __init__(
        self,
        latents: NDArray[np.float32],
        labels: NDArray[np.int64] | None,
        image_shape: tuple[int, ...],
        cancelled: Callable[[], bool],
    ):
        self.latents = latents
        self.labels = labels
        self.cancelled = cancelled
        self.images = np.empty((len(latents), *image_shape), np.uint8)
        self.done: Future[Images] = Future()
        self.since = time.perf_counter()
        self.taken = 0
        """Rows that are made, or being made."""
        self.made = 0


class Batcher:
    """Decodes for many threads at a time."""

    def __init__(self, generator: Generator, threads: int, max_waiting: int):
        """
        Args:
            threads: that run the network.
            max_waiting: rows that may wait; one request alone may have more.
        """
        self._generator = generator
        self._max_waiting = max_waiting
        self._jobs: deque[_Job] = deque()
        self._waiting = 0
        self._changed = threading.Condition()
        for number in range(threads):
            threading.Thread(target=self._work, name=f"batcher-{number}", daemon=True).start()

    @property
    def waiting(self) -> int:
        """Rows that no run has taken yet."""
        return self._waiting

    def decode(
        self,
        latents: NDArray[np.floating],
        labels: NDArray[np.int64] | None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Images:
        """As `Generator.decode`, which it waits for.

        Args:
            cancelled: asked before every run; once it says yes, what is left is not made.

        Raises:
            InputError: see `Generator.decode`.
            OverloadedError: too much waits already.
            CancelledError: `cancelled` said yes.
        """
        job = _Job(*self._generator.check(latents, labels), self._generator.card.image_shape, cancelled)
        with self._changed:
            if self._waiting and self._waiting + len(latents) > self._max_waiting:
                raise OverloadedError(f"{self._waiting:,} images wait to be made already; come back in a moment")
            self._jobs.append(job)
            self._wait_for(len(latents))
            self._changed.notify()
        return job.done.result()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not (run := self._take()):
                    self._changed.wait()
            try:
                self._make(run)
            except Exception as error:  # of onnxruntime's: it is the requests', and must not end the thread
                for job in {job for job, _ in run}:
                    _fail(job, error)

    def _take(self) -> list[tuple[_Job, slice]]:
        """The rows of the next run; each job's turn ends with its share, unless nobody else waits."""
        run: list[tuple[_Job, slice]] = []
        room = CHUNK
        while self._jobs and room:
            job = self._jobs.popleft()
            left = len(job.latents) - job.taken
            if job.done.done() or job.cancelled():
                self._wait_for(-left)
                _fail(job, CancelledError())
                continue
            if not job.taken:
                metrics().queue_seconds.observe(time.perf_counter() - job.since)
            rows = min(left, room, SHARE if self._jobs or run else room)
            run.append((job, slice(job.taken, job.taken + rows)))
            job.taken += rows
            self._wait_for(-rows)
            room -= rows
            if rows < left:
                self._jobs.append(job)
        return run

    def _wait_for(self, rows: int) -> None:
        self._waiting += rows
        metrics().waiting_images.inc(rows)

    def _make(self, run: list[tuple[_Job, slice]]) -> None:
        latents = np.concatenate([job.latents[rows] for job, rows in run])
        labels = [job.labels[rows] for job, rows in run if job.labels is not None]
        metrics().batch_images.observe(len(latents))
        with metrics().model_seconds.time():
            images = self._generator.decode(latents, np.concatenate(labels) if labels else None)
        at = 0
        for job, rows in run:
            n = rows.stop - rows.start
            job.images[rows] = images[at : at + n]
            at += n
            with self._changed:  # another thread may be making the rest of it
                job.made += n
                whole = job.made == len(job.images)
            if whole and not job.done.done():
                job.done.set_result(job.images)


def _fail(job: _Job, error: Exception) -> None:
    with suppress(InvalidStateError):  # it has failed already, in another run
        job.done.set_exception(error)
