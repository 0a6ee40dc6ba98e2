"""The path of a request, from its first header to the last byte of its response.

    RequestLog -> CORS -> Application -> method of the service -> Renderer -> Engine

BentoML's own path to a method (routing, binding a signature, two context managers) takes as long as decoding an image
does. The application therefore stands in front of BentoML's router, as middleware. It calls the same methods with the
same fields that BentoML would call; docs/architecture.md has the measurements.
"""

import hmac
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import bentoml
from starlette.datastructures import QueryParams
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.http.body_parsing import MAX_FIELDS
from serving.http.budget import Budget
from serving.http.deadline import Exchange
from serving.http.errors import ABORT, RequestError, status_error
from serving.http.logs import HEALTH_PATHS
from serving.http.request_body import read_body
from serving.http.settings import Settings

BENTOML_PATHS = (*HEALTH_PATHS, "/schema.json")
BENTOML_FOLDER = "/static_content/"
"""Files of the page that describes the API."""
TOKEN_PATHS = ("/card",)
"""Pages that need the token; the others describe only the API."""
MAX_FULL_BODIES = 8
"""All request bodies together may have as many bytes as this number of bodies of the largest size."""

logger = logging.getLogger("bentoml.mnist-gan")

Page = Callable[[], Response]


class Application:
    """ASGI middleware that answers all requests but those for BentoML's own paths.

    Args:
        app: BentoML's application.
        settings: Limits and the token.
        methods: BentoML's descriptions of the methods of the service, answered on POST.
        pages: What is answered on GET, by path.
    """

    def __init__(self, app: ASGIApp, settings: Settings, methods: Iterable[Any], pages: Mapping[str, Page]):
        self._app = app
        self._settings = settings
        self._methods = {method.route: method for method in methods}
        self._pages = pages
        self._bodies = Budget(MAX_FULL_BODIES * settings.max_body_bytes, "bodies")
        self._active = 0
        """Number of requests whose body has arrived and whose response is not complete."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["path"] in BENTOML_PATHS or scope["path"].startswith(BENTOML_FOLDER):
            await self._app(scope, receive, _with_our_errors(scope, receive, send))
            return
        exchange = Exchange(receive, send, self._settings.timeout_seconds, self._settings.response_timeout_seconds)
        try:
            async with exchange.deadline:
                await self._answer(scope, receive, exchange)
            return
        except RequestError as error:
            response = error.response()
        except TimeoutError:
            response = exchange.timeout_error().response()
        except Exception:
            logger.exception("%s %s failed", scope["method"], scope["path"])
            response = status_error(500).response()
        if not exchange.response_started:
            await response(scope, receive, send)
        elif extension := scope.get("extensions", {}).get(ABORT):
            extension["abort"]()  # a slow client could otherwise take as long as it likes to read what is buffered

    async def _answer(self, scope: Scope, receive: Receive, exchange: Exchange) -> None:
        path, verb = scope["path"], scope["method"]
        if verb == "POST" and path in self._methods:
            await self._call(self._methods[path], scope, receive, exchange)
        elif verb in ("GET", "HEAD") and path in self._pages:
            if path in TOKEN_PATHS:
                self._check_token(dict(scope["headers"]))
            await self._pages[path]()(scope, receive, exchange.send)
        else:
            raise self._no_such_route(path)

    async def _call(self, method: Any, scope: Scope, receive: Receive, exchange: Exchange) -> None:
        """Answers a request with a method of the service."""
        headers = dict(scope["headers"])
        self._check_token(headers)
        self._check_room()
        with self._bodies.hold() as share:
            limits = self._settings.max_body_bytes, self._settings.max_json_bytes
            body = await read_body(receive, headers, *limits, share)
            exchange.body_arrived = True
            self._check_room()
            self._active += 1
            try:
                with exchange.cancel_on_disconnect():
                    fields = method.input_spec.parse(body, _read_query(scope["query_string"]), headers)
                    response = await method.func(bentoml.get_current_service(), **fields)
                    await response(scope, receive, exchange.send)
            finally:
                self._active -= 1

    def _check_token(self, headers: Mapping[bytes, bytes]) -> None:
        token = self._settings.api_token
        if token and not is_authorized(headers.get(b"authorization", b""), token):
            raise RequestError(401, "Send the token in a header `Authorization: Bearer TOKEN`")

    def _check_room(self) -> None:
        if self._active >= self._settings.max_requests:
            raise RequestError(429, f"{self._active} requests are in progress already; try again in a moment")

    def _no_such_route(self, path: str) -> RequestError:
        verbs = [verb for verb, routes in (("GET", self._pages), ("POST", self._methods)) if path in routes]
        if verbs:
            return RequestError(405, f"{path} answers {' and '.join(verbs)}", headers={"Allow": ", ".join(verbs)})
        known = path.rstrip("/")
        hint = f"did you mean {known}?" if known in {*self._pages, *self._methods} else "/docs.json lists the paths"
        return RequestError(404, f"There is no such path; {hint}")


def _read_query(query: bytes) -> QueryParams:
    """Parses the query of a URL. No route has as many fields as are counted, and each takes time."""
    if query.count(b"&") >= MAX_FIELDS:
        raise RequestError(400, f"The query has more than {MAX_FIELDS} fields")
    return QueryParams(query)


def is_authorized(header: bytes, token: str) -> bool:
    """Checks an Authorization header (RFC 9110, section 11.4, with RFC 6750's scheme Bearer) in constant time."""
    scheme, _, credentials = header.strip(b" \t").partition(b" ")
    return scheme.lower() == b"bearer" and hmac.compare_digest(credentials.lstrip(b" "), token.encode())


def _with_our_errors(scope: Scope, receive: Receive, send: Send) -> Send:
    """Returns a send function that replaces error responses of BentoML by ours, with the same status and headers."""
    start: Message | None = None

    async def replace_errors(message: Message) -> None:
        nonlocal start
        if message["type"] == "http.response.start" and message["status"] >= 400:
            start = message
        elif start is None:
            await send(message)
        elif not message.get("more_body"):
            await status_error(start["status"]).response(start["headers"])(scope, receive, send)

    return replace_errors
