"""uvicorn's HTTP connection with limits of the request head, of the time that it may take, and of the number of
connections.

The methods without an underscore override those of uvicorn, and run for every request.
"""

import asyncio
import logging
import sys
import time
from typing import Any, ClassVar

from httptools import HttpParserCallbackError
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from serving.http.errors import ABORT, RequestError

logger = logging.getLogger("bentoml.mnist-gan")

MAX_HEAD_BYTES = 64 << 10
"""Limit of a request head, and of what a chunked body may have between two pieces of content: extensions, trailers."""
MAX_FIELDS = 100
"""Limit of the header fields of a request, and of its trailers."""
MAX_DISCARDED_BYTES = 32 << 20
"""Limit of the bytes of a body that arrive after its response. Clients that send a body before they read the response
can use their connection again up to this limit."""
MAX_PIPELINED = 100
"""Requests that may arrive on a connection before the one that is being answered is finished. Each takes some 3 KiB."""
SLICE = 16 << 10
"""Bytes that are parsed at a time. The limits are checked after each."""
LINGER_SECONDS = 1.0
"""Time for a client to read an error before its connection is closed. Closing it while the client is still sending
would reset the connection, and the client might lose the error."""
LOG_SECONDS = 60.0
"""Time between two log lines about too many connections."""


