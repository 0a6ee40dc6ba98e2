"""Runs the network for all requests of a process, in batches that requests share.

Small requests are decoded on the event loop, together with those that arrived in the same turn of the loop, because a
hand-over to a thread and back would take longer than the work. Larger requests are split into batches that worker
threads decode. The batches take rows from the queued requests in turn, so that a large request does not delay a small
one. No request waits for others to fill its batch. Images do not depend on the batch that they are decoded in
(`models.export.parity` checks this for every exported file).
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.common.array_types import Images, Labels
from models.onnx_file.generator import Generator
from models.onnx_file.latent_sources import LatentBatch
from serving.http.errors import RequestError
from serving.http.metrics import metrics

INLINE_BUDGET_SECONDS = 0.001
"""Longest time for which decoding may block the event loop."""
BUSY_SHARE = 1 / 4
"""Share of that time that one request may use while worker threads are busy."""

Finish = Callable[[Images, Labels], Any]


class LatentSource(Protocol):
    """Latents and labels of one request: given, or drawn when they are needed."""

    def __len__(self) -> int: ...

    def rows(self, start: int, stop: int) -> tuple[NDArray[np.float32], Labels]:
        """Returns latents float32 (stop - start, D) and labels int64 (stop - start,) or None, in any thread."""


class _Job:
    """One request: its source, and the images that have been decoded so far."""

    def __init__(self, source: LatentSource, finish: Finish, in_thread: bool, future: asyncio.Future[Any]):
        self.source = source
        self.finish_in_thread = in_thread
        self.future = future
        self.size = len(source)
        self.queued_at = time.perf_counter()
        self.taken = 0
        """Number of rows that belong to a batch already."""
        self._finish = finish
        self._images: Images | None = None
        self._labels: Labels = None
        self._decoded = 0
        self._lock = threading.Lock()
        self._result: Any = None
        self._error: Exception | None = None
        self._finished = False

    def store(self, start: int, images: Images, labels: Labels) -> bool:
        """Stores decoded rows. Returns whether all rows of the request are there now. Called from any thread."""
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
            self._decoded += len(images)
            return self._decoded == self.size

    def finish(self) -> None:
        """Makes the result from all images and labels. An exception concerns this request only."""
        assert self._images is not None
        try:
            self._result = self._finish(self._images, self._labels)
        except Exception as error:
            self._error = error
        self._finished = True

    def fail(self, error: Exception) -> None:
        """Ends the request with an exception."""
        self._error = error
        self._finished = True

    def deliver(self) -> None:
        """Completes the future. Called on the event loop; the client may have disconnected in the meantime."""
        if self.future.done():
            return
        if not self._finished:
            self.finish()
        if self._error:
            self.future.set_exception(self._error)
        else:
            self.future.set_result(self._result)


_Batch = list[tuple[_Job, int, int]]
"""Jobs, and the range of rows (start, stop) of each."""


def _pair(images: Images, labels: Labels) -> tuple[Images, Labels]:
    return images, labels


class Engine:
    """Decodes the latents of all requests of one event loop.

    Args:
        generator: The model.
        threads: Number of batches that are decoded at the same time.
        max_queued_images: Largest number of images in the queue. A single request may exceed it.
    """

    def __init__(self, generator: Generator, threads: int, max_queued_images: int):
        self._generator = generator
        self._max_queued = max_queued_images
        # One thread more than batches can run: otherwise a core would idle until the loop starts the next batch.
        self._threads = self._idle_threads = threads + 1
        self._pool = ThreadPoolExecutor(self._threads, "engine")
        self._inline: deque[_Job] = deque()
        """Requests that the event loop decodes at the end of this turn."""
        self._queue: deque[_Job] = deque()
        """Requests with rows that belong to no batch yet."""
        self._queued_images = 0
        self._max_inline_images = min(
            generator.rows_per_run, int(INLINE_BUDGET_SECONDS / _seconds_per_image(generator))
        )

    @property
    def queued_images(self) -> int:
        """Number of images that belong to no batch yet."""
        return self._queued_images

    async def decode(self, source: LatentSource, finish: Finish = _pair, in_thread: bool = False) -> Any:
        """Decodes all latents of a request. If its task is cancelled, the rest of its rows is not decoded.

        Args:
            source: The latents and labels.
            finish: Makes the result from images uint8 (n, channels, height, width) and labels int64 (n,) or None.
            in_thread: Whether the worker thread that decodes the last rows calls `finish`, which may then take tens of
                milliseconds. Otherwise the event loop calls it for one request of a batch after the other, which takes
                a third less time than in their tasks, as the processor's caches hold its code and data.

        Returns:
            The result of `finish`, by default the images and labels.

        Raises:
            RequestError: 429, too many images are queued.
        """
        n = len(source)
        if self._queued_images and self._queued_images + n > self._max_queued:
            raise RequestError(429, f"{self._queued_images:,} images are queued already; try again in a moment")
        loop = asyncio.get_running_loop()
        job = _Job(source, finish, in_thread, loop.create_future())
        if not in_thread and self._fits_inline(n):
            self._inline.append(job)
            if len(self._inline) == 1:
                loop.call_soon(self._decode_inline)
            return await job.future
        if n <= self._max_inline_images:
            # In a worker thread, each of the dozen short NumPy calls would wait for the event loop to release the GIL.
            job.source = LatentBatch(*source.rows(0, n))
        self._queue.append(job)
        self._change_queued(n)
        self._start_batches()
        try:
            return await job.future
        finally:
            self._change_queued(job.taken - n)
            job.taken = n

    def _fits_inline(self, n: int) -> bool:
        """Returns whether decoding n images on the event loop stays within INLINE_BUDGET_SECONDS.

        A request has only a part of that time while threads are busy or others are decoded inline in the same turn.
        """
        alone = self._idle_threads == self._threads and not self._inline
        return n <= self._max_inline_images * (1 if alone else BUSY_SHARE)

    def _decode_inline(self) -> None:
        """Decodes small requests as one batch on the event loop. The rest waits for the next turn of the loop."""
        batch: _Batch = []
        room = self._max_inline_images
        while self._inline and self._inline[0].size <= room:
            job = self._inline.popleft()
            if not job.future.done():
                batch.append(self._take(job, job.size))
                room -= job.size
        if batch:
            self._deliver(self._decode_batch(batch))
        if self._inline:
            asyncio.get_running_loop().call_soon(self._decode_inline)

    def _start_batches(self) -> None:
        loop = asyncio.get_running_loop()
        while self._idle_threads and (batch := self._next_batch()):
            self._idle_threads -= 1
            loop.run_in_executor(self._pool, self._decode_batch, batch).add_done_callback(self._end_batch)

    def _end_batch(self, complete: asyncio.Future[list[_Job]]) -> None:
        self._idle_threads += 1
        self._start_batches()
        self._deliver(complete.result())

    @staticmethod
    def _deliver(complete: list[_Job]) -> None:
        for job in complete:
            job.deliver()

    def _next_batch(self) -> _Batch:
        """Takes the next batch from the queue, in turn over the requests.

        When few rows are queued, they are split evenly across the idle threads.
        """
        batch: _Batch = []
        queued = sum(job.size - job.taken for job in self._queue)
        room = min(
            self._generator.rows_per_run, max(1, self._max_inline_images, -(-queued // max(1, self._idle_threads - 1)))
        )
        while self._queue and room:
            job = self._queue.popleft()
            if job.future.done():
                continue
            n = job.size - job.taken
            if batch and room < n <= self._max_inline_images:  # too few rows to be worth a split
                self._queue.appendleft(job)
                break
            n = min(n, room)
            batch.append(self._take(job, n))
            self._change_queued(-n)
            room -= n
            if job.taken < job.size:
                self._queue.append(job)
        return batch

    @staticmethod
    def _take(job: _Job, n: int) -> tuple[_Job, int, int]:
        """Assigns the next n rows of a request to a batch."""
        if not job.taken:
            metrics().queue_seconds.observe(time.perf_counter() - job.queued_at)
        start = job.taken
        job.taken += n
        return job, start, job.taken

    def _decode_batch(self, batch: _Batch) -> list[_Job]:
        """Decodes one batch. Returns the requests that are complete with it. Called from any thread."""
        try:
            images, labels = self._run([job.source.rows(start, stop) for job, start, stop in batch])
        except Exception as error:
            for job, _, _ in batch:
                job.fail(error)
            return [job for job, _, _ in batch]
        complete: list[_Job] = []
        end = 0
        for job, start, stop in batch:
            rows = slice(end, end := end + stop - start)
            if job.store(start, images[rows], None if labels is None else labels[rows]) and not job.future.done():
                if job.finish_in_thread:
                    job.finish()
                complete.append(job)
        return complete

    def _run(self, rows: list[tuple[NDArray[np.float32], Labels]]) -> tuple[Images, Labels]:
        """Runs the network once. Returns the images and labels of all rows."""
        if len(rows) == 1:
            ((latents, labels),) = rows
        else:
            latents = np.concatenate([latents for latents, _ in rows])
            conditional = self._generator.card.conditional
            labels = np.concatenate([labels for _, labels in rows if labels is not None]) if conditional else None
        metrics().batch_images.observe(len(latents))
        with metrics().model_seconds.time():
            return self._generator.decode(latents, labels), labels

    def _change_queued(self, images: int) -> None:
        self._queued_images += images
        metrics().waiting_images.inc(images)


def _seconds_per_image(generator: Generator) -> float:
    """Measures drawing and decoding in a small batch."""
    n, seconds = 16, []
    for _ in range(3):
        start = time.perf_counter()
        generator.images(0, 0, n)
        seconds.append(time.perf_counter() - start)
    return min(seconds) / n
