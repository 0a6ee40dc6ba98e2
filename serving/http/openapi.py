"""OpenAPI description of the HTTP API, for the model that is served. The Swagger page at / shows it.

It is generated from the models that validate the requests; other protocols describe their routes themselves. BentoML's
own description is not used: it has one media type for each route, another error format, and only the first type of each
union.
"""

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import models_json_schema

from models.common.version import version
from models.onnx_file.card import Card
from models.onnx_file.store import MODEL_NAME
from serving.http import protocols, request_fields
from serving.http.encodings import NPY, NPZ, PNG
from serving.http.errors import error_code
from serving.http.model_loading import LoadFields
from serving.http.protocols.routing import Protocol
from serving.http.settings import SETTINGS

REFERENCE = "#/components/schemas/{model}"
CARD_REFERENCE = "#/components/schemas/Card{model}"
"""Names of the parts of the card, such as CardDataset; without the prefix, they could collide with
request fields."""
BINARY = {"type": "string", "format": "binary"}
ERROR_STATUSES = (400, 401, 413, 415, 429, 500, 503, 504)
"""Statuses of error responses to a POST request; 401 only if the service has a token."""
CARD_ERROR_STATUSES = (400, 401, 500, 503, 504)
"""Statuses of error responses to GET /card."""
MODELS_ERROR_STATUSES = (401, 500, 504)
"""Statuses of error responses to GET /models."""
LOAD_ERROR_STATUSES = (400, 401, 403, 404, 409, 413, 415, 429, 500, 504)
"""Statuses of error responses to POST /models/{name}/load."""
EXAMPLE_CLASSES = 10
"""Maximum number of classes in an example or a description."""

IMAGES_TAG, MODEL_TAG, MONITORING_TAG = "Images", "Model", "Monitoring"
TAGS = {
    IMAGES_TAG: "Images as PNG, NumPy files or animations.",
    MODEL_TAG: "The models that are served.",
    MONITORING_TAG: "Health checks and metrics. They need no token.",
}


@dataclass(frozen=True)
class Route:
    """Description of a route that is called with POST."""

    fields: type[request_fields.RequestFields]
    summary: str
    description: str
    media_types: tuple[str, ...]
    """Media types that a response can have."""
    has_seed: bool
    """Whether the response reports its seed in the header X-Seed."""
    tag: str = IMAGES_TAG


ROUTES = {
    "/generate": Route(
        request_fields.Generate,
        "Generate a grid of images",
        "Returns images `first` to `first + n - 1` of a seed as one PNG grid.",
        (PNG,),
        has_seed=True,
    ),
    "/dataset": Route(
        request_fields.GenerateDataset,
        "Generate a data set",
        "Returns images `first` to `first + n - 1` of a seed as a NumPy .npz file: `images` uint8 (n, height, width), "
        "or (n, height, width, 3) for colour, and `labels` int64 (n) if the generator is class-conditional.",
        (NPZ,),
        has_seed=True,
    ),
    "/write": Route(
        request_fields.Write,
        "Write a text",
        "Generates one image for each character of a text and returns them as one PNG row.",
        (PNG,),
        has_seed=True,
    ),
    "/interpolate": Route(
        request_fields.Interpolate,
        "Interpolate between two images",
        "Returns a PNG row of frames, or a GIF or WebP animation that plays forward and backward.",
        (PNG, "image/gif", "image/webp"),
        has_seed=False,
    ),
    "/decode": Route(
        request_fields.Decode,
        "Decode latents",
        "Decodes latents that the client sends as JSON and returns a PNG grid. The body can also be a NumPy .npy file "
        "of latents, float (n, latent_dim). The response is then an .npy file of images, uint8 (n, channels, height, "
        "width).",
        (PNG, NPY),
        has_seed=False,
    ),
    "/card": Route(
        request_fields.ModelFields,
        "Get the model card",
        "Returns the card of the model: its name, image shape, classes, training data, configuration and metrics.",
        ("application/json",),
        has_seed=False,
        tag=MODEL_TAG,
    ),
}


