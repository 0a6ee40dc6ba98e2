"""Fields of each route, with their limits: the one source for validation, the OpenAPI page and BentoML's client."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Annotated, Any, Literal

import bentoml
import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
)
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
"""Maximum number of characters of a /write request."""
MAX_FRAMES = 240
"""Maximum number of frames of an /interpolate request."""
MAX_NAME = 255
"""Maximum length of a class name in a list of labels. It bounds the size of the longest list, and most file systems
allow no longer names for the folders from which class names are taken."""
LABELS_TEXT = "one class name, several names or indices separated by commas, or names of one character each"
"""Forms that a string of labels can have; docs/labels.md has the rule."""
OMITTED_LABELS = "If omitted, classes occur as often as in the training data."


def _expect(description: str) -> WrapValidator:
    """Returns a validator with one error message for a union, instead of pydantic's message for each member."""

    def check(value: object, validate: ValidatorFunctionWrapHandler) -> object:
        try:
            return validate(value)
        except ValidationError:
            raise PydanticCustomError("union", f"Input should be {description}") from None

    return WrapValidator(check)


ModelField = Annotated[
    str, Field(max_length=MAX_NAME), WithJsonSchema({"type": "string", "enum": list(SETTINGS.models)})
]
ClassName = Annotated[str, Field(max_length=MAX_NAME)]
LabelField = Annotated[ClassName | int, _expect("a class name or index")]
LabelsField = Annotated[
    Annotated[str, Field(max_length=SETTINGS.max_array_images)]
    | Annotated[list[ClassName | int], Field(max_length=SETTINGS.max_array_images, fail_fast=True)],
    _expect(
        f"a list of at most {SETTINGS.max_array_images:,} class names or indices, or a string of at most "
        f"{SETTINGS.max_array_images:,} characters that contains them"
    ),
]
LatentRow = Annotated[list[float], Field(max_length=MAX_SIZE, fail_fast=True)]


def optional(**schema: Any) -> Any:
    """Describes a field that may be omitted. Its schema has no default, because null is not a valid value."""

    def hide_default(field: dict[str, Any]) -> None:
        del field["default"]

    return Field(default=None, json_schema_extra=hide_default, **schema)


def _number_of_images(default: int, maximum: int) -> Any:
    return Field(default=min(default, maximum), ge=1, le=maximum, description="Number of images.")


def _optional_seed() -> Any:
    return optional(
        description="Seed of the images. If omitted, the service chooses one. The header X-Seed returns the seed.",
        examples=[7],
    )


def _optional_labels(if_omitted: str) -> Any:
    return optional(
        description=f"Labels: a list of class names or indices, or a string with {LABELS_TEXT}. They are repeated: "
        f"image i gets label i modulo their number. {if_omitted}"
    )


Seed = Annotated[int, Field(ge=0, lt=INDEX_LIMIT)]
Index = Annotated[int, Field(ge=0, lt=INDEX_LIMIT)]
Truncation = Annotated[
    float,
    Field(gt=0, le=1, description="Factor of the latents. Smaller values give more typical and less varied images."),
]
Scale = Annotated[
    int, Field(ge=1, le=MAX_SCALE, description="Enlargement: each pixel becomes a square of this width and height.")
]


class RequestFields(bentoml.IODescriptor):
    """Base of the request models: a strict JSON object.

    Unknown fields, null, values of a wrong type or out of range, and fractions for integers are errors.
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @classmethod
    def parse(cls, body: bytes, query: QueryParams, headers: Mapping[bytes, bytes]) -> dict[str, Any]:
        """Reads the fields of a request from its JSON body, regardless of its Content-Type.

        Returns:
            the values of all fields by their Python names, defaults included.

        Raises:
            RequestError: 400 if a field is unknown, missing or invalid, or the body is not JSON; 415 if the body is
                a form.
        """
        if query:
            name = next(iter(query))
            message = f"Send the fields in the JSON body, not in the query of the URL; got {name:.80}"
            raise RequestError(400, message, name)
        return cls.check(read_json(body, headers))

    @classmethod
    def check(cls, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Checks the fields of a request.

        Returns:
            the values of all fields by their Python names, defaults included.

        Raises:
            RequestError: 400 if a field is unknown, missing or invalid.
        """
        try:
            request = cls.model_validate(fields)
        except ValidationError as errors:
            error = errors.errors(include_url=False)[0]
            message = "Input should be an object" if error["type"] == "model_type" else error["msg"]
            if error["type"] == "extra_forbidden":
                model = cls if len(error["loc"]) == 1 else ImageReference
                names = [field.alias or name for name, field in model.model_fields.items()]
                known = f"the fields are {', '.join(names)}" if names else "this route has no fields"
                message = f"Unknown field; {known}"
            value = "" if error["type"] == "missing" else f", got {shorten(error['input'])}"
            location = (part[:MAX_NAME] if isinstance(part, str) else str(part) for part in error["loc"])
            raise RequestError(400, message + value, ".".join(location) or None) from None
        return {name: getattr(request, name) for name in cls.model_fields}


def fields_of_query(query: QueryParams) -> dict[str, str]:
    """Returns the fields of the query of a URL.

    Raises:
        RequestError: 400 if a field occurs more than once.
    """
    if len(query.multi_items()) > len(query):
        raise RequestError(400, "A field of the query may occur only once")
    return dict(query)


class ModelFields(RequestFields):
    """The model that a request is for."""

    model: ModelField = optional(
        description="Name of the model, one of those that /models lists. If omitted, the default model."
    )


class GridFields(ModelFields):
    """Base of the requests whose images are returned as a grid."""

    columns: int = optional(
        ge=1, le=MAX_COLUMNS, description="Number of images in a row. If it is omitted, the grid is nearly square."
    )
    scale: Scale = 2


