"""Parses bodies at a cost that their length bounds, valid or not. The fields are in `serving.http.request_fields`."""

import io
import json
import math
from codecs import BOM_UTF8
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from pydantic_core import from_json

from serving.http.errors import RequestError
from serving.http.settings import SETTINGS

NPY_MAGIC = b"\x93NUMPY"
MAX_NPY_HEADER = 1_000
"""Maximum length of the header of an .npy body; NumPy writes about 120 bytes, and parses them as Python."""
FORMS = (b"application/x-www-form-urlencoded", b"multipart/form-data")
"""Media types of forms. curl sends JSON under the first one unless it is told otherwise, so the body decides."""

_MOST = 4 * max(SETTINGS.max_array_images, SETTINGS.max_sheet_images)
MAX_COUNT = {b",": max(1 << 18, _MOST), b":": _MOST, b"[": _MOST, b"{": _MOST}
"""Maximum number of certain characters in a JSON body, texts included. They bound the number of values, fields, lists
and objects, each of which takes time and memory to read."""
MAX_FIELDS = 16
"""Maximum number of fields in one JSON object: pydantic builds an error for each that is unknown."""


def read_json(body: bytes, headers: Mapping[bytes, bytes]) -> dict[str, Any]:
    """Parses a JSON object. An empty body is an empty object; a byte-order mark is skipped.

    Raises:
        RequestError: 400, the body is no JSON object, or has more values than any request; 415, it is a form.
    """
    for character, most in MAX_COUNT.items():
        if len(body) > most and body.count(character) > most:
            raise RequestError(
                400,
                f"A JSON body has at most {most:,} of the character {character.decode()!r}, also in texts; send more "
                "latents as an .npy body to /decode",
            )
    try:
        fields = from_json(body.removeprefix(BOM_UTF8) or b"{}", cache_strings="keys")  # caching values costs more
    except ValueError as error:
        if headers.get(b"content-type", b"").startswith(FORMS):
            raise RequestError(415, "The body is a form; send a JSON object") from None
        raise RequestError(400, f"Invalid JSON: {error}") from None
    if not isinstance(fields, dict):
        raise RequestError(400, f"Input should be an object, got {shorten(fields)}")
    for each in (fields, *fields.values()) if len(fields) <= MAX_FIELDS else (fields,):
        if isinstance(each, dict) and len(each) > MAX_FIELDS:
            raise RequestError(400, f"An object has at most {MAX_FIELDS} fields, got {len(each):,}")
    return fields


def shorten(value: object) -> str:
    """Returns a value for a message. Only as much of it is formatted as the message shows."""
    match value:
        case [item] if not isinstance(item, list | dict):
            return f"[{shorten(item)}]"
        case list():
            return f"a list of {len(value):,}"
        case dict():
            return "an object"
        case str():
            return f"{json.dumps(value[:80]):.80}"
    return f"{json.dumps(value):.80}"


def read_npy(body: bytes) -> NDArray[np.floating]:
    """Reads an array without a copy, and without trusting the size that its header declares.

    Raises:
        RequestError: not an .npy file of rows of floating-point numbers, or too many of them.
    """
    stream = io.BytesIO(body)
    try:
        if npy.read_magic(stream) != (1, 0):
            raise ValueError
        shape, fortran_order, dtype = npy.read_array_header_1_0(stream, MAX_NPY_HEADER)
    except Exception:  # NumPy evaluates the header as Python, which can fail in a dozen ways, and tells of them
        raise RequestError(400, "The body is not an .npy file of format version 1.0", "latents") from None
    if dtype.kind != "f":
        raise RequestError(400, f"The .npy body has numbers of the type {dtype!s:.40}; send floats", "latents")
    if fortran_order:
        raise RequestError(
            400, "The .npy body has Fortran order; send it in C order (numpy.ascontiguousarray)", "latents"
        )
    if len(shape) != 2 or min(shape) < 1:
        raise RequestError(400, f"The .npy body must have shape (n, D), got {shape!s:.60}", "latents")
    if shape[0] > SETTINGS.max_array_images:
        raise RequestError(
            400, f"The .npy body has {shape[0]:,} rows, at most {SETTINGS.max_array_images:,} allowed", "latents"
        )
    declared, actual = math.prod(shape) * dtype.itemsize, len(body) - stream.tell()
    if declared != actual:
        needed = f"{declared:,}"[:40]
        raise RequestError(400, f"The .npy body has {actual:,} bytes of numbers, its header says {needed}", "latents")
    return np.frombuffer(body, dtype, offset=stream.tell()).reshape(shape)
