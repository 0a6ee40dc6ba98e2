"""Checks the token and the limits, dispatches requests to the methods and pages, and converts errors to responses.

    RequestLog -> CORS -> Application -> method of the service or handler of a protocol -> Renderer -> Engine

BentoML's own path to a method (routing, binding a signature, two context managers) takes as long as decoding an image.
The application is therefore ASGI middleware in front of BentoML's router. It calls the same methods with the same
fields as BentoML would; docs/architecture.md has the measurements.
"""

import hmac
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from bentoml import get_current_service
from starlette.datastructures import QueryParams
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.http.body_parsing import MAX_FIELDS
from serving.http.budget import Budget
from serving.http.deadline import Exchange
from serving.http.errors import ABORT, RequestError, status_error
from serving.http.logs import HEALTH_PATHS
from serving.http.protocols.routing import Call, Handler, Protocol
from serving.http.request_body import BodyLimits, own_limits, read_body
from serving.http.settings import Settings

BENTOML_PATHS = (*HEALTH_PATHS, "/schema.json")
"""Paths that BentoML serves."""
BENTOML_FOLDER = "/static_content/"
"""Path prefix of the Swagger UI files, which BentoML serves."""
TOKEN_PATHS = ("/card", "/models")
"""Pages that require the token. The other pages describe only the API."""
MAX_FULL_BODIES = 8
"""Limit of the memory for all request bodies together, in multiples of the largest allowed body."""

NO_QUERY = QueryParams()

logger = logging.getLogger("bentoml.mnist-gan")

Page = Callable[[QueryParams], Response]
"""Makes the response to a GET or HEAD request from the query of its URL."""
Respond = Callable[[Scope, Mapping[bytes, bytes], bytes], Awaitable[Response]]
"""Makes the response from the scope, the header fields and the body of a request."""


class Application:
    """ASGI middleware that handles all requests except those for BentoML's own paths.

    Args:
        app: BentoML's ASGI application.
        settings: limits and the token.
        methods: BentoML's `APIMethod` of each route, or an object with the same attributes `route`, `input_spec` and
            `func`. A POST request to the route calls it.
        pages: functions by path. A GET or HEAD request to the path calls the function.
        protocols: other protocols. Their routes come after the methods and pages.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        methods: Iterable[Any],
        pages: Mapping[str, Page],
        protocols: Sequence[Protocol],
    ):
        self._app = app
        self._settings = settings
        self._methods: dict[str, Respond] = {method.route: partial(_call_method, method) for method in methods}
        self._pages = pages
        self._protocols = protocols
        self._limits = own_limits(settings.max_body_bytes, settings.max_json_bytes)
        self._bodies = Budget(MAX_FULL_BODIES * settings.max_body_bytes, "bodies")
        self._active = 0
        """Number of requests that are being processed: their body has arrived, their response is not yet sent."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["path"] in BENTOML_PATHS or scope["path"].startswith(BENTOML_FOLDER):
            await self._app(scope, receive, _with_json_errors(scope, receive, send))
            return
        exchange = Exchange(receive, send, self._settings.timeout_seconds, self._settings.response_timeout_seconds)
        try:
            async with exchange.deadline:
                await self._respond(scope, receive, exchange)
            return
        # A variable that kept the error after its except clause would also keep the body, in a reference cycle.
        except RequestError as error:
            response = self._error_response(scope["path"], error)
        except TimeoutError:
            response = self._error_response(scope["path"], exchange.timeout_error())
        except Exception:
            logger.exception("%s %s failed", scope["method"], scope["path"])
            response = self._error_response(scope["path"], status_error(500))
        if not exchange.response_started:
            await response(scope, receive, send)
        elif extension := scope.get("extensions", {}).get(ABORT):
            extension["abort"]()  # otherwise a slow client could keep the connection open until it has read the buffer

    def _error_response(self, path: str, error: RequestError) -> Response:
        """Returns the response in the format of the protocol that the path belongs to."""
        protocol = self._protocol(path)
        return protocol.error_response(error) if protocol else error.response()

    async def _respond(self, scope: Scope, receive: Receive, exchange: Exchange) -> None:
        path, http_method = scope["path"], scope["method"]
        if http_method == "POST" and path in self._methods:
            headers = dict(scope["headers"])
            self._check_token(headers)
            await self._call(self._methods[path], scope, receive, exchange, headers, self._limits)
        elif http_method in ("GET", "HEAD") and path in self._pages:
            if path in TOKEN_PATHS:
                self._check_token(dict(scope["headers"]))
            response = self._pages[path](_read_query(scope["query_string"]))
            await response(scope, receive, exchange.send)
        elif protocol := self._protocol(path):
            await self._respond_to_protocol(protocol, scope, receive, exchange)
        else:
            raise self._routing_error(path)

    def _protocol(self, path: str) -> Protocol | None:
        """Returns the protocol that a path belongs to."""
        return next((protocol for protocol in self._protocols if path.startswith(protocol.prefixes)), None)

    async def _respond_to_protocol(
        self, protocol: Protocol, scope: Scope, receive: Receive, exchange: Exchange
    ) -> None:
        path = scope["path"]
        routes = protocol.match(path)
        if not routes:
            raise self._routing_error(path)
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        if method not in routes:
            raise _method_not_allowed(path, sorted(routes))
        route, values = routes[method]
        headers = dict(scope["headers"])
        if route.needs_token:
            self._check_token(headers)
        respond = partial(_call_handler, route.respond, values)
        if route.uses_engine:
            limits = route.body_limits(headers) if route.body_limits else self._limits
            await self._call(respond, scope, receive, exchange, headers, limits)
        else:
            response = await respond(scope, headers, b"")
            await response(scope, receive, exchange.send)

    async def _call(
        self,
        respond: Respond,
        scope: Scope,
        receive: Receive,
        exchange: Exchange,
        headers: Mapping[bytes, bytes],
        limits: BodyLimits,
    ) -> None:
        """Reads the request, makes the response, and sends it.

        Slow uploads do not count as active requests, so capacity is checked before and after the body is read.
        """
        self._check_capacity()
        with self._bodies.reserve() as reservation:
            body = await read_body(receive, headers, limits, reservation)
            exchange.body_arrived = True
            self._check_capacity()
            self._active += 1
            try:
                with exchange.cancel_on_disconnect():
                    response = await respond(scope, headers, body)
                    await response(scope, receive, exchange.send)
            finally:
                self._active -= 1

    def _check_token(self, headers: Mapping[bytes, bytes]) -> None:
        token = self._settings.api_token
        if token and not is_authorized(headers.get(b"authorization", b""), token):
            raise RequestError(401, "Send the token in a header `Authorization: Bearer TOKEN`")

    def _check_capacity(self) -> None:
        if self._active >= self._settings.max_requests:
            raise RequestError(429, f"{self._active} requests are already in progress; try again in a moment")

    def _routing_error(self, path: str) -> RequestError:
        """Returns a 405 that lists the allowed methods if the path exists, else a 404."""
        allowed = [name for name, routes in (("GET", self._pages), ("POST", self._methods)) if path in routes]
        if allowed:
            return _method_not_allowed(path, allowed)
        known = path.rstrip("/")
        hint = f"did you mean {known}?" if known in {*self._pages, *self._methods} else "/docs.json lists the paths"
        return RequestError(404, f"This path does not exist; {hint}")


