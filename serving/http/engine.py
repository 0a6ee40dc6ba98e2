"""Dynamic batching: decodes the latents of all requests of a process in batches that requests share.

Small requests are decoded on the event loop, in one batch with others of the same iteration of the loop, because a
hand-over to a thread and back would take longer than decoding. Larger requests are split into batches for engine
threads. Batches take rows from the queued requests round-robin, so a large request does not delay a small one. A batch
starts immediately, even if it is not full. Images do not depend on their batch; `models.export.parity` checks this for
every exported file.
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
from models.onnx_file.latent_sources import LatentBatch
from serving.http.errors import RequestError
from serving.http.loaded_model import LoadedModel

BUSY_SHARE = 1 / 4
"""Share of `LoadedModel.max_inline_images` for one request while engine threads are busy or other requests are decoded
inline."""

Finish = Callable[[Images, Labels], Any]
"""Makes the result of a request, such as the body of its response, from its images and labels."""


class LatentSource(Protocol):
    """Latents and labels of one request. They are given by the client, or drawn from a seed when they are needed."""

    def __len__(self) -> int: ...

    def rows(self, start: int, stop: int) -> tuple[NDArray[np.float32], Labels]:
        """Returns latents float32 (stop - start, D) and labels int64 (stop - start,) or None. Must be thread-safe."""


class _Request:
    """One request in the engine, and the images that have been decoded for it."""

    def __init__(
        self, model: LoadedModel, source: LatentSource, finish: Finish, in_thread: bool, future: asyncio.Future[Any]
    ):
        self.model = model
        self.source = source
        self.finish_in_thread = in_thread
        self.future = future
        self.size = len(source)
        self.queued_at = time.perf_counter()
        self.taken = 0
        """Number of rows that have been assigned to batches."""
        self._finish = finish
        self._images: Images | None = None
        self._labels: Labels = None
        self._decoded = 0
        self._lock = threading.Lock()
        self._result: Any = None
        self._error: Exception | None = None
        self._finished = False

    def store(self, start: int, images: Images, labels: Labels) -> bool:
        """Stores decoded rows. Returns whether all rows of the request have been decoded. Safe to call in any thread.

        Args:
            start: index of the first row in the request.
        """
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
        """Calls the finish function for all images and labels. An exception fails this request only."""
        assert self._images is not None
        try:
            self._result = self._finish(self._images, self._labels)
        except Exception as error:
            self._error = error
        self._finished = True

    def fail(self, error: Exception) -> None:
        """Fails the request with an exception."""
        self._error = error
        self._finished = True

    def deliver(self) -> None:
        """Sets the result or the exception of the future, unless the request was cancelled. Runs on the event loop."""
        if self.future.done():
            return
        if not self._finished:
            self.finish()
        if self._error:
            self.future.set_exception(self._error)
        else:
            self.future.set_result(self._result)


_Batch = list[tuple[_Request, int, int]]
"""Rows of one run of a network: each request in the batch, with the range (start, stop) of its rows. All requests are
for the same model."""


def _pair(images: Images, labels: Labels) -> tuple[Images, Labels]:
    return images, labels


class Engine:
    """Decodes the latents of all requests of one process, for all its models. Its public methods must be called on the
    event loop.

    Args:
        threads: number of batches to decode in parallel, usually one for each core.
        max_queued_images: maximum number of images in the queue. If the queue is empty, a single request may exceed it.
    """

    def __init__(self, threads: int, max_queued_images: int):
        self._max_queued = max_queued_images
        # Without the additional thread, a core would idle until the event loop has started the next batch.
        self._threads = self._idle_threads = threads + 1
        self._pool = ThreadPoolExecutor(self._threads, "engine")
        self._inline: list[_Request] = []
        """Requests that will be decoded on the event loop in its next iteration."""
        self._queue: deque[_Request] = deque()
        """Requests with rows that have not been assigned to a batch."""
        self._queued_images = 0

    @property
    def queued_images(self) -> int:
        """Number of images that have not been assigned to a batch."""
        return self._queued_images

    async def decode(
        self, model: LoadedModel, source: LatentSource, finish: Finish = _pair, in_thread: bool = False
    ) -> Any:
        """Decodes all latents of a request. If the task is cancelled, its remaining rows are not decoded.

        Args:
            model: the model that decodes them.
            source: the latents and labels.
            finish: function of images uint8 (n, channels, height, width) and labels int64 (n,) or None. It returns the
                result. By default the result is the pair of images and labels.
            in_thread: if True, `finish` runs in the engine thread that decodes the last rows, and may take tens of
                milliseconds. If False, it runs on the event loop, for all requests of a batch in a row. This takes a
                third less time than in the tasks of the requests, because code and data stay in the processor's
                caches.

        Returns:
            the result of `finish`.

        Raises:
            RequestError: 429 if too many images are queued.
        """
        n = len(source)
        if self._queued_images and self._queued_images + n > self._max_queued:
            raise RequestError(429, f"{self._queued_images:,} images are queued already; try again in a moment")
        loop = asyncio.get_running_loop()
        request = _Request(model, source, finish, in_thread, loop.create_future())
        if not in_thread and self._fits_inline(model, n):
            self._inline.append(request)
            if len(self._inline) == 1:
                loop.call_soon(self._decode_inline)
            return await request.future
        if n <= model.max_inline_images:
            # Draw the latents now: in a thread, each of a dozen short NumPy calls would have to wait for the GIL.
            request.source = LatentBatch(*source.rows(0, n))
        self._queue.append(request)
        self._change_queued(model, n)
        self._start_batches()
        try:
            return await request.future
        finally:
            self._change_queued(model, request.taken - n)
            request.taken = n

    def _fits_inline(self, model: LoadedModel, n: int) -> bool:
        """Returns whether n images of a model are decoded on the event loop rather than in an engine thread.

        Their number may be at most `model.max_inline_images`, or BUSY_SHARE of it while engine threads are
        busy or other requests are to be decoded inline. Requests whose encoding runs in an engine thread are never
        decoded inline; `decode` does not call this method for them.
        """
        alone = self._idle_threads == self._threads and not self._inline
        return n <= model.max_inline_images * (1 if alone else BUSY_SHARE)

    def _decode_inline(self) -> None:
        """Decodes small requests as one batch on the event loop. Those that do not fit follow in its next iteration."""
        batch: _Batch = []
        later = []
        model = self._inline[0].model
        room = model.max_inline_images
        for request in self._inline:
            if request.future.done():
                continue
            if request.model is model and request.size <= room:
                batch.append(self._take(request, request.size))
                room -= request.size
            else:
                later.append(request)
        self._inline = later
        if batch:
            self._deliver(self._decode_batch(batch))
        if self._inline:
            asyncio.get_running_loop().call_soon(self._decode_inline)

    def _start_batches(self) -> None:
        """Starts batches in engine threads until no thread is idle or no rows are queued."""
        loop = asyncio.get_running_loop()
        while self._idle_threads and (batch := self._next_batch()):
            self._idle_threads -= 1
            loop.run_in_executor(self._pool, self._decode_batch, batch).add_done_callback(self._end_batch)

    def _end_batch(self, complete: asyncio.Future[list[_Request]]) -> None:
        """Runs on the event loop after an engine thread has decoded a batch."""
        self._idle_threads += 1
        self._start_batches()
        self._deliver(complete.result())

    @staticmethod
    def _deliver(complete: list[_Request]) -> None:
        for request in complete:
            request.deliver()

    def _next_batch(self) -> _Batch:
        """Takes the next batch from the queue, round-robin over requests. Returns an empty list if no rows are queued.

        The first request decides for which model the batch is; requests for other models keep their places.
        When few rows are queued, they are split evenly across the idle threads.
        """
        batch: _Batch = []
        others: list[_Request] = []
        queued = sum(request.size - request.taken for request in self._queue)
        share = -(-queued // max(1, self._idle_threads - 1))
        model, room = None, 1
        while self._queue and room:
            request = self._queue.popleft()
            if request.future.done():
                continue
            if model is None:
                model = request.model
                room = min(model.generator.rows_per_run, max(1, model.max_inline_images, share))
            elif request.model is not model:
                others.append(request)
                continue
            n = request.size - request.taken
            if batch and room < n <= model.max_inline_images:  # splitting so few rows costs more than it gains
                self._queue.appendleft(request)
                break
            n = min(n, room)
            batch.append(self._take(request, n))
            self._change_queued(model, -n)
            room -= n
            if request.taken < request.size:
                self._queue.append(request)
        self._queue.extendleft(reversed(others))
        return batch

    @staticmethod
    def _take(request: _Request, n: int) -> tuple[_Request, int, int]:
        """Assigns the next n rows of a request to a batch. Returns the request and the range of its rows."""
        if not request.taken:
            request.model.queue_seconds.observe(time.perf_counter() - request.queued_at)
        start = request.taken
        request.taken += n
        return request, start, request.taken

    def _decode_batch(self, batch: _Batch) -> list[_Request]:
        """Decodes one batch. Returns the requests that are complete now. Safe to call in any thread."""
        model = batch[0][0].model
        try:
            images, labels = self._run(model, [request.source.rows(start, stop) for request, start, stop in batch])
        except Exception as error:
            for request, _, _ in batch:
                request.fail(error)
            return [request for request, _, _ in batch]
        complete: list[_Request] = []
        end = 0
        for request, start, stop in batch:
            rows = slice(end, end := end + stop - start)
            if (
                request.store(start, images[rows], None if labels is None else labels[rows])
                and not request.future.done()
            ):
                if request.finish_in_thread:
                    request.finish()
                complete.append(request)
        return complete

    @staticmethod
    def _run(model: LoadedModel, rows: list[tuple[NDArray[np.float32], Labels]]) -> tuple[Images, Labels]:
        """Runs the network of a model once for the latents and labels of all requests in a batch.

        Returns:
            the images and labels of the whole batch.
        """
        if len(rows) == 1:
            ((latents, labels),) = rows
        else:
            latents = np.concatenate([latents for latents, _ in rows])
            conditional = model.card.conditional
            labels = np.concatenate([labels for _, labels in rows if labels is not None]) if conditional else None
        model.batch_images.observe(len(latents))
        with model.model_seconds.time():
            return model.generator.decode(latents, labels), labels

    def _change_queued(self, model: LoadedModel, images: int) -> None:
        self._queued_images += images
        model.queued_images.inc(images)
