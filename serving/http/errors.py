"""Errors of requests. Their responses have one JSON format: {"error": {"code", "message", "field"}}. Only the paths of
another protocol may have the format of that protocol.
"""

from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse

from serving.http.metrics import metrics

CLIENT_CLOSED_REQUEST = 499
"""Status for a request whose client disconnected before the response. nginx introduced it; no client receives it."""

CODES = {
    400: "invalid_input",
    404: "not_found",
    408: "head_timeout",
    413: "too_large",
    414: "uri_too_long",
    416: "range_not_satisfiable",
    422: "unprocessable_content",
    429: "overloaded",
    431: "head_too_large",
    CLIENT_CLOSED_REQUEST: "client_closed_request",
    500: "internal",
    503: "not_ready",
    504: "timeout",
}
"""Error codes by HTTP status. The code of any other status is the name of the status in lower case.

414, 416 and 422 are here because Python 3.13 renamed them.
"""

ABORT = "mnist_gan.abort"
"""Name of the ASGI extension that has a function `abort`: it closes the connection and discards buffered data."""

HEADERS = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "1"}, 503: {"Retry-After": "1"}}
"""Additional headers of error responses, by HTTP status."""

MAX_FIELD_CHARACTERS = 100
"""Maximum length of a field name in a response; the name of an unknown field can have millions of characters."""


class RequestError(Exception):
    """Ends a request with an error response. Any part of the service may raise it.

    Attributes:
        status: HTTP status code, 400 to 599.
        message: description of the problem, with the value and what the client can do.
        field: name of the invalid request field, with dots between nested names; None if no field is invalid.
        headers: additional response headers; None if there are none.
    """

    def __init__(self, status: int, message: str, field: str | None = None, headers: Mapping[str, str] | None = None):
        super().__init__(message)
        self.status = status
        self.message = message
        self.field = field and field[:MAX_FIELD_CHARACTERS]
        self.headers = headers or HEADERS.get(status)

    @property
    def code(self) -> str:
        """Identifier of the kind of error, for programs."""
        return error_code(self.status)

    def response(
        self,
        other_headers: Iterable[tuple[bytes, bytes]] = (),
        content: Callable[["RequestError"], dict[str, Any]] | None = None,
    ) -> JSONResponse:
        """Builds the response and counts it in the metrics.

        Args:
            other_headers: further headers, such as those of the response that this one replaces. Each is kept unless
                the error has its own.
            content: returns the JSON in the format of another protocol; None selects the service's own format.
        """
        metrics().errors.labels(self.code).inc()
        response = JSONResponse((content or own_format)(self), self.status, headers=self.headers)
        own = {name for name, _ in response.raw_headers}
        response.raw_headers += [(name, value) for name, value in other_headers if name.lower() not in own]
        return response


def own_format(error: RequestError) -> dict[str, Any]:
    """Returns the JSON of an error in the format of the service's own routes."""
    return {"error": {"code": error.code, "message": error.message, "field": error.field}}


def error_code(status: int) -> str:
    """Returns the error code of an HTTP status from 400 to 599."""
    try:
        return CODES.get(status) or HTTPStatus(status).name.lower()
    except ValueError:
        return "internal" if status >= 500 else "invalid_input"


def status_error(status: int) -> RequestError:
    """Returns an error whose message is the standard phrase of the HTTP status."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = f"HTTP status {status}"
    return RequestError(status, f"{phrase}; the log of the service has the reason" if status >= 500 else phrase)
