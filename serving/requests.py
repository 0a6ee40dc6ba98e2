"""What each route takes, with its limits: one source for validation, the OpenAPI page and the clients' arguments."""

import io
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal, Self

import bentoml
import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import InitErrorDetails, PydanticCustomError, from_json
from starlette.requests import Request

from models.card import MAX_SIZE
from models.errors import InputError
from models.latents import END
from serving.images import MAX_COLUMNS, MAX_SCALE
from serving.settings import SETTINGS

MAX_TEXT = 64
MAX_FRAMES = 240

LABELS_TEXT = "a class name, names or indices with commas between them, or names of one character each"
"""What a text of labels can be; docs/labels.md has the rule."""

NPY_MAGIC = b"\x93NUMPY"
MAX_NPY_HEADER = 1_000
"""Maximum length of the header of an .npy body; NumPy writes about 120 bytes, and parses them as Python."""

_MOST = 4 * max(SETTINGS.max_array_images, SETTINGS.max_sheet_images)
MAX_COUNT = {b",": max(1 << 18, _MOST), b":": _MOST, b"[": _MOST, b"{": _MOST}
"""Maximum number of certain characters in a JSON body, texts included. They bound the number of values, fields, lists
and objects, each of which takes time and memory to read, whether or not the request is valid."""
MAX_FIELDS = 16
"""Maximum number of fields in one JSON object: pydantic builds an error for each that is unknown."""
MAX_NAME = 255
"""Maximum length of a class name in a list, so that the longest list fits into a body; folders have no longer names."""


def _told_as(what: str) -> WrapValidator:
    """One message in the place of pydantic's one for each member of a union."""

    def check(value: object, validate: ValidatorFunctionWrapHandler) -> object:
        try:
            return validate(value)
        except ValidationError:
            raise PydanticCustomError("union", f"Input should be {what}") from None

    return WrapValidator(check)


Name = Annotated[str, Field(max_length=MAX_NAME)]
Label = Annotated[Name | int, _told_as("a class name or index")]
Labels = Annotated[
    Annotated[str, Field(max_length=SETTINGS.max_array_images)]
    | Annotated[list[Name | int], Field(max_length=SETTINGS.max_array_images, fail_fast=True)],
    _told_as(f"a list of class names or indices, or a string of them, of at most {SETTINGS.max_array_images:,}"),
]
Row = Annotated[list[float], Field(max_length=MAX_SIZE, fail_fast=True)]


def optional(**schema: Any) -> Any:
    """A field that may be left out but not be null, which a default of null in the schema would suggest."""

    def hide_default(field: dict[str, Any]) -> None:
        del field["default"]

    return Field(default=None, json_schema_extra=hide_default, **schema)


def _number_of_images(default: int, most: int) -> Any:
    return Field(default=min(default, most), ge=1, le=most, description="How many images.")


Seed = Annotated[int, Field(ge=0, lt=END)]
Index = Annotated[int, Field(ge=0, lt=END)]
Truncation = Annotated[float, Field(gt=0, le=1, description="Less is more typical and less varied.")]
Scale = Annotated[int, Field(ge=1, le=MAX_SCALE, description="Edge of the square that each pixel becomes.")]


class Query(bentoml.IODescriptor):
    """The fields of a request. One that is unknown, null, fractional, out of range or of another type is refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @classmethod
    async def from_http_request(cls, request: Request, serde: object) -> Self:
        """Reads the body as JSON, whatever media type it claims.

        Raises:
            ValidationError: with one error, of the first field that is wrong.
        """
        fields = _read_json(await request.body() or b"{}")
        try:
            return cls.model_validate(fields)
        except ValidationError as errors:
            error = errors.errors(include_url=False)[0]
            message = "Input should be an object" if error["type"] == "model_type" else error["msg"]
            value = "" if error["type"] == "missing" else f", got {_shown(error['input'])}"
            raise refusal(
                message + value, *(part[:MAX_NAME] if isinstance(part, str) else part for part in error["loc"])
            ) from None


class Nothing(Query):
    """No fields."""


class Labelled(Query):
    labels: Labels = optional(
        description=f"A list of class names or indices; or a string: {LABELS_TEXT}. "
        "Image i gets the i-th of them, over and over.",
    )


class LaidOut(Query):
    columns: int = optional(ge=1, le=MAX_COLUMNS, description="Images a row; as square as can be if left out.")
    scale: Scale = 2


class Addressed(Labelled):
    seed: Seed = optional(description="Chosen, and told in X-Seed, if left out.", examples=[7])
    first: Index = Field(default=0, description="Index of the first image.")
    truncation: Truncation = 1.0


class Generate(Addressed, LaidOut):
    """Which images to make, and how to lay them out."""

    n: int = _number_of_images(16, SETTINGS.max_sheet_images)


class Dataset(Addressed):
    """Which images to make."""

    n: int = _number_of_images(1_000, SETTINGS.max_array_images)


class Write(Query):
    """A text in generated handwriting: its i-th character is image i of the seed."""

    text: str = Field(
        min_length=1, max_length=MAX_TEXT, description="Names of classes, one character each.", examples=["31415926535"]
    )
    seed: Seed = optional(description="Chosen, and told in X-Seed, if left out.", examples=[7])
    truncation: Truncation = 1.0
    scale: Scale = 2


class Address(BaseModel):
    """Of one image."""

    model_config = Query.model_config

    seed: Seed
    index: Index = 0
    label: Label = optional(description="A class name or index; drawn if left out.")
    labels: Labels = optional(
        description="In the place of `label`: as in /generate, where the image of this index gets one of them.",
    )

    def asked_labels(self) -> str | list[str | int] | None:
        """Labels as the generator takes them.

        Raises:
            InputError: both fields are given.
        """
        if self.label is None:
            return self.labels
        if self.labels is not None:
            raise InputError("labels", "give either label or labels")
        return [self.label]


class Interpolate(Query):
    """From one image to another. Where their classes differ, one fades into the other on the way."""

    start: Address = Field(alias="from", examples=[{"seed": 1, "index": 0}])
    end: Address = Field(alias="to", examples=[{"seed": 2, "index": 0}])
    frames: int = Field(default=24, ge=2, le=MAX_FRAMES, description="Both ends included.")
    format: Literal["png", "gif", "webp"] = Field(default="png", description="A strip, or an animation there and back.")
    truncation: Truncation = 1.0
    scale: Scale = 2


class Decode(Labelled, LaidOut):
    """Latents of the caller's own, and how to lay their images out."""

    latents: list[Row] = Field(
        description="Shape (n, D); D is latent_dim on the card.",
        min_length=1,
        max_length=SETTINGS.max_sheet_images,
        fail_fast=True,
    )

    @classmethod
    async def from_http_request(cls, request: Request, serde: object) -> Self:
        """Also takes a NumPy .npy file as the body, with `labels` in the query; `latents` is then an array."""
        body = await request.body()
        if not body.startswith(NPY_MAGIC):
            return await super().from_http_request(request, serde)
        query = request.query_params
        for name in query.keys() - {"labels"}:
            raise refusal("No such field in the query beside an .npy body; it takes labels", name)
        if len(query.multi_items()) > 1:
            raise refusal("The field is given twice", "labels")
        if len(query.get("labels", "")) > SETTINGS.max_array_images:
            raise refusal(f"Input should have at most {SETTINGS.max_array_images:,} characters", "labels")
        return cls.model_construct(latents=_read_npy(body), **query)


