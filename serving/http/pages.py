"""Pages that are served on GET: Swagger UI, the OpenAPI document, the card, and the playground."""

from functools import partial
from pathlib import Path

import bentoml
from starlette.responses import JSONResponse, Response

from serving.http.openapi import specification

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


def card() -> Response:
    """Returns the card of the model as JSON.

    Raises:
        RequestError: 503 if the model file could not be opened.
    """
    generator = bentoml.get_current_service().generator
    headers = {"X-Model": generator.card.file_sha256, "X-Model-Bytes": str(len(generator.file))}
    return Response(generator.card.to_json(), media_type="application/json", headers=headers)


def description() -> Response:
    """Returns the OpenAPI document."""
    service = bentoml.get_current_service()
    return JSONResponse(specification(service.generator.card if service.__is_ready__() else None))


def swagger() -> Response:
    """Returns a Swagger UI page for the API. BentoML's own page would load a tag manager from another site."""
    return Response((FOLDER / "swagger.html").read_bytes(), media_type="text/html")


def playground(path: str) -> Response:
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
    "/card": card,
    **{path: partial(playground, path) for path in PLAYGROUND_FILES},
}
"""Functions that return the response to a GET request, by path."""
