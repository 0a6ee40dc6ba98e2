"""Messages of the Open Inference Protocol: JSON, and tensors as JSON or as the raw bytes that follow the JSON."""

import gzip
import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from models.common.array_types import Images
from models.onnx_file.latents import INDEX_LIMIT
from serving.http.body_parsing import read_json
from serving.http.encodings import Shape
from serving.http.engine import Labels
from serving.http.errors import RequestError
from serving.http.protocols.routing import validate

LENGTH_HEADER = b"inference-header-content-length"
"""Header with the length of the JSON, if raw bytes follow it."""
OCTET_STREAM = "application/octet-stream"
INPUTS: dict[str, tuple[str, np.dtype[Any]]] = {
    "latent": ("FP32", np.dtype("<f4")),
    "label": ("INT64", np.dtype("<i8")),
}
"""Inputs: the datatype in messages and the type of raw bytes."""
OUTPUT, OUTPUT_TYPE = "image", "UINT8"
MAX_ID = 1_024
"""Maximum length of the id of a request, which the response repeats."""
COMPRESSION_LEVEL = 1
"""Level of zlib for responses. Higher levels take many times as long for a few per cent of the size."""

_FAIL_FAST = Field(fail_fast=True)
_STRICT_LISTS = ConfigDict(strict=True)
_LISTS: dict[tuple[str, bool], TypeAdapter[Any]] = {
    ("latent", False): TypeAdapter(Annotated[list[float], _FAIL_FAST], config=_STRICT_LISTS),
    ("latent", True): TypeAdapter(
        Annotated[list[Annotated[list[float], _FAIL_FAST]], _FAIL_FAST], config=_STRICT_LISTS
    ),
    ("label", False): TypeAdapter(Annotated[list[int], _FAIL_FAST], config=_STRICT_LISTS),
    ("label", True): TypeAdapter(Annotated[list[Annotated[list[int], _FAIL_FAST]], _FAIL_FAST], config=_STRICT_LISTS),
}
"""Types of JSON data, by the name of the input and whether the list is nested."""
_STRICT = ConfigDict(strict=True, extra="forbid")


class InputParameters(BaseModel):
    """Parameters of an input."""

    model_config = _STRICT

    binary_data_size: Annotated[int, Field(ge=0)] | None = Field(default=None, description="Number of raw bytes.")


class OutputParameters(BaseModel):
    """Parameters of an output."""

    model_config = _STRICT

    binary_data: bool | None = Field(default=None, description="Whether the output is sent as raw bytes.")


class RequestedInput(BaseModel):
    """One input tensor."""

    model_config = _STRICT

    name: str = Field(description="`latent` or `label`.")
    shape: list[Annotated[int, Field(ge=0, lt=2**31)]] = Field(max_length=8)
    datatype: str = Field(description="`FP32` for `latent`, `INT64` for `label`.")
    parameters: InputParameters | None = None
    data: list[Any] | None = Field(default=None, description="All values, as a flat or nested list.")


class RequestedOutput(BaseModel):
    """One output that the client asks for."""

    model_config = _STRICT

    name: str = Field(description="`image`.")
    parameters: OutputParameters | None = None


class RequestParameters(BaseModel):
    """Parameters of a request. Those without a description have no effect."""

    model_config = _STRICT

    seed: Annotated[int, Field(ge=0, lt=INDEX_LIMIT)] | None = Field(
        default=None, description="Draws the latents from this seed, instead of the input `latent`."
    )
    first: Annotated[int, Field(ge=0, lt=INDEX_LIMIT)] | None = Field(
        default=None, description="Index of the first image of the seed. If omitted, 0."
    )
    n: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="Number of images. If omitted, one for each label, or 1."
    )
    truncation: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="Factor of the latents that are drawn. If omitted, 1."
    )
    binary_data_output: bool | None = Field(default=None, description="Whether outputs are sent as raw bytes.")
    sequence_id: Any = None
    sequence_start: Any = None
    sequence_end: Any = None
    priority: Any = None
    timeout: Any = None


