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


def get_card(_: Request) -> Response:
    return bentoml.get_current_service().card.local()


def get_specification(_: Request) -> Response:
    service = bentoml.get_current_service()
    return JSONResponse(specification(service.generator.card if service.__is_ready__() else None))


def get_swagger(_: Request) -> Response:
    """Swagger's page as BentoML brings it, but for the tag manager that BentoML's own page loads from elsewhere."""
    return FileResponse(HERE / "swagger.html")


def not_ready(_: Request, __: Exception) -> Response:
    return Response(status_code=503)


pages = Starlette(
    routes=[Route("/", get_swagger), Route("/docs.json", get_specification), Route("/card", get_card)],
    exception_handlers={ServiceUnavailable: not_ready},
)