class LimitedProtocol(HttpToolsProtocol):
    """A connection. While it has no request in progress, a timer closes it: uvicorn's keep-alive timer, or, from the
    first byte that arrives, the one for the head."""

    head_seconds: ClassVar[float] = 10.0
    """Time that a client may take to send a request head."""
    max_connections: ClassVar[int] = 1 << 30
    """Limit of the connections of this process."""
    idle: ClassVar[dict["LimitedProtocol", None]] = {}
    """Connections without a request in progress. The one that has been idle longest is first."""
    slow: ClassVar[dict["LimitedProtocol", None]] = {}
    """Connections whose client has not sent the body, or not read the response. The slowest one is first."""
    logged: ClassVar[float] = float("-inf")
    """Time of the last log line about too many connections."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.ws_protocol_class = None  # the service has no WebSockets, and their connections would not be limited
        self.headers = []
        self._unused = 0
        """Bytes since the head began, or since the last content of the body."""
        self._discarded = 0
        """Bytes of the body that arrived after the response."""
        self._timer: asyncio.TimerHandle | None = None
        self._refusal: tuple[int, str] | None = None
        """Status and message of the error that ends the connection. What arrives after it is discarded."""

    @classmethod
    def missing_in_uvicorn(cls) -> list[str]:
        """Methods that this class overrides and uvicorn does not have."""
        own = ("missing_in_uvicorn",)
        methods = [name for name, value in vars(cls).items() if callable(value) and not name.startswith("_")]
        return [name for name in methods if name not in own and not hasattr(HttpToolsProtocol, name)]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.max_connections and self._make_room() is self:
            return
        self.idle[self] = None
        self._start_timer(self.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.idle.pop(self, None)
        self.slow.pop(self, None)
        self._stop_timer()

    def data_received(self, data: bytes) -> None:
        if len(data) <= SLICE and self._unused + len(data) <= MAX_HEAD_BYTES and self._refusal is None:
            self._unused += len(data)
            super().data_received(data)
            if len(self.headers) > MAX_FIELDS:
                self._refuse_fields()
        else:
            self._receive_slices(data)
            return
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            if self._timer is None:
                self._start_timer(self.head_seconds)
        elif cycle.more_body:
            self.slow.setdefault(self)
        else:
            self.slow.pop(self, None)

    def send_400_response(self, msg: str) -> None:
        error = sys.exception()
        reason = "" if error is None or isinstance(error, HttpParserCallbackError) else f": {error}"
        self._refuse(400, f"The request is not valid HTTP/1.1{reason}")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {ABORT: {"abort": self.transport.abort}}

    def on_headers_complete(self) -> None:
        if len(self.headers) > MAX_FIELDS:
            self._refuse_fields()
        elif len(self.pipeline) >= MAX_PIPELINED:
            self._refuse(429, f"At most {MAX_PIPELINED} requests may be pipelined")
        if self._refusal:
            raise ValueError  # it stops the parser
        super().on_headers_complete()
        self.headers = []  # trailers would be appended to the header fields, which the application keeps
        self._unused = self._discarded = 0
        self.idle.pop(self, None)
        if self._timer is not None:
            self._stop_timer()

    def on_body(self, body: bytes) -> None:
        self._unused = 0
        super().on_body(body)
        if self.cycle.response_complete:  # nobody reads it any more
            self._discarded += len(body)
            if self._discarded > MAX_DISCARDED_BYTES:
                self._refuse(413, f"More than {MAX_DISCARDED_BYTES:,} bytes of the body arrived after the response")

    def on_response_complete(self) -> None:
        super().on_response_complete()
        cycle = self.cycle
        if not cycle.response_complete:  # the next request is in progress
            return
        self.slow.pop(self, None)
        self.idle[self] = None
        if self._refusal:
            self._send_refusal(*self._refusal)
        elif cycle.scope is not self.scope:  # the next head has begun
            self._start_timer(self.head_seconds)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.slow.setdefault(self)

    def resume_writing(self) -> None:
        super().resume_writing()
        self.slow.pop(self, None)

    def _receive_slices(self, data: bytes) -> None:
        start = 0
        while start < len(data) and self._refusal is None and not self.transport.is_closing():
            size = min(SLICE, MAX_HEAD_BYTES - self._unused)
            if not size:
                part = "The head of a request" if self._in_head() else "What surrounds the content of a chunked body"
                self._refuse(431, f"{part} may have at most {MAX_HEAD_BYTES:,} bytes")
                return
            self.data_received(data[start : start + size])
            start += size

    def _in_head(self) -> bool:
        """Whether a part of a head has arrived. uvicorn makes a scope when a head begins, and a cycle when it ends."""
        return self.scope is not None and (self.cycle is None or self.cycle.scope is not self.scope)

    def _refuse_fields(self) -> None:
        self._refuse(431, f"A request may have at most {MAX_FIELDS} header fields, and as many trailers")

    def _refuse(self, status: int, message: str) -> None:
        """Closes the connection, with an error if the client waits for a response, after the responses to the requests
        before it."""
        if self._refusal:
            return
        self._refusal = status, message
        cycle = self.cycle
        if self._in_head():
            if cycle is None or cycle.response_complete:
                self._send_refusal(status, message)
        elif cycle is not None and cycle.more_body and not cycle.response_started and not self.pipeline:
            cycle.disconnected = True  # the application still waits for the body
            cycle.waiting_for_100_continue = False
            cycle.message_event.set()
            self._send_refusal(status, message)
        elif cycle is not None and cycle.response_complete:
            self._linger()
        else:
            self.transport.close()

    def _send_refusal(self, status: int, message: str) -> None:
        if self.transport.is_closing():
            return
        response = RequestError(status, message).response()
        headers = [*self.server_state.default_headers, *response.raw_headers, (b"connection", b"close")]
        lines = [b"%b: %b\r\n" % field for field in headers]
        self.transport.write(b"".join((STATUS_LINE[status], *lines, b"\r\n", response.body)))
        self._linger()

    def _linger(self) -> None:
        """Closes the connection after the client has had time to read the response. Until then, what it sends is
        discarded."""
        if self.transport.can_write_eof():  # TLS cannot
            self.transport.write_eof()
        self._start_timer(LINGER_SECONDS)

    def _unsupported_upgrade_warning(self) -> None:
        """Ignores the field `Upgrade`, as RFC 9110 allows, without uvicorn's two log lines for each request."""

    def _start_timer(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, self._time_out)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time_out(self) -> None:
        if self._refusal:
            self.transport.close()
        else:
            self._refuse(408, f"The head of the request did not arrive within {self.head_seconds:g} s")

    def _make_room(self) -> "LimitedProtocol":
        """Closes the connection that has been idle longest, or else the slowest, or else this one; returns it."""
        if (now := time.monotonic()) > LimitedProtocol.logged + LOG_SECONDS:
            LimitedProtocol.logged = now
            logger.warning(
                "more than %d connections: those that have been idle longest are closed", self.max_connections
            )
        closed = next(iter(self.idle or self.slow), self)
        self.idle.pop(closed, None)
        self.slow.pop(closed, None)
        self.connections.discard(closed)  # its descriptor is closed in the next turn of the event loop
        closed.transport.abort()
        return closed
