"""Errors of requests. All error responses share one JSON format: {"error": {"code", "message", "field"}}."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus

from starlette.responses import JSONResponse

from serving.http.metrics import metrics

CLIENT_CLOSED_REQUEST = 499
"""Status code, first used by nginx, for a request whose client disconnected before the response."""

CODES = {
    400: "invalid_input",
    404: "not_found",
    408: "head_timeout",
    413: "too_large",
    429: "overloaded",
    431: "head_too_large",
    CLIENT_CLOSED_REQUEST: "client_closed_request",
    500: "internal",
    503: "not_ready",
    504: "timeout",
}
"""Error codes by HTTP status. The code of any other status is the name of the status in lower case."""

ABORT = "mnist_gan.abort"
"""Name of the ASGI extension whose function `abort` closes the connection without sending what is buffered."""

HEADERS = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "1"}, 503: {"Retry-After": "1"}}
"""Additional response headers by HTTP status."""

MAX_FIELD_CHARACTERS = 100
"""Longer field names are cut off in responses. The name of an unknown field can have millions of characters."""


class RequestError(Exception):
    """A request that is answered with an error response. Any part of the service may raise it.

    Attributes:
        status: HTTP status code, 400 to 599.
        message: What is wrong, the value, and what the client can do.
        field: Name of the request field that is wrong, with dots between nested names, or None.
        headers: Additional response headers.
    """

    def __init__(self, status: int, message: str, field: str | None = None, headers: Mapping[str, str] | None = None):
        super().__init__(message)
        self.status = status
        self.message = message
        self.field = field and field[:MAX_FIELD_CHARACTERS]
        self.headers = headers or HEADERS.get(status)

    @property
    def code(self) -> str:
        """The error in one word, for programs."""
        return error_code(self.status)

    def response(self, other_headers: Iterable[tuple[bytes, bytes]] = ()) -> JSONResponse:
        """Makes the response and counts it in the metrics.

        Args:
            other_headers: Headers of a response that this one replaces. They are added unless this one has its own.
        """
        metrics().errors.labels(self.code).inc()
        error = {"code": self.code, "message": self.message, "field": self.field}
        response = JSONResponse({"error": error}, self.status, headers=self.headers)
        own = {name for name, _ in response.raw_headers}
        response.raw_headers += [(name, value) for name, value in other_headers if name.lower() not in own]
        return response


def error_code(status: int) -> str:
    """Returns the error code of an HTTP status from 400 to 599."""
    try:
        return CODES.get(status) or HTTPStatus(status).name.lower()
    except ValueError:
        return "internal" if status >= 500 else "invalid_input"


def status_error(status: int) -> RequestError:
    """Returns an error whose message is the phrase that HTTP defines for the status."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = f"HTTP status {status}"
    return RequestError(status, f"{phrase}; the log of the service has the reason" if status >= 500 else phrase)
