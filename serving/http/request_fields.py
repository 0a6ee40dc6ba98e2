"""What each route takes, with its limits: one source for validation, the OpenAPI page and the clients' arguments."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import bentoml
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import PydanticCustomError
from starlette.datastructures import QueryParams

from models.common.errors import InputError
from models.common.image_files import MAX_COLUMNS, MAX_SCALE
from models.onnx_file.card import MAX_SIZE
from models.onnx_file.latents import INDEX_LIMIT
from serving.http.body_parsing import NPY_MAGIC, read_json, read_npy, shorten
from serving.http.errors import RequestError
from serving.http.settings import SETTINGS

MAX_TEXT = 64
MAX_FRAMES = 240

LABELS_TEXT = "a class name, names or indices with commas between them, or names of one character each"
"""What a text of labels can be; docs/labels.md has the rule."""

MAX_NAME = 255
"""Maximum length of a class name in a list, so that the longest list fits into a body; folders have no longer names."""


def _with_message(what: str) -> WrapValidator:
    """One message in the place of pydantic's one for each member of a union."""

    def check(value: object, validate: ValidatorFunctionWrapHandler) -> object:
        try:
            return validate(value)
        except ValidationError:
            raise PydanticCustomError("union", f"Input should be {what}") from None

    return WrapValidator(check)


Name = Annotated[str, Field(max_length=MAX_NAME)]
LabelField = Annotated[Name | int, _with_message("a class name or index")]
LabelsField = Annotated[
    Annotated[str, Field(max_length=SETTINGS.max_array_images)]
    | Annotated[list[Name | int], Field(max_length=SETTINGS.max_array_images, fail_fast=True)],
    _with_message(f"a list of class names or indices, or a string of them, of at most {SETTINGS.max_array_images:,}"),
]
Row = Annotated[list[float], Field(max_length=MAX_SIZE, fail_fast=True)]


def optional(**schema: Any) -> Any:
    """A field that may be left out but not be null, which a default of null in the schema would suggest."""

    def hide_default(field: dict[str, Any]) -> None:
        del field["default"]

    return Field(default=None, json_schema_extra=hide_default, **schema)


def _number_of_images(default: int, most: int) -> Any:
    return Field(default=min(default, most), ge=1, le=most, description="How many images.")


Seed = Annotated[int, Field(ge=0, lt=INDEX_LIMIT)]
Index = Annotated[int, Field(ge=0, lt=INDEX_LIMIT)]
Truncation = Annotated[float, Field(gt=0, le=1, description="Less is more typical and less varied.")]
Scale = Annotated[int, Field(ge=1, le=MAX_SCALE, description="Edge of the square that each pixel becomes.")]


