"""OpenAI's API for images: the prompt selects the classes that are drawn.

POST /v1/images/generations
GET  /v1/models, /v1/models/{model}
"""

import base64
import json
import secrets
import time
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

import bentoml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from starlette.responses import JSONResponse, Response

from models.common.array_types import Images
from models.common.errors import InputError
from models.onnx_file.card import Card
from models.onnx_file.latents import INDEX_LIMIT
from models.onnx_file.store import MODEL_NAME
from serving.http.body_parsing import read_json
from serving.http.encodings import Shape
from serving.http.engine import Labels
from serving.http.errors import RequestError
from serving.http.loaded_model import LoadedModel
from serving.http.protocols.images import MIN_HASH_DIGITS, classes_of_text
from serving.http.protocols.picture import (
    LOSSLESS,
    MAX_SIDE,
    MIN_SIDE,
    SIZE_PATTERN,
    Format,
    Picture,
    picture_of_size,
    read_size,
)
from serving.http.protocols.prompts import prompt_reader
from serving.http.protocols.routing import Call, Handler, Protocol, Route, find_model, validate
from serving.http.request_fields import MAX_TEXT, input_errors_as_400
from serving.http.settings import Settings

MAX_PROMPT = 4_000
"""Maximum number of characters of a prompt."""
MAX_IMAGES = 10
"""Maximum value of n."""
AUTO_HEIGHT = 256
"""Height in pixels that a picture of the size "auto" may have at most, unless one image of the model is larger."""
STARTED = int(time.time())
"""Value of `created` of all models: the time at which this process started. A model file has no date."""
TEMPLATE = "/v1/images/generations"
ERROR = "OpenAiError"
"""Name of the JSON schema of errors."""
REFERENCE = "#/components/schemas/{model}"
CODES = {401: "invalid_api_key", 404: "unknown_url", 429: "rate_limit_exceeded"}
"""Error codes of OpenAI by HTTP status, where they differ from those of the service."""

_IGNORED = "Accepted, without effect."


