"""Who gets in: the token, the size of a body, how many at a time, and for how long."""

import asyncio
import hmac
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.errors import MESSAGES, respond
from serving.requests import NPY_MAGIC
from serving.settings import Settings

FREE = ("/", "/livez", "/readyz", "/healthz", "/metrics", "/docs.json", "/playground")
FREE_FOLDERS = ("/static_content/", "/playground/")
"""Asked by machines that watch the service, or needed to learn what it wants."""

ARRIVING = 8
"""Bodies of the largest size that may be on their way, all together."""
PIECE = 256 << 10
"""Bytes of an answer that a caller has to take within the time that a request may take."""
SOON = 0.05
"""Seconds in which most requests are answered; from then on it is watched whether the caller is still there."""


GONE = 499, "The caller has gone"
TOO_LONG = 504, MESSAGES[504]


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
        """Requests that are being answered: their bodies are here."""
        self.arriving = 0
        """Bytes of the bodies that are on their way."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in FREE or scope["path"].startswith(FREE_FOLDERS):
            await self.app(scope, receive, send)
            return
        visit = _Visit(receive, send, self.settings.timeout_seconds)
        try:
            async with visit.patience:
                self._check(scope)
                body = await self._body(receive)
                self._check_room()
                self.inside += 1
                try:
                    with visit.watched():
                        await self.app(scope, visit.replaying(body), visit.send)
                finally:
                    self.inside -= 1
            return
        except _RefusedError as error:
            # Not the error itself: it knows this frame, and the two would keep the body until they are collected.
            refused = error.status, str(error)
        except TimeoutError:
            refused = visit.over()
        if not visit.answered:  # or all that can be done is to end the connection
            await respond(*refused, scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers = dict(scope["headers"])
        if token := self.settings.api_token:
            sent = headers.get(b"authorization", b"")
            if not hmac.compare_digest(sent, f"Bearer {token}".encode()):
                raise _RefusedError(401, "Give the token, in a header `Authorization: Bearer ...`")
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self.settings.max_body_bytes:
            raise _RefusedError(413, f"The body has {int(declared):,} bytes, at most {self.settings.max_body_bytes:,}")
        self._check_room()

    def _check_room(self) -> None:
        if self.inside >= self.settings.max_requests:
            raise _RefusedError(429, f"{self.inside} requests are being answered already; come back in a moment")

    async def _body(self, receive: Receive) -> bytes:
        """All of it. While it is on its way it takes nobody's place, only memory, and of that there is a limit, too."""
        body, counted = bytearray(), 0
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise _RefusedError(*GONE)
                body += message.get("body", b"")
                limit = self.settings.max_body_bytes if body.startswith(NPY_MAGIC) else self.settings.max_json_bytes
                if len(body) > limit:
                    raise _RefusedError(413, f"The body has more than the {limit:,} bytes that it may have")
                if not message.get("more_body"):
                    return bytes(body)
                self.arriving += len(body) - counted
                counted = len(body)
                if self.arriving > ARRIVING * self.settings.max_body_bytes:
                    raise _RefusedError(429, "Too much is on its way already; come back in a moment")
        finally:
            self.arriving -= counted


class _Visit:
    """A caller's, who waits for an answer for so long, and has to take it when it comes."""

    def __init__(self, receive: Receive, send: Send, seconds: float):
        self.patience = asyncio.timeout(seconds)
        self.answered = False
        """Whether an answer has begun."""
        self._receive = receive
        self._send = send
        self._seconds = seconds
        self._gone = False

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Patience is at its end when the caller goes."""
        loop = asyncio.get_running_loop()
        watching: asyncio.Task[None] | None = None

        async def watch() -> None:
            while (await self._receive())["type"] != "http.disconnect":
                pass
            self._gone = True
            self.patience.reschedule(loop.time())

        def begin() -> None:
            nonlocal watching
            watching = loop.create_task(watch())

        timer = loop.call_later(SOON, begin)
        try:
            yield
        finally:
            timer.cancel()
            if watching:
                watching.cancel()

    def over(self) -> tuple[int, str]:
        """What to say when patience is at its end."""
        return GONE if self._gone else TOO_LONG  # who has gone does not read it; BentoML's metrics count it

    @staticmethod
    def replaying(body: bytes) -> Receive:
        """What the app receives: the body, and then nothing more."""
        messages = iter(({"type": "http.request", "body": body, "more_body": False},))

        async def receive() -> Message:
            for message in messages:
                return message
            return await asyncio.get_running_loop().create_future()

        return receive

    async def send(self, message: Message) -> None:
        self.answered = True
        body = memoryview(message.get("body", b""))
        if len(body) <= PIECE:
            await self._send(message)
            return
        for at in range(0, len(body), PIECE):
            more = at + PIECE < len(body) or message.get("more_body", False)
            await self._send({**message, "body": body[at : at + PIECE], "more_body": more})
            self.patience.reschedule(asyncio.get_running_loop().time() + self._seconds)