class RequestFields(bentoml.IODescriptor):
    """The fields of a request. Unknown fields are refused, and so are values that are null, of another type or out of
    range, and fractions in the place of whole numbers.
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @classmethod
    def parse(cls, body: bytes, query: QueryParams, headers: Mapping[bytes, bytes]) -> dict[str, Any]:
        """Reads the fields of a request from its body, which is JSON whatever its Content-Type says.

        Raises:
            RequestError: 400, a field is unknown, missing or wrong, or the body is not JSON; 415, the body is a form.
        """
        if query:
            name = next(iter(query))
            message = f"The fields belong in the JSON body, not in the query of the URL; got {name:.80}"
            raise RequestError(400, message, name)
        fields = read_json(body, headers)
        try:
            request = cls.model_validate(fields)
        except ValidationError as errors:
            error = errors.errors(include_url=False)[0]
            message = "Input should be an object" if error["type"] == "model_type" else error["msg"]
            if error["type"] == "extra_forbidden":
                model = cls if len(error["loc"]) == 1 else ImageReference
                names = [field.alias or name for name, field in model.model_fields.items()]
                message = (
                    f"Unknown field; the fields are {', '.join(names)}" if names else "Unknown field; there are none"
                )
            value = "" if error["type"] == "missing" else f", got {shorten(error['input'])}"
            location = (part[:MAX_NAME] if isinstance(part, str) else str(part) for part in error["loc"])
            raise RequestError(400, message + value, ".".join(location) or None) from None
        return {name: getattr(request, name) for name in cls.model_fields}


class NoFields(RequestFields):
    """No fields."""


class LabelledRequest(RequestFields):
    labels: LabelsField = optional(
        description=f"A list of class names or indices; or a string: {LABELS_TEXT}. "
        "Image i gets the i-th of them, over and over.",
    )


class GridFields(RequestFields):
    columns: int = optional(ge=1, le=MAX_COLUMNS, description="Images a row; as square as can be if left out.")
    scale: Scale = 2


class SeededRequest(LabelledRequest):
    seed: Seed = optional(description="Chosen, and told in X-Seed, if left out.", examples=[7])
    first: Index = Field(default=0, description="Index of the first image.")
    truncation: Truncation = 1.0


class Generate(SeededRequest, GridFields):
    """Which images to make, and how to lay them out."""

    n: int = _number_of_images(16, SETTINGS.max_sheet_images)


class Dataset(SeededRequest):
    """Which images to make."""

    n: int = _number_of_images(1_000, SETTINGS.max_array_images)


class Write(RequestFields):
    """A text in generated handwriting: its i-th character is image i of the seed."""

    text: str = Field(
        min_length=1, max_length=MAX_TEXT, description="Names of classes, one character each.", examples=["31415926535"]
    )
    seed: Seed = optional(description="Chosen, and told in X-Seed, if left out.", examples=[7])
    truncation: Truncation = 1.0
    scale: Scale = 2


class ImageReference(BaseModel):
    """Of one image."""

    model_config = RequestFields.model_config

    seed: Seed
    index: Index = 0
    label: LabelField = optional(description="A class name or index; drawn if left out.")
    labels: LabelsField = optional(
        description="In the place of `label`: as in /generate, where the image of this index gets one of them.",
    )

    def given_labels(self) -> str | list[str | int] | None:
        """LabelsField as the generator takes them.

        Raises:
            InputError: both fields are given.
        """
        if self.label is None:
            return self.labels
        if self.labels is not None:
            raise InputError("labels", "give either label or labels")
        return [self.label]


class Interpolate(RequestFields):
    """From one image to another. Where their classes differ, one fades into the other on the way."""

    start: ImageReference = Field(alias="from", examples=[{"seed": 1, "index": 0}])
    end: ImageReference = Field(alias="to", examples=[{"seed": 2, "index": 0}])
    frames: int = Field(default=24, ge=2, le=MAX_FRAMES, description="Both ends included.")
    format: Literal["png", "gif", "webp"] = Field(default="png", description="A strip, or an animation there and back.")
    truncation: Truncation = 1.0
    scale: Scale = 2


class Decode(LabelledRequest, GridFields):
    """Latents of the caller's own, and how to lay their images out."""

    latents: list[Row] = Field(
        description="Shape (n, D); D is latent_dim on the card.",
        min_length=1,
        max_length=SETTINGS.max_sheet_images,
        fail_fast=True,
    )

    @classmethod
    def model_json_schema(cls, *options: Any, **named: Any) -> dict[str, Any]:
        """Describes `latents` to BentoML's Python client, which then takes NumPy arrays. OpenAPI has the list."""
        schema = super().model_json_schema(*options, **named)
        schema["properties"]["latents"] |= {"type": "tensor", "format": "numpy-array"}
        return schema

    @classmethod
    def parse(cls, body: bytes, query: QueryParams, headers: Mapping[bytes, bytes]) -> dict[str, Any]:
        """Also accepts a NumPy .npy file as the body, with `labels` in the query. `latents` is then an array."""
        if not body.startswith(NPY_MAGIC):
            if query.keys() == {"labels"}:
                message = (
                    "The query takes labels only with an .npy body, and this body is none; in JSON, labels is a field"
                )
                raise RequestError(400, message, "labels")
            return super().parse(body, query, headers)
        if unknown := query.keys() - {"labels"}:
            name = min(unknown)
            raise RequestError(400, f"With an .npy body, the query takes only labels; got {name:.80}", name)
        if len(query.multi_items()) > 1:
            raise RequestError(400, "The query has labels more than once; separate them by commas", "labels")
        if len(query.get("labels", "")) > SETTINGS.max_array_images:
            raise RequestError(400, f"Input should have at most {SETTINGS.max_array_images:,} characters", "labels")
        fields = {name: field.get_default() for name, field in cls.model_fields.items()}
        return fields | {"latents": read_npy(body), "labels": query.get("labels")}


@contextmanager
def input_errors_as_400(**renamed: str) -> Iterator[None]:
    """Turns an InputError of the model into a RequestError.

    Args:
        renamed: Names of the request's fields, by the names that the model has for them.
    """
    try:
        yield
    except InputError as error:
        raise RequestError(400, error.message, renamed.get(error.field, error.field)) from None


def array(latents: list[list[float]] | NDArray[np.floating]) -> NDArray[np.floating]:
    """Returns latents as an array (n, D).

    Raises:
        InputError: the rows differ in length.
    """
    try:
        return np.asarray(latents)
    except ValueError:
        raise InputError("latents", "rows must be of one length") from None
