"""Answers the routes of the API in front of BentoML's own router.

BentoML's path to a method (routing, binding of a signature, two context managers) costs as much as one image does. This
one reads the same fields, calls the same methods, and no more; BentoML's definitions of the routes stay what its Python
client and the Bento's schema are made from.
"""

import logging
from collections.abc import Iterable
from typing import Any

import bentoml
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.errors import explain, shaped

logger = logging.getLogger("bentoml.mnist-gan")


class Direct:
    """ASGI middleware; what is none of these routes goes on to BentoML."""

    def __init__(self, app: ASGIApp, methods: Iterable[Any]):
        """
        Args:
            methods: BentoML's descriptions of them.
        """
        self.app = app
        self.methods = {method.route: method for method in methods}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        posted = scope["type"] == "http" and scope["method"] == "POST"
        method = self.methods.get(scope["path"]) if posted else None
        app = await self._answer(method, Request(scope, receive)) if method else self.app
        await app(scope, receive, send)

    async def _answer(self, method: Any, request: Request) -> Response:
        try:
            query = await method.input_spec.from_http_request(request, None)
            fields = {name: getattr(query, name) for name in method.input_spec.model_fields}
            return await method.func(bentoml.get_current_service(), **fields)
        except Exception as error:
            status, message, field = explain(error)
            if status == 500:
                logger.exception("%s failed", method.route)
            return shaped(status, message, field)