def specification(card: Card | None) -> dict[str, Any]:
    """Returns the OpenAPI 3.1 document.

    Args:
        card: card of the model that is served, for which every example is a valid request. None if no model is served.
    """
    fields = [*(route.fields for route in ROUTES.values()), *([LoadFields] if SETTINGS.load_folder else [])]
    _, schemas = models_json_schema([(model, "validation") for model in fields], ref_template=REFERENCE)
    paths: dict[str, Any] = {
        path: {"post": _operation(path, route, card)} for path, route in ROUTES.items() if _is_usable(path, card)
    }
    paths["/card"] = {"get": _card_by_get(paths["/card"]["post"])} | paths["/card"]
    paths["/models"] = {"get": _list_models()}
    if SETTINGS.load_folder:
        paths["/models/{name}/load"] = {"post": _load_model()}
    paths |= {
        "/livez": _monitoring("Check liveness", "The process is running."),
        "/readyz": _monitoring("Check readiness", "The model file was opened and passed its checks.", unready=True),
        "/metrics": _monitoring("Get metrics", "Metrics in the Prometheus text format."),
    }
    components: dict[str, Any] = {
        "schemas": schemas["$defs"] | _card_schemas() | {"Error": _error_schema(), "Model": _model_schema()}
    }
    tags = dict(TAGS)
    for protocol in protocols.enabled(SETTINGS):
        tags[protocol.title] = protocol.description
        components["schemas"] |= protocol.schemas
        for template, operations in _protocol_paths(protocol, card).items():
            paths[template] = paths.get(template, {}) | operations
    if SETTINGS.api_token:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {"title": MODEL_NAME, "version": version(), "description": _description(card)},
        "servers": [{"url": "."}],
        "tags": [{"name": name, "description": description} for name, description in tags.items()],
        "paths": paths,
        "components": components,
    }


def _is_usable(path: str, card: Card | None) -> bool:
    """Returns whether any request to the path can succeed: /write needs a class whose name is one character."""
    return path != "/write" or card is None or any(len(name) == 1 for name in card.class_names)


def _description(card: Card | None) -> str:
    if card is None:
        return "The service could not open its model file; its log has the reason."
    classes = "without classes"
    if card.class_names:
        rest = len(card.class_names) - EXAMPLE_CLASSES
        names = ", ".join(card.class_names[:EXAMPLE_CLASSES])
        classes = f"with the classes {names}{f' and {rest:,} more' if rest > 0 else ''}"
    return (
        f"Generates images with the model {card.name}, {classes}. The model, a seed and an index identify an image: "
        "the same request with the same seed returns the same images. The [playground](./playground) shows the images "
        "while you change the fields."
    )


def _operation(path: str, route: Route, card: Card | None) -> dict[str, Any]:
    """Describes a POST request."""
    body_schema = {"$ref": REFERENCE.format(model=route.fields.__name__)}
    content: dict[str, Any] = {"application/json": {"schema": body_schema, "example": _example(path, card)}}
    headers = {
        "X-Model": {
            "description": "`file_sha256` of the model, which is not what `sha256sum` prints.",
            "schema": {"type": "string"},
        }
    }
    if route.has_seed:
        headers["X-Seed"] = {
            "description": "Seed of the images, from the request or chosen by the service.",
            "schema": {"type": "integer"},
        }
    if path == "/card":
        headers["X-Model-Bytes"] = {"description": "Size of the model file in bytes.", "schema": {"type": "integer"}}
    response_schema = {"$ref": REFERENCE.format(model="Card")} if path == "/card" else BINARY
    operation: dict[str, Any] = {
        "tags": [route.tag],
        "summary": route.summary,
        "description": route.description,
        "requestBody": {
            "content": content,
            "required": any(f.is_required() for f in route.fields.model_fields.values()),
        },
        "responses": {
            "200": {
                "description": "Success",
                "headers": headers,
                "content": {media_type: {"schema": response_schema} for media_type in route.media_types},
            }
        }
        | _errors(ERROR_STATUSES),
    } | _security()
    if path == "/decode":
        content[NPY] = {"schema": BINARY}
        operation["parameters"] = [
            {
                "name": "labels",
                "in": "query",
                "description": f"Labels of an .npy body: {request_fields.LABELS_TEXT}.",
                "schema": {"type": "string"},
            }
        ]
    return operation


def _card_by_get(post: dict[str, Any]) -> dict[str, Any]:
    """Describes GET /card, which returns the same card as POST /card."""
    same = {name: post[name] for name in ("tags", "summary", "description")}
    parameters = [
        {"name": name, "in": "query", "description": field.pop("description"), "schema": field}
        for name, field in request_fields.ModelFields.model_json_schema()["properties"].items()
    ]
    return (
        same
        | {"parameters": parameters, "responses": {"200": post["responses"]["200"]} | _errors(CARD_ERROR_STATUSES)}
        | _security()
    )


def _list_models() -> dict[str, Any]:
    """Describes GET /models."""
    schema = {
        "type": "object",
        "properties": {"models": {"type": "array", "items": {"$ref": REFERENCE.format(model="Model")}}},
        "required": ["models"],
    }
    return {
        "tags": [MODEL_TAG],
        "summary": "List the models",
        "description": "Returns the name, the state and the hash of each model.",
        "responses": {"200": {"description": "Success", "content": {"application/json": {"schema": schema}}}}
        | _errors(MODELS_ERROR_STATUSES),
    } | _security()


