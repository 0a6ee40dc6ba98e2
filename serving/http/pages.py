"""Pages that are served on GET: Swagger UI, the OpenAPI document, the card, and the playground."""

from functools import partial
from pathlib import Path

import bentoml
from starlette.datastructures import QueryParams
from starlette.responses import JSONResponse, Response

from serving.http.openapi import specification
from serving.http.request_fields import ModelFields, fields_of_query

FOLDER = Path(__file__).parent
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Policy of the playground: it loads nothing from other sites and runs only its own script."""
MEDIA_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
PLAYGROUND_FILES = {
    "/playground" if file.name == "index.html" else f"/playground/{file.name}": file
    for file in sorted((FOLDER / "playground").iterdir())
    if file.suffix in MEDIA_TYPES
}
"""File of each path of the playground. Its subfolder, the engine that runs the model in the browser, is not served."""


def card(model: str | None = None) -> Response:
    """Returns the card of a model as JSON.

    Args:
        model: name of the model; None for the default model.

    Raises:
        RequestError: 400 if no model has this name, 503 if its file could not be opened.
    """
    generator = bentoml.get_current_service().models.get(model).generator
    headers = {"X-Model": generator.card.file_sha256, "X-Model-Bytes": str(len(generator.file))}
    return Response(generator.card.to_json(), media_type="application/json", headers=headers)


def card_by_query(query: QueryParams) -> Response:
    """Returns the card of the model that the query names, as `card` does.

    Raises:
        RequestError: as `card`, and 400 if the query has other fields.
    """
    return card(**ModelFields.check(fields_of_query(query)))


def models(_: QueryParams) -> Response:
    """Returns the name, the state and the hash of each model as JSON."""
    return JSONResponse({"models": bentoml.get_current_service().models.describe_all()})


def description(_: QueryParams) -> Response:
    """Returns the OpenAPI document."""
    return JSONResponse(specification(bentoml.get_current_service().models.default_card))


def swagger(_: QueryParams) -> Response:
    """Returns a Swagger UI page for the API. BentoML's own page would load a tag manager from another site."""
    return Response((FOLDER / "swagger.html").read_bytes(), media_type="text/html")


def playground(path: str, _: QueryParams) -> Response:
    """Returns a file of the playground.

    Args:
        path: a key of PLAYGROUND_FILES.
    """
    file = PLAYGROUND_FILES[path]
    headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY}
    return Response(file.read_bytes(), media_type=MEDIA_TYPES[file.suffix], headers=headers)


PAGES = {
    "/": swagger,
    "/docs.json": description,
    "/card": card_by_query,
    "/models": models,
    **{path: partial(playground, path) for path in PLAYGROUND_FILES},
}
"""Functions that return the response to a GET request from the query of its URL, by path."""
