"""One shape for every error, whoever raised it: {"error": {"code", "message", "field"}}."""

import json
from http import HTTPStatus

from bentoml.exceptions import BentoMLException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.metrics import metrics

CODES = {
    400: "invalid_input",
    401: "unauthorized",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported_media_type",
    429: "overloaded",
    503: "not_ready",
    504: "timeout",
}


HEADERS = {401: {"WWW-Authenticate": "Bearer"}, 429: {"Retry-After": "1"}, 503: {"Retry-After": "1"}}


MESSAGES = {504: "It took longer than it may; ask for less at once, or try again"}


class OverloadedError(BentoMLException):
    """It cannot be answered now, and can later."""

    error_code = HTTPStatus.TOO_MANY_REQUESTS


class GivenUpError(BentoMLException):
    """Nobody waits for the answer any more."""

    error_code = HTTPStatus.GATEWAY_TIMEOUT


class ErrorShape:
    """ASGI middleware that gives BentoML's and Starlette's errors our shape."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start: Message | None = None
        body = b""

        async def reshape(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start" and message["status"] >= 400:
                start = message
            elif start is None:
                await send(message)
            else:
                body += message.get("body", b"")
                if not message.get("more_body"):
                    await _response(start, body)(scope, receive, send)

        await self.app(scope, receive, reshape if scope["type"] == "http" else send)


async def respond(status: int, message: str, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with an error."""
    await _shaped(status, message)(scope, receive, send)


def _shaped(status: int, message: str, field: str | None = None) -> JSONResponse:
    error = {"code": CODES.get(status, "internal"), "message": message, "field": field}
    metrics().rejected.labels(error["code"]).inc()
    return JSONResponse({"error": error}, status, headers=HEADERS.get(status))


def _response(start: Message, body: bytes) -> JSONResponse:
    status = start["status"]
    response = _shaped(status, *_explain(status, body))
    replaced = {name for name, _ in response.raw_headers}
    response.raw_headers += [(name, value) for name, value in start["headers"] if name.lower() not in replaced]
    return response


def _explain(status: int, body: bytes) -> tuple[str, str | None]:
    """Message and field of an error."""
    try:
        told = json.loads(body)
        if isinstance(told, list):  # as BentoML passes on an exception of its own
            return told[0]["error"], None
        error = told["detail"][0]  # the list of pydantic's errors
        return error["msg"], ".".join(map(str, error["loc"])) or None
    except (ValueError, LookupError, TypeError):
        if status in MESSAGES:
            return MESSAGES[status], None
        phrase = HTTPStatus(status).phrase
        return (f"{phrase}; the log of the service says why" if status >= 500 else phrase), None
