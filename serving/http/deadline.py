"""Timeout of one request, and its cancellation when the client disconnects."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from starlette.types import Message, Receive, Send

from serving.http.errors import CLIENT_CLOSED_REQUEST, RequestError

PIECE_BYTES = 256 << 10
"""Size of the pieces in which a response is sent. The client must accept each within one timeout."""
WATCH_DELAY_SECONDS = 0.05
"""Delay before the service watches for a disconnect. Most responses are complete by then and need no task for it."""


class Deadline:
    """A timeout that can be moved while its `async with` block runs. The block raises TimeoutError when it expires.

    Unlike `asyncio.Timeout.reschedule`, `move` does nothing after the timeout has expired. The block is being cancelled
    then, and `reschedule` would raise RuntimeError in the task that calls it.

    Args:
        seconds: time until the block is cancelled.
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
        """Sets the remaining time of the `async with` block in seconds; 0 cancels it.

        Does nothing after the timeout has expired.
        """
        if not self._timeout.expired():
            self._timeout.reschedule(asyncio.get_running_loop().time() + seconds)


class Exchange:
    """One request and its response, with their timeouts.

    Args:
        receive, send: the ASGI functions of the request.
        timeout: seconds to receive the body and compute the response; after that, seconds for each piece of the
            response to be accepted by the client.
        response_timeout: seconds to send the whole response.
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
        """Cancels the block of `deadline` when the client disconnects. The request body must have been read before."""
        watcher: asyncio.Task[None] | None = None

        async def watch() -> None:
            while (await self._receive())["type"] != "http.disconnect":
                pass
            self._disconnected = True
            self.deadline.move(0)

        def start_watching() -> None:
            nonlocal watcher
            watcher = asyncio.get_running_loop().create_task(watch())

        timer = asyncio.get_running_loop().call_later(WATCH_DELAY_SECONDS, start_watching)
        try:
            yield
        finally:
            timer.cancel()
            if watcher:
                watcher.cancel()

    async def send(self, message: Message) -> None:
        """Sends an ASGI message of the response.

        A body of at most PIECE_BYTES is sent within the current deadline. A larger one is sent in pieces, and the
        deadline moves before each piece.
        """
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

    def timeout_error(self) -> RequestError:
        """Returns the error for this request after its deadline has expired: 499 after a disconnect, otherwise 504."""
        if self._disconnected:  # nobody reads this response, but metrics and logs count it
            return RequestError(CLIENT_CLOSED_REQUEST, "The client disconnected")
        if not self.body_arrived:
            return RequestError(504, f"The body of the request did not arrive within {self._timeout:g} s")
        return RequestError(
            504, f"The request took longer than {self._timeout:g} s; request fewer images, or try again later"
        )
