"""Cross-origin requests (CORS) from web pages of other sites."""

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from serving.http.errors import RequestError

EXPOSED_HEADERS = (
    *("X-Seed", "X-Model", "X-Model-Bytes", "X-Request-Id", "Retry-After", "Content-Disposition", "ETag"),
    "Inference-Header-Content-Length",
)
"""Response headers that web pages of other origins may read."""


class Cors(CORSMiddleware):
    """Starlette's CORS middleware, except that preflight errors have the JSON format of all other errors."""

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code < 400:
            return response
        return RequestError(response.status_code, bytes(response.body).decode()).response(response.raw_headers)
