"""Shares runs of the network among requests that come at the same time.

All but the runs themselves happens on the event loop. What is small enough to be made in a moment is made there and
then, with whoever else came in the same turn of the loop: to hand it to a thread and back would cost more than the
images do. Anything larger is cut into shares, and threads make them, a share of each in its turn, so that a large
request starves nobody. On an idle machine nobody waits for company. Rows do not depend on their neighbours
(`models.gate` proves it for every file), so an image is the same whichever run it is made in.
"""

import asyncio
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.artifact import CHUNK, Generator, Images
from serving.errors import OverloadedError
from serving.metrics import metrics

MOMENT = 0.001
"""Seconds for which the event loop may be held up to make images on it."""

Labels = NDArray[np.int64] | None


class Source(Protocol):
    """Latents and labels: an array's, or drawn when they are needed."""

    def __len__(self) -> int: ...

    def rows(self, start: int, stop: int) -> tuple[NDArray[np.float32], Labels]:
        """Called in whichever thread makes the run."""


class _Job:
    """A request's rows, and what has been made of them."""

    def __init__(self, source: Source, done: asyncio.Future[None]):
        self.source = source
        self.size = len(source)
        self.done = done
        self.images: Images | None = None
        self.labels: Labels = None
        self.since = time.perf_counter()
        self.taken = 0
        """Rows that are made, or being made."""
        self.made = 0

    def keep(self, start: int, images: Images, labels: Labels) -> None:
        """From several threads, each with rows of its own."""
        if len(images) == self.size:
            self.images, self.labels = images, labels
            return
        assert self.images is not None
        self.images[start : start + len(images)] = images
        if self.labels is not None and labels is not None:
            self.labels[start : start + len(images)] = labels


_Run = list[tuple[_Job, int, int]]
"""Jobs, and the rows of each, from the first to before the last."""


class Batcher:
    """Decodes for everybody on one event loop."""

    def __init__(self, generator: Generator, runs: int, max_waiting: int):
        """
        Args:
            runs: of the network that may be under way at a time, in threads of their own.
            max_waiting: rows that may wait; one request alone may have more.
        """
        self._generator = generator
        self._max_waiting = max_waiting
        self._free = (
            runs + 1
        )  # one is made ready while all threads are busy, or they would wait for the loop in between
        self._threads = ThreadPoolExecutor(runs, "batcher")
        self._small: deque[_Job] = deque()
        """To be made on the loop, when those that came in the same turn are here."""
        self._large: deque[_Job] = deque()
        """Those with rows that no thread has taken."""
        self._waiting = 0
        self._most = int(MOMENT / _seconds_an_image(generator))
        """Rows that are made in a moment."""

    @property
    def waiting(self) -> int:
        """Rows that no run has taken yet."""
        return self._waiting

    async def decode(self, source: Source) -> tuple[Images, Labels]:
        """Images uint8 (n, channels, height, width), and labels int64 (n,) or None, of a source's rows.

        Once its task is cancelled, what is left is not made.

        Raises:
            OverloadedError: too much waits already.
        """
        n = len(source)
        if self._waiting and self._waiting + n > self._max_waiting:
            raise OverloadedError(f"{self._waiting:,} images wait to be made already; come back in a moment")
        loop = asyncio.get_running_loop()
        job = _Job(source, loop.create_future())
        if n <= self._most:
            self._small.append(job)
            if len(self._small) == 1:
                loop.call_soon(self._make_small)
            await job.done
        else:
            job.images = np.empty((n, *self._generator.card.image_shape), np.uint8)
            job.labels = np.empty(n, np.int64) if self._generator.card.conditional else None
            self._large.append(job)
            self._wait_for(n)
            self._start_threads()
            try:
                await job.done
            finally:
                self._wait_for(job.taken - n)
                job.taken = n
        assert job.images is not None
        return job.images, job.labels

    def _make_small(self) -> None:
        """One run, on the loop; what is left comes after whatever else is ready by now."""
        run: _Run = []
        room = self._most
        while self._small and self._small[0].size <= room:
            job = self._small.popleft()
            if not job.done.done():
                run.append(self._take(job, job.size))
                room -= job.size
        if run:
            try:
                self._make(run)
            except Exception as error:
                self._fail(run, error)
            else:
                self._tell(run)
        if self._small:
            asyncio.get_running_loop().call_soon(self._make_small)

    def _start_threads(self) -> None:
        loop = asyncio.get_running_loop()
        while self._free and (run := self._next_run()):
            self._free -= 1
            loop.run_in_executor(self._threads, self._make, run).add_done_callback(partial(self._ended, run))

    def _ended(self, run: _Run, made: asyncio.Future[None]) -> None:
        self._free += 1
        if error := made.exception():
            self._fail(run, error)
        else:
            self._tell(run)
        self._start_threads()

    def _next_run(self) -> _Run:
        """Of those that wait, each in its turn; few rows are spread over all threads that are free."""
        run: _Run = []
        rows = sum(job.size - job.taken for job in self._large)
        room = min(CHUNK, max(1, self._most, -(-rows // max(1, self._free - 1))))
        while self._large and room:
            job = self._large.popleft()
            if job.done.done():
                continue
            n = min(job.size - job.taken, room)
            run.append(self._take(job, n))
            self._wait_for(-n)
            room -= n
            if job.taken < job.size:
                self._large.append(job)
        return run

    def _take(self, job: _Job, n: int) -> tuple[_Job, int, int]:
        if not job.taken:
            metrics().queue_seconds.observe(time.perf_counter() - job.since)
        start = job.taken
        job.taken += n
        return job, start, job.taken

    def _make(self, run: _Run) -> None:
        drawn = [job.source.rows(start, stop) for job, start, stop in run]
        if len(drawn) == 1:
            ((latents, labels),) = drawn
        else:
            latents = np.concatenate([latents for latents, _ in drawn])
            conditional = self._generator.card.conditional
            labels = np.concatenate([labels for _, labels in drawn if labels is not None]) if conditional else None
        metrics().batch_images.observe(len(latents))
        with metrics().model_seconds.time():
            images = self._generator.decode(latents, labels)
        at = 0
        for (job, start, stop), (_, labels) in zip(run, drawn, strict=True):
            end = at + stop - start
            job.keep(start, images[at:end], labels)
            at = end

    def _tell(self, run: _Run) -> None:
        for job, start, stop in run:
            job.made += stop - start
            if job.made == job.size and not job.done.done():
                job.done.set_result(None)

    def _fail(self, run: _Run, error: BaseException) -> None:
        """It is the requests' whose rows were in the run."""
        for job, _, _ in run:
            if not job.done.done():
                job.done.set_exception(error)

    def _wait_for(self, rows: int) -> None:
        self._waiting += rows  # of what is large: the rest waits for no thread
        metrics().waiting_images.inc(rows)


def _seconds_an_image(generator: Generator) -> float:
    """In a small batch, drawn and made."""
    n, seconds = 16, []
    for _ in range(3):
        start = time.perf_counter()
        generator.images(0, 0, n)
        seconds.append(time.perf_counter() - start)
    return min(seconds) / n