@contextmanager
def refusing(**renamed: str) -> Iterator[None]:
    """Turns what the model says of its input into an answer for the caller, who may know a field by another name."""
    try:
        yield
    except InputError as error:
        raise refusal(error.message, renamed.get(error.field, error.field)) from None


def refusal(message: str, *field: str | int) -> ValidationError:
    """The error that BentoML answers with a 400; see `serving.errors` for its shape."""
    error = PydanticCustomError("invalid_input", "{message}", {"message": message})
    return ValidationError.from_exception_data("request", [InitErrorDetails(type=error, loc=field, input=None)])


def _read_json(body: bytes) -> dict[str, Any]:
    """Reads a JSON object, at a cost that its length bounds.

    Raises:
        ValidationError: not a JSON object, or one with more values than any request has.
    """
    for character, most in MAX_COUNT.items():
        if len(body) > most and body.count(character) > most:
            what = f"A JSON body has at most {most:,} of the character {character.decode()!r}"
            raise refusal(f"{what}, also in texts; send more latents as an .npy body to /decode")
    try:
        fields = from_json(body, cache_strings="keys")  # a cache of other texts costs more than it saves
    except ValueError as error:
        raise refusal(f"Invalid JSON: {error}") from None
    if not isinstance(fields, dict):
        raise refusal(f"Input should be an object, got {_shown(fields)}")
    for each in (fields, *fields.values()) if len(fields) <= MAX_FIELDS else (fields,):
        if isinstance(each, dict) and len(each) > MAX_FIELDS:
            raise refusal(f"An object has at most {MAX_FIELDS} fields, got {len(each):,}")
    return fields


def _shown(value: object) -> str:
    """A value in a message, of which only as much is formatted as is shown."""
    match value:
        case list():
            return f"a list of {len(value):,}"
        case dict():
            return "an object"
        case str():
            return f"{json.dumps(value[:80]):.80}"
    return f"{json.dumps(value):.80}"


def _read_npy(body: bytes) -> NDArray[np.floating]:
    """Reads an array without a copy, and without trusting the size that its header declares.

    Raises:
        ValidationError: not an .npy file of rows of floating-point numbers, or too many of them.
    """
    stream = io.BytesIO(body)
    try:
        if npy.read_magic(stream) != (1, 0):
            raise ValueError
        shape, fortran_order, dtype = npy.read_array_header_1_0(stream, MAX_NPY_HEADER)
    except Exception:  # NumPy evaluates the header as Python, which can fail in a dozen ways, and tells of them
        raise refusal("The body is not an .npy file of format version 1.0", "latents") from None
    if dtype.kind != "f" or fortran_order:
        raise refusal(
            f"The .npy body has {dtype!s:.40} numbers, or Fortran order; it takes floats in C order", "latents"
        )
    if len(shape) != 2 or min(shape) < 1:
        raise refusal(f"The .npy body must have shape (n, D), got {shape!s:.60}", "latents")
    if shape[0] > SETTINGS.max_array_images:
        raise refusal(f"The .npy body has {shape[0]:,} rows, at most {SETTINGS.max_array_images:,} allowed", "latents")
    declared, actual = math.prod(shape) * dtype.itemsize, len(body) - stream.tell()
    if declared != actual:
        needed = f"{declared:,}"[:40]
        raise refusal(f"The .npy body has {actual:,} bytes of numbers, its header says {needed}", "latents")
    return np.frombuffer(body, dtype, offset=stream.tell()).reshape(shape)