class SeededRequest(ModelFields):
    """Base of the requests for a range of images of one seed."""

    labels: LabelsField = _optional_labels(OMITTED_LABELS)
    seed: Seed = _optional_seed()
    first: Index = Field(default=0, description="Index of the first image.")
    truncation: Truncation = 1.0


class Generate(SeededRequest, GridFields):
    """The images to generate and the layout of their grid."""

    n: int = _number_of_images(16, SETTINGS.max_sheet_images)


class GenerateDataset(SeededRequest):
    """The images to generate."""

    n: int = _number_of_images(1_000, SETTINGS.max_array_images)


class Write(ModelFields):
    """The text to write. Its character at position i is the label of image i of the seed."""

    text: str = Field(
        min_length=1,
        max_length=MAX_TEXT,
        description="Text to write. Each character must be the name of a class.",
    )
    seed: Seed = _optional_seed()
    truncation: Truncation = 1.0
    scale: Scale = 2


class ImageReference(BaseModel):
    """One image, identified by a seed and an index, with an optional label."""

    model_config = RequestFields.model_config

    seed: Seed = Field(description="Seed of the image.")
    index: Index = Field(default=0, description="Index of the image.")
    label: LabelField = optional(description=f"Class name or index. {OMITTED_LABELS}")
    labels: LabelsField = optional(
        description="Labels as in /generate, instead of `label`. The image gets the label that /generate would give to "
        "this index.",
    )

    def given_labels(self) -> str | list[str | int] | None:
        """Returns `label` or `labels` as an argument for `Generator.draw`; None if the request has neither.

        Raises:
            InputError: the request has both fields.
        """
        if self.label is None:
            return self.labels
        if self.labels is not None:
            raise InputError("labels", "give either label or labels, not both")
        return [self.label]


class Interpolate(ModelFields):
    """The two images to interpolate between. If their classes differ, the frames are cross-faded."""

    start: ImageReference = Field(alias="from", description="First image.", examples=[{"seed": 1, "index": 0}])
    end: ImageReference = Field(alias="to", description="Last image.", examples=[{"seed": 2, "index": 0}])
    frames: int = Field(
        default=24, ge=2, le=MAX_FRAMES, description="Number of frames, including the first and the last image."
    )
    format: Literal["png", "gif", "webp"] = Field(
        default="png", description="png: a row of images. gif or webp: an animation that plays forward and backward."
    )
    truncation: Truncation = 1.0
    scale: Scale = 2


class Decode(GridFields):
    """The latents to decode and the layout of the grid."""

    labels: LabelsField = _optional_labels("A class-conditional generator requires them.")
    latents: list[LatentRow] = Field(
        description="Latents of shape (n, D), where D is `latent_dim` of the card.",
        min_length=1,
        max_length=SETTINGS.max_sheet_images,
        fail_fast=True,
    )

    @classmethod
    def model_json_schema(cls, *options: Any, **named: Any) -> dict[str, Any]:
        """Returns the schema for BentoML's Python client, which accepts NumPy arrays for a field of type tensor.

        The OpenAPI page does not use this method and describes `latents` as a list.
        """
        schema = super().model_json_schema(*options, **named)
        schema["properties"]["latents"] |= {"type": "tensor", "format": "numpy-array"}
        return schema

    @classmethod
    def parse(cls, body: bytes, query: QueryParams, headers: Mapping[bytes, bytes]) -> dict[str, Any]:
        """Reads the fields from a JSON body, or the latents from an .npy body and labels and model from the query.

        Returns:
            as `RequestFields.parse`. From an .npy body, `latents` is a floating-point array (n, D).

        Raises:
            RequestError: as `RequestFields.parse`, and 400 for an invalid .npy body or query.
        """
        if not body.startswith(NPY_MAGIC):
            if query.keys() == {"labels"}:
                message = "The query may have labels only with an .npy body; send labels as a field of the JSON body"
                raise RequestError(400, message, "labels")
            return super().parse(body, query, headers)
        if unknown := query.keys() - {"labels", "model"}:
            name = min(unknown)
            raise RequestError(
                400, f"With an .npy body, the query may have only labels and model; got {name:.80}", name
            )
        for name in query:
            if len(query.getlist(name)) > 1:
                hint = "; separate the labels by commas" if name == "labels" else ""
                raise RequestError(400, f"The query has {name} more than once{hint}", name)
        if len(query.get("labels", "")) > SETTINGS.max_array_images:
            raise RequestError(400, f"labels may have at most {SETTINGS.max_array_images:,} characters", "labels")
        given = {"latents": read_npy(body), "labels": query.get("labels"), "model": query.get("model")}
        return cls._defaults() | given

    @classmethod
    @cache
    def _defaults(cls) -> dict[str, Any]:
        """Returns the default value of each field."""
        return {name: field.get_default() for name, field in cls.model_fields.items()}


@contextmanager
def input_errors_as_400(**renamed: str) -> Iterator[None]:
    """Converts an InputError of the generator into a RequestError with status 400.

    Args:
        renamed: name of the request field for each argument of the generator that has another name.
    """
    try:
        yield
    except InputError as error:
        raise RequestError(400, error.message, renamed.get(error.field, error.field)) from None


def latents_array(latents: list[list[float]] | NDArray[np.floating]) -> NDArray[np.floating]:
    """Returns latents as an array of shape (n, D).

    Raises:
        InputError: the rows do not all have the same length.
    """
    try:
        return np.asarray(latents)
    except ValueError:
        raise InputError("latents", "all rows must have the same length") from None
