"""uvicorn's HTTP connection with limits for the size and time of a request head and for the number of connections.

The methods without an underscore override methods of uvicorn and run for every request. Three attributes come from
uvicorn: `scope` is the request whose head began last, `cycle` is the request whose head was completed last, and
`pipeline` has the requests that wait for the responses to earlier ones.
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
"""Maximum size of a request head. In a chunked body, also the maximum size of the extensions and trailers between two
pieces of content."""
MAX_HEADER_FIELDS = 100
"""Maximum number of header fields of a request, and maximum number of its trailers."""
MAX_DISCARDED_BYTES = 32 << 20
"""Maximum number of bytes of a body that may arrive after its response. Up to this limit, a client that sends the whole
body before it reads the response can reuse its connection."""
MAX_PIPELINED = 100
"""Maximum number of requests that wait on a connection behind the one in progress. Each takes about 3 KiB."""
PARSE_BYTES = 16 << 10
"""Maximum number of bytes to parse before the limits are checked again."""
ERROR_READ_SECONDS = 1.0
"""Time that a client has to read an error before its connection is closed. If the connection were closed while the
client is still sending, it would be reset and the client could lose the error."""
LOG_SECONDS = 60.0
"""Minimum time between two log lines about too many connections."""


class LimitedProtocol(HttpToolsProtocol):
    """A connection with limits.

    A timer closes a connection that has no request in progress. A new connection and a request that has begun have
    `head_seconds` for the head. Between two requests, uvicorn's keep-alive timer runs.
    """

    head_seconds: ClassVar[float] = 10.0
    """Time that a client has to send a request head."""
    max_connections: ClassVar[int] = 1 << 30
    """Maximum number of connections of this process."""
    idle_connections: ClassVar[dict["LimitedProtocol", None]] = {}
    """Connections without a request in progress, in the order in which they became idle."""
    waiting_connections: ClassVar[dict["LimitedProtocol", None]] = {}
    """Connections that wait for their client to send the body or to read the response, the longest wait first."""
    last_logged: ClassVar[float] = float("-inf")
    """Monotonic time of the last log line about too many connections, in seconds."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.ws_protocol_class = None  # WebSocket connections would bypass the limits, and the service has none
        self.headers = []
        self._overhead_bytes = 0
        """Number of bytes received since the head began or since the last content of the body."""
        self._discarded_bytes = 0
        """Number of bytes of the body that arrived after the response."""
        self._timer: asyncio.TimerHandle | None = None
        self._final_error: tuple[int, str] | None = None
        """Status and message of the error that ends the connection, or None. Data that arrives later is discarded."""

    @classmethod
    def missing_uvicorn_methods(cls) -> list[str]:
        """Returns the names of the methods that this class overrides but the installed uvicorn does not have."""
        own = ("missing_uvicorn_methods",)
        methods = [name for name, value in vars(cls).items() if callable(value) and not name.startswith("_")]
        return [name for name in methods if name not in own and not hasattr(HttpToolsProtocol, name)]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.max_connections and self._close_one_connection() is self:
            return
        self.idle_connections[self] = None
        self._start_timer(self.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.idle_connections.pop(self, None)
        self.waiting_connections.pop(self, None)
        self._stop_timer()

    def data_received(self, data: bytes) -> None:
        fits = len(data) <= PARSE_BYTES and self._overhead_bytes + len(data) <= MAX_HEAD_BYTES
        if fits and self._final_error is None:
            self._overhead_bytes += len(data)
            super().data_received(data)
            if len(self.headers) > MAX_HEADER_FIELDS:
                self._reject_fields()
        else:
            self._receive_in_slices(data)
            return
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            if self._timer is None:
                self._start_timer(self.head_seconds)
        elif cycle.more_body:
            self.waiting_connections.setdefault(self)
        else:
            self.waiting_connections.pop(self, None)

    def send_400_response(self, msg: str) -> None:
        error = sys.exception()
        reason = "" if error is None or isinstance(error, HttpParserCallbackError) else f": {error}"
        self._reject(400, f"The request is not valid HTTP/1.1{reason}")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {ABORT: {"abort": self.transport.abort}}

    def on_headers_complete(self) -> None:
        if len(self.headers) > MAX_HEADER_FIELDS:
            self._reject_fields()
        elif len(self.pipeline) >= MAX_PIPELINED:
            self._reject(429, f"At most {MAX_PIPELINED} requests may be pipelined; read the responses first")
        if self._final_error:
            raise ValueError  # stops the parser
        super().on_headers_complete()
        self.headers = []  # otherwise trailers would be appended to the header fields that the application reads
        self._overhead_bytes = self._discarded_bytes = 0
        self.idle_connections.pop(self, None)
        if self._timer is not None:
            self._stop_timer()

    def on_body(self, body: bytes) -> None:
        self._overhead_bytes = 0
        super().on_body(body)
        if self.cycle.response_complete:  # the application no longer reads the body
            self._discarded_bytes += len(body)
            if self._discarded_bytes > MAX_DISCARDED_BYTES:
                self._reject(413, f"More than {MAX_DISCARDED_BYTES:,} bytes of the body arrived after the response")

    def on_response_complete(self) -> None:
        super().on_response_complete()
        cycle = self.cycle
        if not cycle.response_complete:  # the next request is in progress
            return
        self.waiting_connections.pop(self, None)
        self.idle_connections[self] = None
        if self._final_error:
            self._send_error(*self._final_error)
        elif cycle.scope is not self.scope:  # the next head has begun
            self._start_timer(self.head_seconds)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.waiting_connections.setdefault(self)

    def resume_writing(self) -> None:
        super().resume_writing()
        self.waiting_connections.pop(self, None)

    def _receive_in_slices(self, data: bytes) -> None:
        start = 0
        while start < len(data) and self._final_error is None and not self.transport.is_closing():
            size = min(PARSE_BYTES, MAX_HEAD_BYTES - self._overhead_bytes)
            if not size:
                part = "A request head" if self._in_head() else "Chunk extensions and trailers"
                self._reject(431, f"{part} may have at most {MAX_HEAD_BYTES:,} bytes")
                return
            self.data_received(data[start : start + size])
            start += size

    def _in_head(self) -> bool:
        """Returns whether a head has begun but is incomplete.

        uvicorn creates `scope` when a head begins and `cycle` when it is complete.
        """
        return self.scope is not None and (self.cycle is None or self.cycle.scope is not self.scope)

    def _reject_fields(self) -> None:
        self._reject(431, f"A request may have at most {MAX_HEADER_FIELDS} header fields and as many trailers")

    def _reject(self, status: int, message: str) -> None:
        """Ends the connection after the responses to earlier requests, with an error if a response is outstanding."""
        if self._final_error:
            return
        self._final_error = status, message
        cycle = self.cycle
        if self._in_head():
            if cycle is None or cycle.response_complete:
                self._send_error(status, message)
        elif cycle is not None and cycle.more_body and not cycle.response_started and not self.pipeline:
            cycle.disconnected = True  # ends the application's wait for the rest of the body
            cycle.waiting_for_100_continue = False
            cycle.message_event.set()
            self._send_error(status, message)
        elif cycle is not None and cycle.response_complete:
            self._close_gracefully()
        else:
            self.transport.close()

    def _send_error(self, status: int, message: str) -> None:
        """Sends an error response without the application, then closes the connection."""
        if self.transport.is_closing():
            return
        response = RequestError(status, message).response()
        headers = [*self.server_state.default_headers, *response.raw_headers, (b"connection", b"close")]
        lines = [b"%b: %b\r\n" % field for field in headers]
        self.transport.write(b"".join((STATUS_LINE[status], *lines, b"\r\n", response.body)))
        self._close_gracefully()

    def _close_gracefully(self) -> None:
        """Closes the connection after ERROR_READ_SECONDS. Data that the client sends until then is discarded."""
        if self.transport.can_write_eof():  # not possible with TLS
            self.transport.write_eof()
        self._start_timer(ERROR_READ_SECONDS)

    def _unsupported_upgrade_warning(self) -> None:
        """Does nothing. uvicorn would log two lines for each request with a field `Upgrade`.

        A server may ignore the field (RFC 9110, section 7.8).
        """

    def _start_timer(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, self._time_out)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time_out(self) -> None:
        if self._final_error:
            self.transport.close()
        else:
            self._reject(408, f"The head of the request did not arrive within {self.head_seconds:g} s")

    def _close_one_connection(self) -> "LimitedProtocol":
        """Closes one connection and returns it.

        It is the one that has been idle longest; if none is idle, the one that has waited longest for its client; if
        all are being served, this new one.
        """
        if (now := time.monotonic()) > LimitedProtocol.last_logged + LOG_SECONDS:
            LimitedProtocol.last_logged = now
            logger.warning(
                "the limit of %d connections is reached; closing idle connections first "
                "(MNIST_GAN_MAX_CONNECTIONS or ulimit -n sets the limit)",
                self.max_connections,
            )
        closed = next(iter(self.idle_connections or self.waiting_connections), self)
        self.idle_connections.pop(closed, None)
        self.waiting_connections.pop(closed, None)
        self.connections.discard(closed)  # the event loop closes the file descriptor in its next turn
        closed.transport.abort()
        return closed