class InferRequest(BaseModel):
    """JSON of a request."""

    model_config = _STRICT

    id: Annotated[str, Field(max_length=MAX_ID)] | None = Field(default=None, description="The response repeats it.")
    model_name: str | None = Field(default=None, description="Has no effect: the path has the name.")
    parameters: RequestParameters | None = None
    inputs: list[RequestedInput] = Field(default=[], max_length=len(INPUTS))
    outputs: list[RequestedOutput] | None = Field(default=None, max_length=1)


@dataclass(frozen=True)
class Message:
    """A request and its tensors."""

    request: InferRequest
    tensors: Mapping[str, NDArray[Any]]
    """The inputs by name, with the shapes that the request states."""
    has_json_data: bool
    """Whether an input was sent as JSON."""

    @property
    def wants_binary(self) -> bool:
        """Whether the output is to be sent as raw bytes."""
        for output in self.request.outputs or ():
            if output.parameters and output.parameters.binary_data is not None:
                return output.parameters.binary_data
        parameters = self.request.parameters
        return bool(parameters and parameters.binary_data_output)


def read_message(body: bytes, headers: Mapping[bytes, bytes], max_json_bytes: int) -> Message:
    """Reads a request.

    Args:
        body: the whole body, decompressed.
        headers: header fields of the request, with names in lower case.
        max_json_bytes: maximum length of the JSON.

    Raises:
        RequestError: 400 if the JSON is invalid or the sizes do not add up, 413 if the JSON is too long.
    """
    text = headers.get(LENGTH_HEADER)
    length = len(body)
    if text is not None:
        name = "Inference-Header-Content-Length"
        if not text.isdigit() or len(text) > 12 or int(text) > len(body):
            raise RequestError(400, f"{name} is {text[:20].decode('latin-1')}, but the body has {len(body):,} bytes")
        length = int(text)
    if length > max_json_bytes:
        raise RequestError(413, f"The JSON of the request has {length:,} bytes; at most {max_json_bytes:,} are allowed")
    request = validate(InferRequest, read_json(body[:length], headers))
    for output in request.outputs or ():
        if output.name != OUTPUT:
            raise RequestError(400, f"There is no output {output.name!r:.80}; the output is {OUTPUT}")
    tensors: dict[str, NDArray[Any]] = {}
    position = length
    for each in request.inputs:
        if each.name not in INPUTS:
            raise RequestError(400, f"There is no input {each.name!r:.80}; the inputs are {', '.join(INPUTS)}")
        if each.name in tensors:
            raise RequestError(400, f"The input {each.name} occurs twice")
        size = each.parameters.binary_data_size if each.parameters else None
        tensors[each.name] = _from_json(each) if size is None else _from_bytes(each, body, position, size)
        position += size or 0
    if position != len(body):
        raise RequestError(
            400,
            f"The body has {len(body) - length:,} bytes after the JSON, but the inputs have a binary_data_size of "
            f"{position - length:,}",
        )
    return Message(request, tensors, any(each.data is not None for each in request.inputs))


def _check_type(each: RequestedInput) -> None:
    if each.datatype != INPUTS[each.name][0]:
        raise RequestError(
            400, f"The input {each.name} has the datatype {each.datatype:.20}; it must be {INPUTS[each.name][0]}"
        )


def _from_bytes(each: RequestedInput, body: bytes, position: int, size: int) -> NDArray[Any]:
    """Returns an input whose raw bytes begin at a position of the body."""
    _check_type(each)
    if each.data is not None:
        raise RequestError(400, f"The input {each.name} has both data and binary_data_size; send one of them")
    _, dtype = INPUTS[each.name]
    expected = math.prod(each.shape) * dtype.itemsize
    if size != expected:
        raise RequestError(
            400, f"The input {each.name} of shape {each.shape} has {expected:,} bytes; its binary_data_size is {size:,}"
        )
    if position + size > len(body):
        raise RequestError(400, f"The body ends before the {size:,} bytes of the input {each.name}")
    array = np.frombuffer(body, dtype, math.prod(each.shape), position).reshape(each.shape)
    return array if array.flags.aligned else array.copy()  # the length of the JSON decides where the bytes begin


