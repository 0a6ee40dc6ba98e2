"""Cross-origin requests: which web pages may call the service, and which response headers they can read."""

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from serving.http.errors import RequestError

EXPOSED_HEADERS = ("X-Seed", "X-Model", "X-Request-Id", "Retry-After", "Content-Disposition")


class Cors(CORSMiddleware):
    """Starlette's CORS middleware, with preflight errors in the JSON format of all errors."""

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code < 400:
            return response
        return RequestError(response.status_code, bytes(response.body).decode()).response(response.raw_headers)
