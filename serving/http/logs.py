"""Logging of the service, as text or as JSON: events, errors and, if configured, one line per request."""

import io
import json
import logging
import re
import secrets
import sys
import threading
import time
from contextvars import ContextVar
from types import TracebackType
from typing import Any, TextIO

from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_ID = re.compile(rb"[\w.-]{1,64}", re.ASCII)
"""Accepted values of X-Request-Id. Other characters could forge a line of the log."""
HEALTH_PATHS = ("/livez", "/readyz", "/healthz", "/metrics")
"""Paths for health checks and metrics. They need no token, are not logged, and work even when the service is full."""

logger = logging.getLogger("bentoml.mnist-gan")

_request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


class JsonFormatter(logging.Formatter):
    """Formats a log record as one line of JSON.

    python-json-logger would log the attributes that BentoML's filter adds to each record, unless each is excluded by
    name; that list would be longer than this class.
    """

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            "request_id": _request_id.get(),
            **getattr(record, "request", {}),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps({name: value for name, value in entry.items() if value is not None})


class JsonLines(io.TextIOBase):
    """Replacement for stdout or stderr that writes each line of text as a JSON log record.

    It converts output that does not use `logging`: `print`, error messages of click, warnings and tracebacks.

    Args:
        stream: the stream to write JSON to.
        level: log level of the records.
    """

    encoding = "utf-8"

    def __init__(self, stream: TextIO, level: int):
        self._stream = stream
        self._level = level
        self._incomplete_line = ""

    def write(self, text: str) -> int:
        *lines, self._incomplete_line = (self._incomplete_line + text).split("\n")
        for line in lines:
            self._write_line(line)
        return len(text)

    def flush(self) -> None:
        line, self._incomplete_line = self._incomplete_line, ""
        self._write_line(line)
        self._stream.flush()

    def fileno(self) -> int:
        return self._stream.fileno()

    def writable(self) -> bool:
        return True

    def _write_line(self, line: str) -> None:
        if line.strip():
            level = {"levelno": self._level, "levelname": logging.getLevelName(self._level)}
            self._stream.write(JsonFormatter().format(logging.makeLogRecord({"msg": line, **level})) + "\n")


class RequestLog:
    """ASGI middleware that logs one line per request and adds the field X-Request-Id to the response.

    The id is the one that the client sent, if it is valid, otherwise a random one.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in HEALTH_PATHS:
            await self.app(scope, receive, send)
            return
        received_id = dict(scope["headers"]).get(b"x-request-id", b"")
        request_id = received_id.decode() if REQUEST_ID.fullmatch(received_id) else secrets.token_hex(8)
        status, size, start = 0, 0, time.perf_counter()

        async def send_and_record(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], (b"x-request-id", request_id.encode())]}
            size += len(message.get("body", b""))
            await send(message)

        token = _request_id.set(request_id)
        try:
            await self.app(scope, receive, send_and_record)
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


def configure(json_lines: bool) -> None:
    """Changes BentoML's logging of this process so that each record is printed once.

    Args:
        json_lines: whether to write every line of stdout and stderr as a JSON object.
    """
    for name in ("uvicorn.error", "circus"):
        # BentoML gives these loggers the handler of the root logger, to which their records propagate as well.
        logging.getLogger(name).handlers.clear()
    if not json_lines or isinstance(sys.stderr, JsonLines):
        return
    for handler in {*logging.getLogger().handlers, *logging.getLogger("bentoml").handlers}:
        handler.setFormatter(JsonFormatter())
    logging.captureWarnings(True)
    sys.excepthook = _log_exception
    threading.excepthook = lambda args: _log_exception(args.exc_type, args.exc_value, args.exc_traceback)
    sys.stdout, sys.stderr = JsonLines(sys.stdout, logging.INFO), JsonLines(sys.stderr, logging.ERROR)


def _log_exception(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> Any:
    if error is None or issubclass(kind, KeyboardInterrupt | SystemExit):
        return
    logger.critical("%s: %s", kind.__name__, error, exc_info=(kind, error, trace))
