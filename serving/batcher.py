"""Shares runs of the network among requests that come at the same time.

What is small enough to be made in a moment is made on the event loop, there and then, with whoever else came in the
same turn of it: to hand it to a thread and back would cost more than the images do. Anything larger is cut into shares,
and threads make them, a share of each in its turn, so that a large request starves nobody; an answer that takes long to
encode is encoded by the thread that makes the last of its shares. On an idle machine nobody waits for company. Rows do
not depend on their neighbours (`models.gate` proves it for every file), so an image is the same whichever run it is
made in.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from models.artifact import Generator, Given, Images
from serving.errors import OverloadedError
from serving.metrics import metrics

MOMENT = 0.001
"""Seconds for which the event loop may be held up to make images on it."""
BESIDE_OTHERS = 1 / 4
"""The part of it that the images of one request may take while threads make others: more is better made by them."""

Labels = NDArray[np.int64] | None
T = TypeVar("T")


class Source(Protocol):
    """Latents and labels: an array's, or drawn when they are needed."""

    def __len__(self) -> int: ...

    def rows(self, start: int, stop: int) -> tuple[NDArray[np.float32], Labels]:
        """Called in whichever thread makes the run."""


class _Job:
    """A request's rows, what has been made of them, and the answer that they are for."""

    def __init__(
        self, source: Source, encode: Callable[[Images, Labels], Any], heavy: bool, answer: asyncio.Future[Any]
    ):
        self.source = source
        self.size = len(source)
        self.heavy = heavy
        self.answer = answer
        self.since = time.perf_counter()
        self.taken = 0
        """Rows that are made, or being made."""
        self._encode = encode
        self._images: Images | None = None
        self._labels: Labels = None
        self._made = 0
        self._lock = threading.Lock()

    def keep(self, start: int, images: Images, labels: Labels) -> bool:
        """Rows from `start` on, from any thread; whether they were the last that were missing."""
        if len(images) == self.size:
            self._images, self._labels = images, labels
            return True
        with self._lock:
            if self._images is None:
                self._images = np.empty((self.size, *images.shape[1:]), np.uint8)
                self._labels = None if labels is None else np.empty(self.size, np.int64)
        rows = slice(start, start + len(images))
        self._images[rows] = images
        if self._labels is not None and labels is not None:
            self._labels[rows] = labels
        with self._lock:
            self._made += len(images)
            return self._made == self.size

    def encoded(self) -> Callable[[], None]:
        """Encodes the images, which are all there; what is left to do, on the loop."""
        assert self._images is not None
        try:
            return partial(self._tell, self._encode(self._images, self._labels))
        except Exception as error:
            return partial(self.fail, error)

    def encode(self) -> None:
        """As `encoded`, all of it on the loop."""
        self.encoded()()

    def _tell(self, answer: Any) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)

    def fail(self, error: BaseException) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


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
        # One more than can run, or a processor would wait for the loop between two runs.
        self._all = self._free = runs + 1
        self._threads = ThreadPoolExecutor(self._all, "batcher")
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

    async def decode(self, source: Source, encode: Callable[[Images, Labels], T], heavy: bool = False) -> T:
        """What `encode` makes of a source's images, uint8 (n, channels, height, width), and labels, int64 (n,) or None.

        Once its task is cancelled, what is left is not made.

        Args:
            heavy: `encode` would hold up the event loop: the thread that makes the last images calls it.

        Raises:
            OverloadedError: too much waits already.
        """
        n = len(source)
        if self._waiting and self._waiting + n > self._max_waiting:
            raise OverloadedError(f"{self._waiting:,} images wait to be made already; come back in a moment")
        loop = asyncio.get_running_loop()
        job = _Job(source, encode, heavy, loop.create_future())
        alone = self._free == self._all and not self._small
        if n <= self._most * (1 if alone else BESIDE_OTHERS) and not heavy:
            self._small.append(job)
            if len(self._small) == 1:
                loop.call_soon(self._make_small)
            return await job.answer
        if n <= self._most:  # a thread would wait for the loop's turn to end between any two of a dozen operations
            job.source = Given(*source.rows(0, n))
        self._large.append(job)
        self._wait_for(n)
        self._start_threads()
        try:
            return await job.answer
        finally:
            self._wait_for(job.taken - n)
            job.taken = n

    def _make_small(self) -> None:
        """One run, on the loop; what is left comes after whatever else is ready by now."""
        run: _Run = []
        room = self._most
        while self._small and self._small[0].size <= room:
            job = self._small.popleft()
            if not job.answer.done():
                run.append(self._take(job, job.size))
                room -= job.size
        if run:
            for tell in self._make(run):
                tell()
        if self._small:
            asyncio.get_running_loop().call_soon(self._make_small)

    def _start_threads(self) -> None:
        loop = asyncio.get_running_loop()
        while self._free and (run := self._next_run()):
            self._free -= 1
            loop.run_in_executor(self._threads, self._make, run).add_done_callback(self._ended)

    def _ended(self, made: asyncio.Future[list[Callable[[], None]]]) -> None:
        self._free += 1
        self._start_threads()
        for tell in made.result():
            tell()

    def _next_run(self) -> _Run:
        """Of those that wait, each in its turn; few rows are spread over all threads that are free."""
        run: _Run = []
        rows = sum(job.size - job.taken for job in self._large)
        room = min(self._generator.rows_per_run, max(1, self._most, -(-rows // max(1, self._free - 1))))
        while self._large and room:
            job = self._large.popleft()
            if job.answer.done():
                continue
            n = job.size - job.taken
            if run and room < n <= self._most:  # not worth a cut
                self._large.appendleft(job)
                break
            n = min(n, room)
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

    def _make(self, run: _Run) -> list[Callable[[], None]]:
        """In any thread; what is to be called on the loop then."""
        try:
            images, labels = self._decoded([job.source.rows(start, stop) for job, start, stop in run])
        except Exception as error:  # it is the requests' whose rows were in the run
            return [partial(job.fail, error) for job, _, _ in run]
        whole, at = [], 0
        for job, start, stop in run:
            rows = slice(at, at := at + stop - start)
            if job.keep(start, images[rows], None if labels is None else labels[rows]) and not job.answer.done():
                whole.append(job.encoded() if job.heavy else job.encode)
        return whole

    def _decoded(self, drawn: list[tuple[NDArray[np.float32], Labels]]) -> tuple[Images, Labels]:
        """All of them in one run of the network."""
        if len(drawn) == 1:
            ((latents, labels),) = drawn
        else:
            latents = np.concatenate([latents for latents, _ in drawn])
            conditional = self._generator.card.conditional
            labels = np.concatenate([labels for _, labels in drawn if labels is not None]) if conditional else None
        metrics().batch_images.observe(len(latents))
        with metrics().model_seconds.time():
            return self._generator.decode(latents, labels), labels

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
