"""What a browser opens: the API's description, the page that tries it out, and the card."""

from pathlib import Path

import bentoml
from bentoml.exceptions import ServiceUnavailable
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from serving.openapi import specification

HERE = Path(__file__).parent
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Of the playground: it loads nothing from elsewhere, and nothing runs in it but its own script."""


async def get_card(_: Request) -> Response:
    return await bentoml.get_current_service().card.local()


def get_specification(_: Request) -> Response:
    service = bentoml.get_current_service()
    return JSONResponse(specification(service.generator.card if service.__is_ready__() else None))


def get_swagger(_: Request) -> Response:
    """Swagger's page as BentoML brings it, but for the tag manager that BentoML's own page loads from elsewhere."""
    return FileResponse(HERE / "swagger.html")


def get_playground(request: Request) -> Response:
    file = "index.html" if request.url.path.endswith("/playground") else Path(request.url.path).name
    return FileResponse(HERE / "playground" / file, headers={"Content-Security-Policy": POLICY})


def not_ready(_: Request, __: Exception) -> Response:
    return Response(status_code=503)


pages = Starlette(
    routes=[
        Route("/", get_swagger),
        Route("/docs.json", get_specification),
        Route("/card", get_card),
        Route("/playground", get_playground),
        *(Route(f"/playground/{name}", get_playground) for name in ("style.css", "script.js")),
    ],
    exception_handlers={ServiceUnavailable: not_ready},
)
