"""Images by URL, for the `src` of an image on a page, a cell of a spreadsheet, or a badge.

    GET /images/{seed}/{index}.png    one image
    GET /write/{seed}.png             a text in generated handwriting

Each picture has a weak ETag, which is made of everything that its pixels depend on, so a client or a cache can ask
whether its copy is still valid, without running the network. If the query names the model file in `v`, the picture
never changes and needs no such question.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache, partial
from typing import Annotated, Any, Literal, get_args

import numpy as np
import onnxruntime
import PIL
from pydantic import BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError
from starlette.responses import Response

from models.common.errors import InputError
from models.common.version import version
from models.onnx_file.card import Card
from serving.http.engine import LatentSource
from serving.http.errors import RequestError
from serving.http.protocols.picture import SIZE_PATTERN, Picture, picture_of_size, read_size
from serving.http.protocols.routing import Call, Protocol, Route, find_model
from serving.http.request_fields import (
    MAX_NAME,
    MAX_TEXT,
    OMITTED_LABELS,
    Index,
    ModelFields,
    Scale,
    Seed,
    Truncation,
    fields_of_query,
    input_errors_as_400,
    optional,
)
from serving.http.settings import Settings

YEAR_SECONDS = 365 * 24 * 3600
"""Time for which a cache may keep a picture with `v`."""
MIN_HASH_DIGITS = 12
"""Minimum number of digits of `v`: 48 bits, so that no other model file has them by accident."""
UrlFormat = Literal["png", "webp"]
"""Formats of a picture, which are the extensions of its path."""
DEFAULT_SCALE = 2
ERROR_STATUSES = (400, 404, 429, 500, 503, 504)


def _check_digits(value: object) -> object:
    if isinstance(value, str) and not (value.isascii() and value.isdecimal()):
        raise PydanticCustomError("int_parsing", "Input should be an integer in decimal digits")
    return value


Digits = BeforeValidator(_check_digits)
"""Allows only digits for an integer. pydantic would also accept signs, underscores, spaces and ".0"."""


class PictureFields(ModelFields):
    """Fields of the URL of a picture."""

    model_config = ConfigDict(strict=False)  # all values arrive as text

    seed: Annotated[Seed, Digits] = Field(description="Seed of the images.", examples=[7])
    truncation: Truncation = 1.0
    v: str = optional(
        pattern=f"^[0-9a-f]{{{MIN_HASH_DIGITS},64}}$",
        description=f"First digits of the card's `file_sha256`, at least {MIN_HASH_DIGITS}. The picture then never "
        "changes, and caches keep it for a year. If the service has another model file, the response is an error.",
    )


class ImageFields(PictureFields):
    """Fields of the URL of one image."""

    index: Annotated[Index, Digits] = Field(description="Index of the image.", examples=[3])
    label: str = optional(max_length=MAX_NAME, description=f"Class name or index. {OMITTED_LABELS}")
    scale: Annotated[Scale, Digits] = DEFAULT_SCALE


class WriteFields(PictureFields):
    """Fields of the URL of a text."""

    text: str = Field(
        min_length=1,
        max_length=MAX_TEXT * 16,
        description="Text to write: each character is the name of a class, or longer class names separated by commas.",
    )
    first: Annotated[Index, Digits] = Field(default=0, description="Index of the first image.")
    size: str = optional(
        pattern=SIZE_PATTERN,
        description="Width and height of the picture in pixels, such as 256x128, each from 16 to 2048. The text has "
        "the largest scale that fits, on a black background.",
    )
    scale: Annotated[Scale, Digits] = optional(
        description=f"Enlargement: each pixel becomes a square of this width and height. Without `size`, the default "
        f"is {DEFAULT_SCALE}."
    )


FORMATS: tuple[UrlFormat, ...] = get_args(UrlFormat)
FIELDS: dict[str, type[PictureFields]] = {"/images/{seed}/{index}": ImageFields, "/write/{seed}": WriteFields}
"""Fields by path, without the extension. The path has some of them, the query has the others."""


def protocol(settings: Settings) -> Protocol:
    """Returns the routes. They need the token if the service has one, unless the setting `public_images` is on."""
    private = settings.api_token is not None and not settings.public_images
    routes = [
        Route(
            f"{path}.{format}",
            respond=partial(respond, f"{path}.{format}", format, private),
            operation=partial(_operation, path, format),
            needs_token=private,
            error_statuses=ERROR_STATUSES,
        )
        for path in FIELDS
        for format in FORMATS
    ]
    return Protocol(
        "Images by URL",
        "Pictures that a page can show by their address. See docs/images.md.",
        ("/images/", "/write/"),
        routes,
        error_headers=((b"cache-control", b"no-store"),),
    )


async def respond(template: str, format: UrlFormat, private: bool, call: Call) -> Response:
    """Responds with a picture, or with 304 if the client has it already.

    Args:
        template: template of the path.
        format: format of the picture.
        private: whether only clients with the token may get the picture.
        call: the request.

    Raises:
        RequestError: 400 if a field is invalid, 404 if the service does not have the model or the model file.
    """
    fields = _read(template, call)
    model, renderer = find_model(fields["model"])
    card = model.card
    if fields["v"] and not card.file_sha256.startswith(fields["v"]):
        raise RequestError(404, f"The service has the model file {card.file_sha256}, which does not begin with v", "v")
    first, labels, picture = _image(card, format, fields) if "index" in fields else _text(card, format, fields)
    n = 1 if labels is None else len(labels)
    with input_errors_as_400(first="index" if "index" in fields else "first"):
        source: LatentSource = model.generator.seeded_latents(
            fields["seed"], first, n, labels and list(np.roll(labels, first % n)), fields["truncation"]
        )
    renderer.pixel_bytes(model, source, picture)
    headers = {
        "X-Seed": str(fields["seed"]),
        "Cache-Control": _cache_control(private, fixed=fields["v"] is not None),
        "ETag": _entity_tag(card, template, fields["seed"], first, labels, fields["truncation"], picture),
    }
    known = _has_tag(call.headers.get(b"if-none-match", b""), headers["ETag"])
    if not known and call.scope["method"] == "GET":
        return await renderer.respond(template, model, source, picture, headers)
    headers["X-Model"] = card.file_sha256
    if known:
        return Response(status_code=304, headers=headers)
    response = Response(headers=headers, media_type=picture.media_type)
    del response.headers["content-length"]  # it is not known without the picture
    return response


def _read(template: str, call: Call) -> dict[str, Any]:
    """Reads the fields from the path and the query."""
    model = FIELDS[template.rpartition(".")[0]]
    for name in call.query:
        if name in call.values:
            raise RequestError(400, f"{name} is a part of the path and cannot be a field of the query", name)
    return model.check({**fields_of_query(call.query), **call.values})


def _image(card: Card, format: UrlFormat, fields: Mapping[str, Any]) -> tuple[int, Any, Picture]:
    """Returns the index, the class, and the encoding of one image."""
    labels = None
    if fields["label"] is not None:
        with input_errors_as_400(labels="label"):
            labels = card.class_indices(fields["label"])
            if len(labels) > 1:
                raise InputError("labels", f"give one class, got {len(labels)}: {fields['label']!r:.80}")
    return fields["index"], labels, Picture(format, fields["scale"])


def _text(card: Card, format: UrlFormat, fields: Mapping[str, Any]) -> tuple[int, list[int], Picture]:
    """Returns the index of the first image, the classes, and the encoding of a text."""
    with input_errors_as_400(labels="text"):
        labels = classes_of_text(card, fields["text"])
    if fields["size"] is None:
        return fields["first"], labels, Picture(format, fields["scale"] or DEFAULT_SCALE)
    if fields["scale"] is not None:
        raise RequestError(400, "Give either size or scale; with a size, the scale is the largest that fits", "scale")
    size = read_size(fields["size"])
    return fields["first"], labels, picture_of_size(format, len(labels), card.image_shape, size)


def classes_of_text(card: Card, text: str) -> list[int]:
    """Returns the class indices of a text: one for each character if all are class names, else by docs/labels.md.

    Raises:
        InputError: a part of the text is not a class, it has more than MAX_TEXT images, or the model has no classes.
    """
    has_longer_name = any(len(name) > 1 for name in card.class_names)
    if has_longer_name and not set(text) <= set(card.class_names):
        labels = card.class_indices(text)
    else:
        labels = card.class_indices_by_character(text)
    if len(labels) > MAX_TEXT:
        raise InputError("labels", f"at most {MAX_TEXT} images can be written, got {len(labels)}")
    return labels


def _cache_control(private: bool, fixed: bool) -> str:
    """Returns the Cache-Control field. A shared cache must not give a picture to clients without the token."""
    if not fixed:
        return "private, no-cache" if private else "no-cache"
    return f"{'private' if private else 'public'}, max-age={YEAR_SECONDS}, immutable"


def _entity_tag(card: Card, *parts: Any) -> str:
    """Returns a weak ETag of the model file, the parts, and the versions of the libraries that make the picture.

    It is weak because the pixels may differ by one level between kinds of processors.
    """
    text = json.dumps([card.file_sha256, *_versions(), *parts], default=asdict)
    return f'W/"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'


@cache
def _versions() -> tuple[str, str, str]:
    return version(), onnxruntime.__version__, PIL.__version__


def _has_tag(header: bytes, tag: str) -> bool:
    """Returns whether an If-None-Match field lists an ETag. The comparison ignores whether they are weak."""
    return header.strip() == b"*" or tag.removeprefix("W/").encode() in re.findall(rb'"[^"]*"', header)


def _operation(path: str, format: str, card: Card | None) -> dict[str, Any] | None:
    """Describes a route for the OpenAPI document."""
    writes = path == "/write/{seed}"
    if writes and card is not None and not card.class_names:
        return None
    schema = FIELDS[path].model_json_schema()
    parameters = [
        {
            "name": name,
            "in": "path" if f"{{{name}}}" in path else "query",
            "required": name in schema.get("required", []),
            "description": field.pop("description", ""),
            "schema": field,
        }
        for name, field in schema["properties"].items()
    ]
    for parameter in parameters:
        if parameter["name"] == "text" and card is not None:
            parameter["example"] = _example_text(card)
        elif examples := parameter["schema"].pop("examples", []):
            parameter["example"] = examples[0]
    headers = {
        name: {"description": description, "schema": {"type": "string"}}
        for name, description in (
            ("X-Model", "`file_sha256` of the model."),
            ("X-Seed", "Seed of the images."),
            ("Cache-Control", "How long a cache may keep the picture."),
            ("ETag", "Tag for `If-None-Match`."),
        )
    }
    content = {f"image/{format}": {"schema": {"type": "string", "format": "binary"}}}
    return {
        "summary": f"Get {'a text' if writes else 'an image'} as {format.upper() if format == 'png' else 'WebP'}",
        "description": (
            "Returns a text in generated handwriting: one image for each character, from `first` on."
            if writes
            else "Returns one image of a seed."
        ),
        "parameters": parameters,
        "responses": {
            "200": {"description": "Success", "headers": headers, "content": content},
            "304": {"description": "The picture has the ETag that `If-None-Match` lists."},
        },
    }


def _example_text(card: Card) -> str:
    """Returns a valid text of up to four images."""
    letters = [name for name in card.class_names if len(name) == 1][:4]
    return "".join(letters) if letters else card.class_names[0]
