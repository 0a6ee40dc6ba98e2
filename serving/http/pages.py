"""Pages for browsers: the description of the API, the page that tries it out, the card, and the playground."""

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
"""Policy for the playground: it loads nothing from other sites and runs no script but its own."""
PLAYGROUND_FILES = {
    "/playground": ("index.html", "text/html"),
    "/playground/style.css": ("style.css", "text/css"),
    "/playground/script.js": ("script.js", "text/javascript"),
}


def card() -> Response:
    """The description of the model, as POST /card returns it.

    Raises:
        RequestError: 503, no model is being served.
    """
    card = bentoml.get_current_service().generator.card
    return Response(card.to_json(), media_type="application/json", headers={"X-Model": card.file_sha256})


def description() -> Response:
    """The OpenAPI description of the API."""
    service = bentoml.get_current_service()
    return JSONResponse(specification(service.generator.card if service.__is_ready__() else None))


def swagger() -> Response:
    """BentoML's page for trying the API, without the tag manager that BentoML's own page loads from another site."""
    return Response((FOLDER / "swagger.html").read_bytes(), media_type="text/html")


def playground(path: str) -> Response:
    """A file of the playground."""
    name, media_type = PLAYGROUND_FILES[path]
    body = (FOLDER / "playground" / name).read_bytes()
    return Response(body, media_type=media_type, headers={"Content-Security-Policy": CONTENT_SECURITY_POLICY})


PAGES = {
    "/": swagger,
    "/docs.json": description,
    "/card": card,
    **{path: partial(playground, path) for path in PLAYGROUND_FILES},
}
"""Pages by path."""
