"""HTTP client whose requests arrive at given times, whether or not earlier requests have been answered."""

import asyncio
import math
import selectors
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import httptools
import numpy as np

MAX_CONNECTIONS = 900
"""Maximum number of connections. select(), whose timeouts are exact, takes at most 1,024 file descriptors."""
DRAIN_SECONDS = 60
"""Maximum time to wait for the responses after the last arrival."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Sample:
    """One request and its response. Times are those of the event loop's clock, in seconds."""

    arrived: float
    """Time for which the request was planned. Its latency counts from here, even if it had to wait for a connection."""
    finished: float
    status: int
    """Status code; 0 if the connection was closed before the response was complete."""
    retry_after: bool
    """Whether the response has a header Retry-After."""

    @property
    def seconds(self) -> float:
        return self.finished - self.arrived


class _Connection(asyncio.Protocol):
    """A persistent connection with one request in progress at a time."""

    def __init__(self, client: "Client"):
        self._client = client
        self._arrived = math.nan

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def send(self, arrived: float) -> None:
        self._arrived, self._retry_after = arrived, False
        self._parser = httptools.HttpResponseParser(self)
        self._transport.write(self._client.request)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._retry_after |= name.lower() == b"retry-after"

    def on_message_complete(self) -> None:
        self._finish(self._parser.get_status_code())
        self._client.release(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._client.forget(self)
        if not math.isnan(self._arrived):
            self._finish(0)

    def _finish(self, status: int) -> None:
        sample = Sample(self._arrived, self._client.loop.time(), status, self._retry_after)
        self._arrived = math.nan
        self._client.record(sample)


class Client:
    """Sends the same request again and again over as many connections as are needed, up to MAX_CONNECTIONS.

    Args:
        port: TCP port of the server on 127.0.0.1.
        request: head and body of the request.
    """

    def __init__(self, port: int, request: bytes):
        self.request = request
        self.loop = asyncio.get_running_loop()
        self._port = port
        self._idle: list[_Connection] = []
        self._connections: set[_Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._waiting: deque[float] = deque()
        """Arrival times of requests that wait for a connection."""
        self._samples: list[Sample] = []
        self._unfinished = 0
        self._after_response: Callable[[], None] | None = None

    async def closed_loop(self, connections: int, seconds: float) -> list[Sample]:
        """Keeps this number of requests in progress for some seconds, and returns those that are finished."""
        end = self.loop.time() + seconds

        def next_request() -> None:
            if (now := self.loop.time()) < end:
                self._arrive(now)

        self._after_response = next_request
        for _ in range(connections):
            self._arrive(self.loop.time())
        await asyncio.sleep(seconds)
        self._after_response = None
        await self._drain()
        return [sample for sample in self._take_samples() if sample.finished <= end]

    async def open_loop(self, gaps: np.ndarray) -> list[Sample]:
        """Sends one request after each gap, in seconds. Returns all requests, in the order of their responses."""
        for arrival in self.loop.time() + np.cumsum(gaps):
            if (delay := float(arrival) - self.loop.time()) > 0:
                await asyncio.sleep(delay)
            self._arrive(float(arrival))
        await self._drain()
        return self._take_samples()

    def close(self) -> None:
        for connection in list(self._connections):
            connection._transport.abort()

    def release(self, connection: _Connection) -> None:
        """Takes back a connection whose response is complete."""
        if self._waiting:
            connection.send(self._waiting.popleft())
        else:
            self._idle.append(connection)

    def forget(self, connection: _Connection) -> None:
        """Removes a connection that was closed."""
        self._connections.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def record(self, sample: Sample) -> None:
        self._samples.append(sample)
        self._unfinished -= 1
        if self._after_response:
            self._after_response()

    def _arrive(self, arrived: float) -> None:
        self._unfinished += 1
        if self._idle:
            self._idle.pop().send(arrived)
            return
        self._waiting.append(arrived)
        if len(self._connections) + len(self._opening) < MAX_CONNECTIONS:
            task = self.loop.create_task(self._open())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open(self) -> None:
        _, connection = await self.loop.create_connection(lambda: _Connection(self), "127.0.0.1", self._port)
        self._connections.add(connection)
        self.release(connection)

    async def _drain(self) -> None:
        """Waits for all responses.

        Raises:
            TimeoutError: one is missing after DRAIN_SECONDS.
        """
        async with asyncio.timeout(DRAIN_SECONDS):
            while self._unfinished:
                await asyncio.sleep(0.001)

    def _take_samples(self) -> list[Sample]:
        samples, self._samples = self._samples, []
        return samples


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """Runs a coroutine in an event loop whose timers are exact to microseconds.

    Other event loops round the timeouts of epoll up to milliseconds.
    """
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        return runner.run(main)