async def _call_method(method: Any, scope: Scope, headers: Mapping[bytes, bytes], body: bytes) -> Response:
    """Parses a request to a route of the service and calls the method of the route."""
    fields = method.input_spec.parse(body, _read_query(scope["query_string"]), headers)
    return await method.func(get_current_service(), **fields)


async def _call_handler(
    handler: Handler, values: Mapping[str, str], scope: Scope, headers: Mapping[bytes, bytes], body: bytes
) -> Response:
    """Calls the handler of a route of a protocol. `values` are the variable parts of the path."""
    return await handler(Call(scope, values, _read_query(scope["query_string"]), headers, body))


def _method_not_allowed(path: str, allowed: Sequence[str]) -> RequestError:
    message = f"{path} allows only {' and '.join(allowed)} requests"
    return RequestError(405, message, headers={"Allow": ", ".join(allowed)})


def _read_query(query: bytes) -> QueryParams:
    """Parses the query of a URL.

    Raises:
        RequestError: 400 if the query has more than MAX_FIELDS fields. Each takes time to parse; no route has so many.
    """
    if not query:
        return NO_QUERY
    if query.count(b"&") >= MAX_FIELDS:
        raise RequestError(400, f"The query has more than {MAX_FIELDS} fields")
    return QueryParams(query)


def is_authorized(header: bytes, token: str) -> bool:
    """Returns whether an Authorization header has the token, in the scheme Bearer of RFC 6750.

    The duration of the comparison does not reveal how many characters of a wrong token are right. The scheme is
    case-insensitive (RFC 9110, section 11.4).
    """
    scheme, _, credentials = header.strip(b" \t").partition(b" ")
    return scheme.lower() == b"bearer" and hmac.compare_digest(credentials.lstrip(b" "), token.encode())


def _with_json_errors(scope: Scope, receive: Receive, send: Send) -> Send:
    """Returns a send function that gives BentoML's error responses the JSON format of the service.

    Their status and headers are kept.
    """
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
