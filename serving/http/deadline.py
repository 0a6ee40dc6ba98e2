"""Time limits of one request: for the work, for the client to read the response, and while the client is connected."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from starlette.types import Message, Receive, Send

from serving.http.errors import CLIENT_CLOSED_REQUEST, RequestError

PIECE_BYTES = 256 << 10
"""Responses are sent in pieces of this size. The client must accept each piece within one timeout."""
WATCH_DELAY_SECONDS = 0.05
"""The service looks for a disconnected client only after this time; most responses are complete by then."""


class Deadline:
    """A time limit that can move while its block runs. The block ends with TimeoutError when the time is over.

    Unlike `asyncio.Timeout.reschedule`, `move` does nothing once the time is over. At that moment the block is being
    cancelled, and `reschedule` would raise RuntimeError in the task that calls it.
    """

    def __init__(self, seconds: float):
        self._timeout = asyncio.timeout(seconds)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._timeout.__aexit__(kind, error, traceback)

    def move(self, seconds: float) -> None:
        """Sets the remaining time; 0 ends the block at once."""
        if not self._timeout.expired():
            self._timeout.reschedule(asyncio.get_running_loop().time() + seconds)


class Exchange:
    """One request and its response, with their time limits.

    Args:
        receive, send: The functions of the ASGI server.
        timeout: Seconds for the request body and the work, and then for each piece of the response.
        response_timeout: Seconds for the whole response to be sent.
    """

    def __init__(self, receive: Receive, send: Send, timeout: float, response_timeout: float):
        self.deadline = Deadline(timeout)
        self.body_arrived = False
        self.response_started = False
        self._receive = receive
        self._send = send
        self._timeout = timeout
        self._response_timeout = response_timeout
        self._disconnected = False

    @contextmanager
    def cancel_on_disconnect(self) -> Iterator[None]:
        """Ends the block of `deadline` when the client disconnects. The request body must have been read before."""
        watcher: asyncio.Task[None] | None = None

        async def watch() -> None:
            while (await self._receive())["type"] != "http.disconnect":
                pass
            self._disconnected = True
            self.deadline.move(0)

        def start() -> None:
            nonlocal watcher
            watcher = asyncio.get_running_loop().create_task(watch())

        timer = asyncio.get_running_loop().call_later(WATCH_DELAY_SECONDS, start)
        try:
            yield
        finally:
            timer.cancel()
            if watcher:
                watcher.cancel()

    async def send(self, message: Message) -> None:
        """Sends a message of the response in pieces. The deadline moves with every piece that the client accepts."""
        self.response_started = True
        body = memoryview(message.get("body", b""))
        if len(body) <= PIECE_BYTES:
            await self._send(message)
            return
        now = asyncio.get_running_loop().time
        end = now() + self._response_timeout
        for start in range(0, len(body), PIECE_BYTES):
            self.deadline.move(min(self._timeout, end - now()))
            more = start + PIECE_BYTES < len(body) or message.get("more_body", False)
            await self._send({**message, "body": body[start : start + PIECE_BYTES], "more_body": more})

    def expired(self) -> RequestError:
        """Returns the error for a request whose deadline has expired."""
        if self._disconnected:  # the client does not read it, but metrics and logs count it
            return RequestError(CLIENT_CLOSED_REQUEST, "The client disconnected")
        if not self.body_arrived:
            return RequestError(504, f"The body of the request did not arrive within {self._timeout:g} s")
        return RequestError(504, f"The request took longer than {self._timeout:g} s; ask for less, or try again later")
