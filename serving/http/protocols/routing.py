"""Routes of a protocol: paths with variable parts, and handlers that receive one request."""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import bentoml
from pydantic import BaseModel, ValidationError
from starlette.datastructures import QueryParams
from starlette.responses import Response
from starlette.types import Scope

from models.onnx_file.card import Card
from serving.http.body_parsing import shorten
from serving.http.errors import RequestError
from serving.http.loaded_model import LoadedModel
from serving.http.rendering import Renderer
from serving.http.request_body import BodyLimits

MAX_NAME = 100
"""Number of characters of the name of a model that are compared; no name has as many."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request to a route of a protocol."""

    scope: Scope
    """The ASGI scope of the request."""
    values: Mapping[str, str]
    """Variable parts of the path, by their names in the template."""
    query: QueryParams
    headers: Mapping[bytes, bytes]
    """Header fields, with names in lower case."""
    body: bytes
    """The whole body, decompressed. Empty if the route does not read it."""


AnyModel = TypeVar("AnyModel", bound=BaseModel)
Handler = Callable[[Call], Awaitable[Response]]


@dataclass(frozen=True)
class Route:
    """One method of one path."""

    template: str
    """Path in which `{name}` stands for a variable part, such as "/images/{seed}/{index}.png". Metrics have this label,
    because there may be any number of paths."""
    respond: Handler
    operation: Callable[[Card | None], dict[str, Any] | None]
    """Returns the operation in the OpenAPI document for the model that is served, without its tag, errors and security.
    None if no request to the route can succeed with this model."""
    http_method: str = "GET"
    """GET, which includes HEAD, or POST."""
    needs_token: bool = True
    """Whether the request needs the token, if the service has one."""
    uses_engine: bool = True
    """Whether the request counts against the limit of requests in progress. The body of other requests is not read."""
    body_limits: Callable[[Mapping[bytes, bytes]], BodyLimits] | None = None
    """Returns the limits of the body from the header fields; None applies those of the service's own routes."""
    error_statuses: tuple[int, ...] = ()
    """Statuses of error responses that the OpenAPI document lists."""

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Matches the paths of this route."""
        return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(self.template)))


@dataclass(frozen=True)
class Protocol:
    """Routes that share their prefixes, the format of their errors, and a section of the OpenAPI document."""

    title: str
    """Name of the section in the OpenAPI document."""
    description: str
    prefixes: tuple[str, ...]
    """Beginnings of paths. Errors of all paths that begin with one of them have the format of the protocol."""
    routes: Sequence[Route]
    """Routes that are requested most often come first."""
    error_content: Callable[[RequestError], dict[str, Any]] | None = None
    """Returns the JSON of an error response; None selects the service's own format."""
    error_schema: str = "Error"
    """Name of the JSON schema of `error_content` in the OpenAPI document."""
    error_headers: tuple[tuple[bytes, bytes], ...] = ()
    """Additional header fields of error responses."""
    schemas: Mapping[str, Any] = field(default_factory=dict)
    """JSON schemas that the operations and errors refer to, by name."""

    def match(self, path: str) -> dict[str, tuple[Route, Mapping[str, str]]]:
        """Returns the routes of a path by HTTP method, each with the variable parts of the path. Empty if there is
        no route."""
        found: dict[str, tuple[Route, Mapping[str, str]]] = {}
        for route in self.routes:
            if match := route.pattern.fullmatch(path):
                found[route.http_method] = route, match.groupdict()
        return found

    def error_response(self, error: RequestError) -> Response:
        """Returns an error response in the format of the protocol."""
        return error.response(self.error_headers, self.error_content)


def template_of(protocols: Sequence[Protocol], path: str) -> str | None:
    """Returns the template of the route that has a path, or None if no protocol has one."""
    for protocol in protocols:
        if path.startswith(protocol.prefixes):
            return next((route.template for route in protocol.routes if route.pattern.fullmatch(path)), None)
    return None


def validate(model: type[AnyModel], fields: Mapping[str, Any]) -> AnyModel:
    """Checks the JSON of a request.

    Raises:
        RequestError: 400 for the first field that is invalid.
    """
    try:
        return model.model_validate(fields)
    except ValidationError as errors:
        error = errors.errors(include_url=False)[0]
        value = "" if error["type"] == "missing" else f", got {shorten(error['input'])}"
        location = ".".join(str(part)[:50] for part in error["loc"])
        raise RequestError(400, error["msg"] + value, location or None) from None


def find_model(name: str | None) -> tuple[LoadedModel, Renderer]:
    """Returns a model by its name, and what makes responses from it; None selects the default model.

    Raises:
        RequestError: 404 if there is no such model, 503 if its file could not be opened.
    """
    service = bentoml.get_current_service()
    try:
        return service.models.get(name and name[:MAX_NAME]), service.renderer
    except RequestError as error:
        status = 404 if error.status == 400 else error.status
        raise RequestError(status, error.message, error.field) from None