class GenerateImages(BaseModel):
    """Fields of a request. Every field except the prompt may be null, which is the same as leaving it out."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    prompt: str = Field(min_length=1, max_length=MAX_PROMPT, description="Text with the classes to draw.")
    model: str | None = Field(default=None, description="Name of the model. If omitted, the default model.")
    n: Annotated[int, Field(ge=1, le=MAX_IMAGES)] | None = Field(default=None, description="Number of pictures.")
    size: Annotated[str, Field(pattern=f"^auto$|{SIZE_PATTERN}")] | None = Field(
        default=None,
        description=f"Width and height in pixels, such as 256x256, each from {MIN_SIDE} to {MAX_SIDE}; or auto.",
    )
    response_format: Literal["b64_json", "url"] | None = Field(
        default=None, description="`url` gives the addresses of images by URL. The default is `b64_json`."
    )
    output_format: Format | None = Field(default=None, description="The default is `png`.")
    output_compression: Annotated[int, Field(ge=0, le=100)] | None = Field(
        default=None, description="Quality of WebP and JPEG files; 100 is the default, at which WebP is lossless."
    )
    seed: Annotated[int, Field(ge=0, lt=INDEX_LIMIT)] | None = Field(
        default=None, description="Seed of the images. If omitted, a random one. OpenAI's API has no such field."
    )
    truncation: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="Factor of the latents; smaller values give more typical images."
    )
    stream: bool | None = Field(default=None, description="Only false: the service sends no partial images.")
    quality: Any = Field(default=None, description=_IGNORED)
    style: Any = Field(default=None, description=_IGNORED)
    user: Any = Field(default=None, description=_IGNORED)
    background: Any = Field(default=None, description=_IGNORED)
    moderation: Any = Field(default=None, description=_IGNORED)
    partial_images: Any = Field(default=None, description=_IGNORED)


@dataclass(frozen=True)
class Base64Pictures:
    """Encodes several pictures of the same text as JSON."""

    n: int
    """Number of pictures."""
    picture: Picture
    """Encoding of one picture."""
    head: dict[str, Any]
    """Fields of the response other than the pictures."""
    media_type: str = "application/json"

    def encode(self, images: Images, labels: Labels) -> bytes:
        length = len(images) // self.n
        files = [self.picture.encode(images[i * length : (i + 1) * length], None) for i in range(self.n)]
        return json.dumps(
            {**self.head, "data": [{"b64_json": base64.b64encode(file).decode()} for file in files]}
        ).encode()

    def pixel_bytes(self, n: int, shape: Shape) -> int:
        return self.n * self.picture.pixel_bytes(n // self.n, shape)


def protocol(settings: Settings) -> Protocol:
    """Returns the routes."""
    default = next(iter(settings.models))

    def light(template: str, handler: Handler, summary: str, *statuses: int) -> Route:
        """Returns a GET route that does not use the engine."""
        describe = partial(_describe_light, template, default, summary)
        return Route(template, handler, describe, uses_engine=False, error_statuses=(*statuses, 500))

    routes = [
        Route(
            TEMPLATE,
            partial(generate, settings),
            _describe_generate,
            http_method="POST",
            error_statuses=(400, 404, 413, 415, 429, 500, 503, 504),
        ),
        light("/v1/models", list_models, "List the models"),
        light("/v1/models/{model}", get_model, "Get one model", 404, 503),
    ]
    for name in ("edits", "variations"):
        routes.append(
            Route(f"/v1/images/{name}", refuse_edit, lambda card: None, http_method="POST", uses_engine=False)
        )
    return Protocol(
        "OpenAI Images",
        "OpenAI's API for images: the prompt selects the classes that are drawn.",
        ("/v1/",),
        routes,
        error_content=_error_content,
        error_schema=ERROR,
        schemas=_schemas(),
    )


async def generate(settings: Settings, call: Call) -> Response:
    """Draws the classes of a prompt, and responds with the pictures or with their addresses.

    Args:
        settings: decides whether images have addresses that need no token.
        call: the request.

    Raises:
        RequestError: 400 if a field is invalid or the prompt has no class, 404 if there is no such model.
    """
    request = validate(GenerateImages, read_json(call.body, call.headers))
    if request.stream:
        raise RequestError(400, "The service sends no partial images; leave stream out", "stream")
    model, renderer = find_model(request.model)
    labels = _labels(model.card, request.prompt)
    seed = secrets.randbelow(INDEX_LIMIT) if request.seed is None else request.seed
    n = request.n or 1
    picture = _picture(model.card, len(labels), request)
    assert picture.size
    head = {
        "created": int(time.time()),
        "output_format": picture.format,
        "size": f"{picture.size[0]}x{picture.size[1]}",
        "seed": seed,
    }
    if request.response_format == "url":
        urls = _urls(settings, call, model, labels, request, picture, seed)
        headers = {"X-Seed": str(seed), "X-Model": model.card.file_sha256}
        return JSONResponse({**head, "data": [{"url": url} for url in urls]}, headers=headers)
    # Labels repeat, so that the text of picture i begins with image i * len(labels).
    source = model.generator.seeded_latents(seed, 0, n * len(labels), labels, request.truncation or 1.0)
    return await renderer.respond(TEMPLATE, model, source, Base64Pictures(n, picture, head), {"X-Seed": str(seed)})


def _labels(card: Card, prompt: str) -> list[int]:
    """Returns the class indices to draw."""
    with input_errors_as_400():
        if not card.class_names:
            raise InputError(
                "prompt", f"{card.name} was trained without classes, so no prompt can select what it draws"
            )
        labels = prompt_reader(card.class_names).read(prompt)
        if len(labels) > MAX_TEXT:
            raise InputError("prompt", f"at most {MAX_TEXT} images fit into a picture, got {len(labels)}")
        return labels


def _picture(card: Card, n: int, request: GenerateImages) -> Picture:
    """Returns the encoding of n images in a row as one picture."""
    format = request.output_format or "png"
    quality = LOSSLESS if request.output_compression is None else request.output_compression
    _, height, width = card.image_shape
    if request.size in (None, "auto"):
        scale = max(1, min(AUTO_HEIGHT // height, MAX_SIDE // (n * width)))
        size = max(MIN_SIDE, min(MAX_SIDE, n * width * scale)), max(MIN_SIDE, min(MAX_SIDE, height * scale))
    else:
        assert request.size
        size = read_size(request.size)
    return picture_of_size(format, n, card.image_shape, size, quality=quality)


def _urls(
    settings: Settings,
    call: Call,
    model: LoadedModel,
    labels: list[int],
    request: GenerateImages,
    picture: Picture,
    seed: int,
) -> list[str]:
    """Returns the addresses of the pictures, as images by URL.

    Raises:
        RequestError: 400 if the pictures have no address that needs no token.
    """
    problem = None
    names = [model.card.class_names[label] for label in labels]
    text = "".join(names) if all(len(name) == 1 for name in names) else ",".join(names)
    if "images" not in settings.protocols:
        problem = "images by URL are turned off"
    elif settings.api_token and not settings.public_images:
        problem = "images by URL need the token"
    elif picture.format == "jpeg" or picture.quality != LOSSLESS:
        problem = "images by URL are PNG or lossless WebP files; leave output_compression out"
    elif _reads_differently(model.card, text, labels):
        problem = "an address cannot express these class names"
    if problem:
        raise RequestError(400, f"response_format url is not possible: {problem}. Use b64_json", "response_format")
    assert picture.size
    fields: dict[str, Any] = {"text": text, "size": f"{picture.size[0]}x{picture.size[1]}"}
    if request.truncation is not None:
        fields["truncation"] = request.truncation
    if request.model is not None:
        fields["model"] = model.name
    fields["v"] = model.card.file_sha256[:MIN_HASH_DIGITS]
    host = call.headers.get(b"host", b"localhost").decode("latin-1")
    base = f"{call.scope['scheme']}://{host}/write/{seed}.{picture.format}"
    return [f"{base}?{urlencode({'first': i * len(labels), **fields})}" for i in range(request.n or 1)]


def _reads_differently(card: Card, text: str, labels: list[int]) -> bool:
    """Returns whether the text of an address is read as other classes, such as a name that has a comma."""
    try:
        return classes_of_text(card, text) != labels
    except InputError:
        return True


async def list_models(call: Call) -> Response:
    """Responds with all models that can be used."""
    models = bentoml.get_current_service().models.describe_all()
    data = [_describe_model(model["name"]) for model in models if model["file_sha256"]]
    return JSONResponse({"object": "list", "data": data})


async def get_model(call: Call) -> Response:
    """Responds with one model."""
    model, _ = find_model(call.values["model"])
    return JSONResponse(_describe_model(model.name))


async def refuse_edit(call: Call) -> Response:
    """Raises an error, because a generator cannot edit images."""
    raise RequestError(400, f"The service draws images by their classes and cannot edit them; use {TEMPLATE}")


def _describe_model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": STARTED, "owned_by": MODEL_NAME}


def _error_content(error: RequestError) -> dict[str, Any]:
    """Returns the JSON of an error in the format of OpenAI."""
    code = "model_not_found" if error.field == "model" and error.status == 404 else CODES.get(error.status, error.code)
    kind = "server_error" if error.status >= 500 else "requests" if error.status == 429 else "invalid_request_error"
    return {"error": {"message": error.message, "type": kind, "param": error.field, "code": code}}


def _schemas() -> dict[str, Any]:
    """Returns the JSON schemas of a request and of an error."""
    fields = {
        "message": {"type": "string"},
        "type": {"type": "string"},
        "param": {"type": ["string", "null"]},
        "code": {"type": "string"},
    }
    error = {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
    return {
        "GenerateImages": TypeAdapter(GenerateImages).json_schema(ref_template=REFERENCE),
        ERROR: {"type": "object", "properties": {"error": error}, "required": ["error"], "additionalProperties": False},
    }


def _describe_generate(card: Card | None) -> dict[str, Any] | None:
    """Describes the route that draws a prompt."""
    if card is not None and not card.class_names:
        return None
    example = {"prompt": f"a {card.class_names[0] if card else 3}", "size": "256x256", "seed": 7}
    picture = {"type": "object", "properties": {"b64_json": {"type": "string"}, "url": {"type": "string"}}}
    response = {
        "type": "object",
        "properties": {"created": {"type": "integer"}, "data": {"type": "array", "items": picture}},
        "required": ["created", "data"],
    }
    headers = {
        "X-Model": {"description": "`file_sha256` of the model.", "schema": {"type": "string"}},
        "X-Seed": {"description": "Seed of the images.", "schema": {"type": "integer"}},
    }
    schema = {"$ref": REFERENCE.format(model="GenerateImages")}
    return {
        "summary": "Draw a prompt",
        "description": "Draws the classes that the prompt names, as a row.",
        "requestBody": {"content": {"application/json": {"schema": schema, "example": example}}, "required": True},
        "responses": {
            "200": {
                "description": "Success",
                "headers": headers,
                "content": {"application/json": {"schema": response}},
            }
        },
    }


def _describe_light(template: str, default: str, summary: str, card: Card | None) -> dict[str, Any]:
    """Describes a route that returns one model or all."""
    parameter = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}, "example": default}
    content: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
    return {
        "summary": summary,
        "parameters": [parameter] if "{model}" in template else [],
        "responses": {"200": {"description": "Success", "content": content}},
    }
