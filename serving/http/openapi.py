"""The OpenAPI description of the HTTP API, for the model that is being served.

BentoML's own tells one media type a route and errors of another shape, and turns a choice of types into its first; so
this is made from the same request models that the routes read their fields with.
"""

from dataclasses import dataclass
from typing import Any

from pydantic.json_schema import models_json_schema

from models.onnx_file.card import Card
from models.onnx_file.store import MODEL_NAME
from serving.http import request_fields
from serving.http.encodings import NPY, NPZ, PNG
from serving.http.errors import error_code
from serving.http.settings import SETTINGS

REFERENCE = "#/components/schemas/{model}"
BINARY = {"type": "string", "format": "binary"}
REFUSALS = (400, 401, 413, 415, 429, 500, 503, 504)


@dataclass(frozen=True)
class Route:
    fields: type[request_fields.RequestFields]
    summary: str
    answers: tuple[str, ...]
    """Media types."""
    addressed: bool
    """By a seed, which the answer tells."""


ROUTES = {
    "/generate": Route(request_fields.Generate, "Images, laid out on a sheet", (PNG,), True),
    "/dataset": Route(request_fields.Dataset, "Images, and their labels if there are classes, as .npz", (NPZ,), True),
    "/write": Route(request_fields.Write, "A text in generated handwriting", (PNG,), True),
    "/interpolate": Route(
        request_fields.Interpolate, "The way from one image to another", (PNG, "image/gif", "image/webp"), False
    ),
    "/decode": Route(request_fields.Decode, "Images of latents of your own", (PNG, NPY), False),
    "/card": Route(request_fields.NoFields, "What the model says of itself", ("application/json",), False),
}


def specification(card: Card | None) -> dict[str, Any]:
    """OpenAPI 3.1.

    Args:
        card: of the model, whose sizes and classes the examples are to fit; None while there is none.
    """
    _, schemas = models_json_schema([(route.fields, "validation") for route in ROUTES.values()], ref_template=REFERENCE)
    paths: dict[str, Any] = {path: {"post": _operation(path, route, card)} for path, route in ROUTES.items()}
    if card and not card.class_names:
        del paths["/write"]  # it has nothing to write with
    paths["/card"]["get"] = {name: paths["/card"]["post"][name] for name in ("summary", "responses")}
    for path, summary in (
        ("/livez", "Is the process alive?"),
        ("/readyz", "Does it serve? Only once the model's golden images have come out right"),
        ("/metrics", "Figures for Prometheus"),
    ):
        refused = {"503": {"description": "Not ready"}} if path == "/readyz" else {}
        paths[path] = {"get": {"summary": summary, "responses": {"200": {"description": "Yes"}} | refused}}
    told: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": MODEL_NAME, "version": "1", "description": _description(card)},
        "servers": [{"url": "."}],
        "paths": paths,
        "components": {"schemas": schemas["$defs"] | {"Error": _error_schema()}},
    }
    if SETTINGS.api_token:
        told["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        told["security"] = [{"token": []}]
    return told


def _description(card: Card | None) -> str:
    if card is None:
        return "No model is being served; the service's log says why."
    classes = f"; classes {', '.join(card.class_names)}" if card.class_names else ""
    return (
        f"Generated images, addressable by seed and index. Model: {card.name}, latents of {card.latent_dim} "
        f"numbers{classes}. See them move: [playground](./playground)."
    )


def _operation(path: str, route: Route, card: Card | None) -> dict[str, Any]:
    content: dict[str, Any] = {
        "application/json": {
            "schema": {"$ref": REFERENCE.format(model=route.fields.__name__)},
            "example": _example(path, card),
        }
    }
    headers = {"X-Model": {"description": "The model's file_sha256.", "schema": {"type": "string"}}}
    if route.addressed:
        headers["X-Seed"] = {"description": "The seed, given or chosen.", "schema": {"type": "integer"}}
    binary = {media_type: {"schema": BINARY} for media_type in route.answers}
    operation: dict[str, Any] = {
        "summary": route.summary,
        "requestBody": {"content": content, "required": path in ("/write", "/interpolate", "/decode")},
        "responses": {
            "200": {
                "description": route.summary,
                "headers": headers,
                "content": {"application/json": {"schema": {"type": "object"}}} if path == "/card" else binary,
            }
        }
        | {str(status): _refusal(status) for status in REFUSALS if status != 401 or SETTINGS.api_token},
    }
    if path == "/decode":
        content[NPY] = {"schema": BINARY}
        operation["description"] = (
            "Also takes a NumPy .npy file of latents, float (n, latent_dim), as the body, and then answers with one of "
            "images, uint8 (n, channels, height, width)."
        )
        operation["parameters"] = [
            {
                "name": "labels",
                "in": "query",
                "description": f"With an .npy body: {request_fields.LABELS_TEXT}.",
                "schema": {"type": "string"},
            }
        ]
    return operation


def _example(path: str, card: Card | None) -> dict[str, Any]:
    """A body that works as it stands."""
    names = card.class_names if card else None
    label = {"label": names[0]} if names else {}
    labels = {"labels": list(names)} if names else {}
    examples: dict[str, dict[str, Any]] = {
        "/generate": {"n": 16, "seed": 7} | labels,
        "/dataset": {"n": 1000, "seed": 7},
        "/write": {"text": "".join(name for name in names or "0123456789" if len(name) == 1)[:64] or "0", "seed": 7},
        "/interpolate": {"from": {"seed": 1} | label, "to": {"seed": 2} | label, "frames": 24, "format": "png"},
        "/decode": {"latents": [[0.0] * (card.latent_dim if card else 64)]} | labels,
        "/card": {},
    }
    return examples[path]


def _refusal(status: int) -> dict[str, Any]:
    schema = {"$ref": REFERENCE.format(model="Error")}
    return {"description": error_code(status), "content": {"application/json": {"schema": schema}}}


def _error_schema() -> dict[str, Any]:
    text = {"type": "string"}
    fields = {"code": text, "message": text, "field": {"type": ["string", "null"]}}
    error = {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
    return {"type": "object", "properties": {"error": error}, "required": ["error"], "additionalProperties": False}
