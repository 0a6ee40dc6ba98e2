"""Shares runs of the network among requests that come at the same time.

A request that finds fewer runs under way than may be starts one in its own thread, so on an idle machine it waits for
nobody; a large one has others help. Those that come while enough are under way wait, and whoever's run ends first makes
the next: of all that wait, each with a share in its turn, so that a large request is cut and does not starve the small
ones. Rows do not depend on their neighbours (`models.gate` proves it for every file), so an image is the same whichever
run it is made in.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from models.artifact import CHUNK, Generator, Images
from serving.errors import OverloadedError
from serving.metrics import metrics

SHARE = 64
"""Rows that a request may put into a run while others wait."""


class _Job:
    """A request's rows, and what has been made of them. Its fields are the batcher's, under its lock."""

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
        self.since = time.perf_counter()
        self.taken = 0
        """Rows that are made, or being made."""
        self.made = 0
        self.error: BaseException | None = None
        self.leads = False
        """Whether its thread is to make the next run."""
        self.woken = threading.Event()

    @property
    def ended(self) -> bool:
        return self.error is not None or self.made == len(self.latents)


class Batcher:
    """Decodes for many threads at a time."""

    def __init__(self, generator: Generator, runs: int, max_waiting: int):
        """
        Args:
            runs: of the network that may be under way at a time.
            max_waiting: rows that may wait; one request alone may have more.
        """
        self._generator = generator
        self._max_waiting = max_waiting
        self._free = runs
        self._jobs: deque[_Job] = deque()
        """Those with rows that no run has taken."""
        self._waiting = 0
        self._lock = threading.Lock()
        self._helpers = ThreadPoolExecutor(runs, "batcher")

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
        """As `Generator.decode`, with whoever else asks.

        Args:
            cancelled: asked before every run; once it says yes, what is left is not made.

        Raises:
            InputError: see `Generator.decode`.
            OverloadedError: too much waits already.
            CancelledError: `cancelled` said yes.
        """
        job = _Job(*self._generator.check(latents, labels), self._generator.card.image_shape, cancelled)
        with self._lock:
            if self._waiting and self._waiting + len(latents) > self._max_waiting:
                raise OverloadedError(f"{self._waiting:,} images wait to be made already; come back in a moment")
            self._jobs.append(job)
            self._wait_for(len(latents))
            if self._free:
                self._free -= 1
                job.leads = True
            helpers = min(self._free, (len(latents) - 1) // CHUNK)
            self._free -= helpers
        for _ in range(helpers):
            self._helpers.submit(self._help)
        while not job.ended or job.leads:
            if job.leads:
                self._lead(job)
            else:
                job.woken.wait()
                job.woken.clear()
        if job.error:
            raise job.error
        return job.images

    def _lead(self, job: _Job) -> None:
        """Makes one run; then, if there is nothing left to take of this thread's job, another's leads."""
        with self._lock:
            run = [] if job.ended else self._take()
        self._make(run)
        with self._lock:
            if job.ended or job.taken == len(job.latents):  # the rest of it is being made in another run
                job.leads = False
                # One that has failed may have lost its thread, and one that leads already has a run of its own.
                if heir := next((one for one in self._jobs if not (one.leads or one.error)), None):
                    heir.leads = True
                    heir.woken.set()
                else:
                    self._free += 1

    def _help(self) -> None:
        """Makes runs for as long as there is something to take."""
        while True:
            with self._lock:
                if not (run := self._take()):
                    self._free += 1
                    return
            self._make(run)

    def _take(self) -> list[tuple[_Job, slice]]:
        """The rows of the next run; each job's turn ends with its share, unless nobody else waits."""
        run: list[tuple[_Job, slice]] = []
        room = CHUNK
        while self._jobs and room:
            job = self._jobs.popleft()
            if not job.error and job.cancelled():
                self._end(job, CancelledError())
            if job.error:
                self._drop(job)
                continue
            if not job.taken:
                metrics().queue_seconds.observe(time.perf_counter() - job.since)
            left = len(job.latents) - job.taken
            rows = min(left, room, SHARE if self._jobs or run else room)
            run.append((job, slice(job.taken, job.taken + rows)))
            job.taken += rows
            self._wait_for(-rows)
            room -= rows
            if rows < left:
                self._jobs.append(job)
        return run

    def _make(self, run: list[tuple[_Job, slice]]) -> None:
        if not run:
            return
        try:
            latents = np.concatenate([job.latents[rows] for job, rows in run])
            labels = [job.labels[rows] for job, rows in run if job.labels is not None]
            metrics().batch_images.observe(len(latents))
            with metrics().model_seconds.time():
                images = self._generator.decode(latents, np.concatenate(labels) if labels else None)
        except Exception as error:  # of onnxruntime's: it is the requests' whose rows were in the run
            with self._lock:
                for job, _ in run:
                    self._end(job, error)
            return
        at = 0
        for job, rows in run:
            n = rows.stop - rows.start
            job.images[rows] = images[at : at + n]
            at += n
        with self._lock:  # another run may be making the rest of a job
            for job, rows in run:
                job.made += rows.stop - rows.start
                if job.ended:
                    job.woken.set()

    def _end(self, job: _Job, error: BaseException) -> None:
        job.error = job.error or error
        job.woken.set()

    def _drop(self, job: _Job) -> None:
        self._wait_for(job.taken - len(job.latents))

    def _wait_for(self, rows: int) -> None:
        self._waiting += rows
        metrics().waiting_images.inc(rows)
