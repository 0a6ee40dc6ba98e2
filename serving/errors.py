"""One shape for every error, whoever raised it: {"error": {"code", "message", "field"}}."""

from http import HTTPStatus

from bentoml.exceptions import BentoMLException
from pydantic import ValidationError
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.metrics import metrics

CODES = {
    400: "invalid_input",
    401: "unauthorized",
    404: "not_found",
    405: "method_not_allowed",
    408: "head_timeout",
    413: "too_large",
    415: "unsupported_media_type",
    429: "overloaded",
    431: "head_too_large",
    499: "gone",
    503: "not_ready",
    504: "timeout",
}

LONGEST_FIELD = 100
"""Characters of a field's name that are told: one that is unknown may have millions."""

HEADERS = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "1"}, 503: {"Retry-After": "1"}}

MESSAGES = {504: "It took longer than it may; ask for less at once, or try again"}
"""In the place of the phrase that HTTP has for a status."""


class OverloadedError(BentoMLException):
    """It cannot be answered now, and can later."""

    error_code = HTTPStatus.TOO_MANY_REQUESTS


class ErrorShape:
    """ASGI middleware that gives BentoML's and Starlette's errors our shape."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start: Message | None = None

        async def reshape(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start" and message["status"] >= 400:
                start = message
            elif start is None:
                await send(message)
            elif not message.get("more_body"):
                await _reshaped(start)(scope, receive, send)

        await self.app(scope, receive, reshape if scope["type"] == "http" else send)


async def respond(status: int, message: str, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with an error."""
    await shaped(status, message)(scope, receive, send)


def explain(error: Exception) -> tuple[int, str, str | None]:
    """Status, message and field of what a request ended in: of a fault of ours it tells nothing."""
    if isinstance(error, ValidationError):
        first = error.errors(include_context=False, include_input=False, include_url=False)[0]
        return 400, first["msg"], ".".join(map(str, first["loc"]))[:LONGEST_FIELD] or None
    status = error.error_code.value if isinstance(error, BentoMLException) else 500
    return status, str(error) if status < 500 else _message(status), None


def shaped(status: int, message: str, field: str | None = None) -> JSONResponse:
    error = {"code": CODES.get(status, "internal"), "message": message, "field": field}
    metrics().rejected.labels(error["code"]).inc()
    return JSONResponse({"error": error}, status, headers=HEADERS.get(status))


def _reshaped(start: Message) -> JSONResponse:
    response = shaped(start["status"], _message(start["status"]))
    replaced = {name for name, _ in response.raw_headers}
    response.raw_headers += [(name, value) for name, value in start["headers"] if name.lower() not in replaced]
    return response


def _message(status: int) -> str:
    phrase = HTTPStatus(status).phrase
    return MESSAGES.get(status) or (f"{phrase}; the log of the service says why" if status >= 500 else phrase)
