"""Who gets in: the token, the size of a body, how many at a time, and for how long."""

import asyncio
import hmac
import threading
from collections.abc import Callable
from contextvars import ContextVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.errors import respond
from serving.requests import NPY_MAGIC
from serving.settings import Settings

FREE = ("/", "/livez", "/readyz", "/healthz", "/metrics", "/docs.json", "/playground")
FREE_FOLDERS = ("/static_content/", "/playground/")
"""Asked by machines that watch the service, or needed to learn what it wants."""

_given_up: ContextVar[threading.Event | None] = ContextVar("given_up", default=None)


def given_up() -> Callable[[], bool]:
    """What tells, in any thread, whether nobody waits for the answer to this request any more."""
    event = _given_up.get()
    return event.is_set if event else lambda: False


class _RefusedError(Exception):
    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


class Admission:
    """ASGI middleware. A body is read here, whole, before anything is made of it."""

    def __init__(self, app: ASGIApp, settings: Settings):
        self.app = app
        self.settings = settings
        self.inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in FREE or scope["path"].startswith(FREE_FOLDERS):
            await self.app(scope, receive, send)
            return
        try:
            self._check(scope)
        except _RefusedError as refused:
            await respond(refused.status, str(refused), scope, receive, send)
            return
        self.inside += 1
        try:
            await self._answer(scope, receive, send)
        finally:
            self.inside -= 1

    def _check(self, scope: Scope) -> None:
        headers = dict(scope["headers"])
        if token := self.settings.api_token:
            sent = headers.get(b"authorization", b"")
            if not hmac.compare_digest(sent, f"Bearer {token}".encode()):
                raise _RefusedError(401, "Give the token, in a header `Authorization: Bearer ...`")
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self.settings.max_body_bytes:
            raise _RefusedError(413, f"The body has {int(declared):,} bytes, at most {self.settings.max_body_bytes:,}")
        if self.inside >= self.settings.max_requests:
            raise _RefusedError(429, f"{self.inside} requests are being answered already; come back in a moment")

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        gone, left = threading.Event(), asyncio.Event()  # asked by the threads that work, and by the app
        deadline = loop.time() + self.settings.timeout_seconds
        try:
            async with asyncio.timeout_at(deadline):
                body = await self._body(receive)
        except _RefusedError as refused:
            await respond(refused.status, str(refused), scope, receive, send)
            return
        except TimeoutError:
            await respond(
                504, f"The body did not come in {self.settings.timeout_seconds:g} seconds", scope, receive, send
            )
            return
        if body is None:
            # Nobody reads it, but BentoML's middleware would wait for an answer, and a stop of the service for that.
            await respond(400, "The connection ended before the body did", scope, receive, send)
            return
        sent = False

        async def replay() -> Message:
            nonlocal sent
            if not sent:
                sent = True
                return {"type": "http.request", "body": body, "more_body": False}
            await left.wait()
            return {"type": "http.disconnect"}

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            gone.set()
            left.set()

        timer = loop.call_at(deadline, gone.set)
        watcher = asyncio.create_task(watch())
        context = _given_up.set(gone)
        try:
            await self.app(scope, replay, send)
        finally:
            _given_up.reset(context)
            timer.cancel()
            watcher.cancel()

    async def _body(self, receive: Receive) -> bytes | None:
        """All of it; None where the caller has gone."""
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            limit = self.settings.max_body_bytes if body.startswith(NPY_MAGIC) else self.settings.max_json_bytes
            if len(body) > limit:
                raise _RefusedError(413, f"The body has more than the {limit:,} bytes that it may have")
            if not message.get("more_body"):
                return bytes(body)
