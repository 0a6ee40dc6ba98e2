"""Log of the service: events, errors and, if configured, one line per request; as text or as JSON."""

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

import click
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ID = re.compile(rb"[\w.-]{1,64}", re.ASCII)
"""Accepted values of X-Request-Id: nothing that could forge a line of the log."""
HEALTH_PATHS = ("/livez", "/readyz", "/healthz", "/metrics")
"""Paths that machines watch. They are answered while the service is full, without a token and without a log line."""

logger = logging.getLogger("bentoml.mnist-gan")

_request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


class StartError(click.ClickException):
    """A reason why the service cannot start: `bentoml serve` ends with this message, without a traceback."""


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON.

    python-json-logger is not used: it would need a list of the attributes that BentoML's filter adds to each record and
    that are not to be logged, which is longer than this class.
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
    """Replaces stdout or stderr: formats each line that is written to it as a record of the log.

    It is for what does not use `logging`: output of `print`, click's error messages, warnings and tracebacks.
    """

    encoding = "utf-8"

    def __init__(self, stream: TextIO, level: int):
        self._stream = stream
        self._level = level
        self._rest = ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._write_line(line)
        return len(text)

    def flush(self) -> None:
        rest, self._rest = self._rest, ""
        self._write_line(rest)
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
    """ASGI middleware: logs one line per request, with an id that the response has as well."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in HEALTH_PATHS:
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
    """Changes the logging of this process, which BentoML has configured already, so that each record is printed once
    and, if `json_lines`, every line of stdout and stderr is JSON.
    """
    for name in ("uvicorn.error", "circus"):
        # BentoML gives them the handler that the root logger has too, to which their records propagate.
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
