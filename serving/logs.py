"""What the service logs: its own events and faults and, if it is asked to, a line a request; as text or as JSON."""

import json
import logging
import re
import secrets
import time
from contextvars import ContextVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send

ID = re.compile(rb"[\w.-]{1,64}", re.ASCII)
"""What a caller's X-Request-Id may look like: nothing that would forge a line of the log."""
UNTOLD = ("/livez", "/readyz", "/healthz", "/metrics")

logger = logging.getLogger("bentoml.mnist-gan")

_request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        told = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            "request_id": _request_id.get(),
            **getattr(record, "request", {}),
        }
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return json.dumps({name: value for name, value in told.items() if value is not None})


class RequestLog:
    """ASGI middleware: a line a request, with an id that the answer tells as well."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in UNTOLD:
            await self.app(scope, receive, send)
            return
        sent = dict(scope["headers"]).get(b"x-request-id", b"")
        request_id = sent.decode() if ID.fullmatch(sent) else secrets.token_hex(8)
        status, size, start = 0, 0, time.perf_counter()

        async def note(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], (b"x-request-id", request_id.encode())]}
            size += len(message.get("body", b""))
            await send(message)

        token = _request_id.set(request_id)
        try:
            await self.app(scope, receive, note)
        finally:
            request = {
                "method": scope["method"],
                "path": scope["path"],
                "status": status,
                "bytes": size,
                "milliseconds": round(1000 * (time.perf_counter() - start), 1),
            }
            line = f"{request['method']} {request['path']!r} {status}, {size} bytes, {request['milliseconds']} ms"
            logger.info("%s (request %s)", line, request_id, extra={"request": request})
            _request_id.reset(token)


def set_up(json_lines: bool) -> None:
    """For this process, in which BentoML has set up its own logging already."""
    if json_lines:
        for handler in {*logging.getLogger().handlers, *logging.getLogger("bentoml").handlers}:
            handler.setFormatter(JsonFormatter())