def _load_model() -> dict[str, Any]:
    """Describes POST /models/{name}/load."""
    body, model = (REFERENCE.format(model=name) for name in (LoadFields.__name__, "Model"))
    return {
        "tags": [MODEL_TAG],
        "summary": "Replace the file of a model",
        "description": "Opens and checks a model file, and serves it from then on. If a check fails, the present file "
        "stays.",
        "parameters": [
            {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "enum": [*SETTINGS.models]}}
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": body}, "example": {"source": "generator.onnx"}}},
        },
        "responses": {"200": {"description": "Success", "content": {"application/json": {"schema": {"$ref": model}}}}}
        | _errors(LOAD_ERROR_STATUSES),
    } | _security()


def _monitoring(summary: str, success: str, unready: bool = False) -> dict[str, Any]:
    """Describes a path for health checks or metrics."""
    responses = {"200": {"description": success}} | (_errors((503,)) if unready else {})
    return {"get": {"tags": [MONITORING_TAG], "summary": summary, "responses": responses}}


def _security() -> dict[str, Any]:
    """Describes the token that an operation requires. Paths without this entry do not require a token."""
    return {"security": [{"token": []}]} if SETTINGS.api_token else {}


def _protocol_paths(protocol: Protocol, card: Card | None) -> dict[str, Any]:
    """Describes the routes of another protocol."""
    paths: dict[str, Any] = {}
    for route in protocol.routes:
        operation = route.operation(card)
        if operation is not None:
            statuses = (401, *route.error_statuses) if route.needs_token else route.error_statuses
            operation["responses"] |= _errors(tuple(sorted(statuses)), protocol.error_schema)
            operation = {"tags": [protocol.title]} | operation | (_security() if route.needs_token else {})
            paths.setdefault(route.template, {})[route.http_method.lower()] = operation
    return paths


def _errors(statuses: tuple[int, ...], schema: str = "Error") -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": REFERENCE.format(model=schema)}}}
    return {
        str(status): {"description": f"Error `{error_code(status)}`", "content": content}
        for status in statuses
        if status != 401 or SETTINGS.api_token
    }


def _example(path: str, card: Card | None) -> dict[str, Any]:
    """Returns a request body that is valid for the model and within the limits of the settings."""
    names = card.class_names[:EXAMPLE_CLASSES] if card else ()
    # Longer names are valid only as indices.
    classes = [name if len(name) <= request_fields.MAX_NAME else index for index, name in enumerate(names)]
    label = {"label": classes[0]} if classes else {}
    labels = {"labels": classes[: SETTINGS.max_array_images]} if classes else {}
    letters = "".join(name for name in (card.class_names if card else "0123456789") if len(name) == 1)
    examples: dict[str, dict[str, Any]] = {
        "/generate": {"n": _number_of_images(16, SETTINGS.max_sheet_images, card, scale=2), "seed": 7} | labels,
        "/dataset": {"n": _number_of_images(1_000, SETTINGS.max_array_images, card, scale=1), "seed": 7},
        "/write": {"text": letters[: request_fields.MAX_TEXT], "seed": 7},
        "/interpolate": {"from": {"seed": 1} | label, "to": {"seed": 2} | label, "frames": 24, "format": "png"},
        "/decode": {"latents": [[0.0] * (card.latent_dim if card else 64)]} | labels,
        "/card": {},
    }
    return examples[path]


def _number_of_images(wanted: int, limit: int, card: Card | None, scale: int) -> int:
    """Returns the wanted number of images, or fewer if the settings allow fewer in one response."""
    pixel_bytes = math.prod(card.image_shape) * scale**2 if card else 1
    return max(1, min(wanted, limit, SETTINGS.max_response_bytes // pixel_bytes))


@cache
def _card_schemas() -> dict[str, Any]:
    """Returns the schemas of the card and its parts, by their names in `components`."""
    card = TypeAdapter(Card).json_schema(mode="serialization", ref_template=CARD_REFERENCE)
    parts = card.pop("$defs")
    card["required"] = list(card["properties"])  # a response also contains the fields that have defaults
    return {"Card": card} | {f"Card{name}": schema for name, schema in parts.items()}


def _model_schema() -> dict[str, Any]:
    """Returns the schema of `ModelRegistry.describe`."""
    fields = {
        "name": {"type": "string", "description": "Name by which requests choose the model."},
        "default": {"type": "boolean", "description": "Whether it is the model of requests that name none."},
        "state": {
            "enum": ["ready", "loading", "failed"],
            "description": "loading: its new file is being opened, and the present one is served. failed: its file "
            "could not be opened.",
        },
        "card_name": {"type": ["string", "null"], "description": "`name` in the card of the file that is served."},
        "file_sha256": {"type": ["string", "null"], "description": "`file_sha256` in that card, as in X-Model."},
    }
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


def _error_schema() -> dict[str, Any]:
    fields = {
        "code": {"type": "string", "description": "Kind of error, for programs."},
        "message": {"type": "string", "description": "Description of the problem, with the value and what to do."},
        "field": {"type": ["string", "null"], "description": "Name of the invalid field, or null."},
    }
    error = {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
    return {"type": "object", "properties": {"error": error}, "required": ["error"], "additionalProperties": False}