def _from_json(each: RequestedInput) -> NDArray[Any]:
    """Returns an input that is a list in the JSON."""
    _check_type(each)
    if each.data is None:
        raise RequestError(400, f"The input {each.name} has neither data nor the parameter binary_data_size")
    _, dtype = INPUTS[each.name]
    nested = bool(each.data) and isinstance(each.data[0], list)
    try:
        # NumPy alone would convert texts, each with the memory of the longest.
        values = _LISTS[each.name, nested].validate_python(each.data)
    except ValidationError:
        raise RequestError(
            400, f"The data of the input {each.name} are not all numbers of the type {each.datatype}"
        ) from None
    try:
        with np.errstate(over="ignore"):  # the generator rejects values that are not finite
            array = np.asarray(values, dtype)
    except ValueError:
        raise RequestError(400, f"The nested lists of the input {each.name} differ in length") from None
    except OverflowError:
        raise RequestError(400, f"The input {each.name} has a number that does not fit into {each.datatype}") from None
    if array.size != math.prod(each.shape):
        raise RequestError(
            400, f"The input {each.name} of shape {each.shape} has {math.prod(each.shape):,} values, got {array.size:,}"
        )
    return array.reshape(each.shape)


@dataclass(frozen=True)
class Tensors:
    """Encoding of a response: the JSON, followed by the raw pixels if the client asks for them."""

    head: Mapping[str, Any]
    """Fields of the response other than its outputs."""
    shape: tuple[int, ...]
    """Shape of the output: n, channels, height, width."""
    binary: bool
    """Whether the pixels are sent as raw bytes."""
    compression: Literal["gzip", "deflate"] | None
    """Compression of the whole body."""

    @property
    def media_type(self) -> str:
        # Only raw bytes take a known time. The name of a compression is no media type of a response: `headers` has it.
        if self.compression:
            return self.compression
        return OCTET_STREAM if self.binary else "application/json"

    def headers(self) -> dict[str, str]:
        """Returns the header fields that describe the body."""
        headers = {"Content-Type": OCTET_STREAM if self.binary else "application/json"}
        if self.binary:
            headers["Inference-Header-Content-Length"] = str(len(self._binary_json()))
        if self.compression:
            headers["Content-Encoding"] = self.compression
        return headers

    def encode(self, images: Images, labels: Labels) -> bytes:
        if self.binary:
            body = b"".join((self._binary_json(), np.ascontiguousarray(images).data))
        else:
            before, after = self._json({"data": []}).split(b"[]")
            # One image at a time: json.dumps holds the GIL, so a long list would block the event loop.
            rows = (json.dumps(image.ravel().tolist(), separators=(",", ":"))[1:-1].encode() for image in images)
            body = b"".join((before, b"[", b",".join(rows), b"]", after))
        if self.compression == "gzip":
            return gzip.compress(body, COMPRESSION_LEVEL, mtime=0)
        return zlib.compress(body, COMPRESSION_LEVEL) if self.compression else body

    def pixel_bytes(self, n: int, shape: Shape) -> int:
        return n * math.prod(shape) * (1 if self.binary else 4)  # in JSON, up to three digits and a comma

    def _binary_json(self) -> bytes:
        return self._json({"parameters": {"binary_data_size": math.prod(self.shape)}})

    def _json(self, content: dict[str, Any]) -> bytes:
        output = {"name": OUTPUT, "datatype": OUTPUT_TYPE, "shape": list(self.shape), **content}
        return json.dumps({**self.head, "outputs": [output]}, separators=(",", ":")).encode()
