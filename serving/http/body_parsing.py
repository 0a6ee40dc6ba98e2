"""Parses JSON and .npy bodies. The cost is bounded by the length of the body, whether it is valid or not.

`serving.http.request_fields` checks the fields.
"""

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
"""First bytes of every .npy file."""
MAX_NPY_HEADER = 1_000
"""Maximum length of the header of an .npy body in bytes. NumPy writes headers of about 120 bytes, and parses a
header as a Python literal."""
FORM_MEDIA_TYPES = (b"application/x-www-form-urlencoded", b"multipart/form-data")
"""Media types of HTML forms. curl sends JSON as the first one by default, so a body of this type is parsed as JSON."""

_MAX_ITEMS = 4 * max(SETTINGS.max_array_images, SETTINGS.max_sheet_images)
MAX_COUNT = {b",": max(1 << 18, _MAX_ITEMS), b":": _MAX_ITEMS, b"[": _MAX_ITEMS, b"{": _MAX_ITEMS}
"""Maximum number of occurrences of certain characters in a JSON body, including those inside strings. They bound the
number of values, fields, lists and objects, each of which takes time and memory to parse."""
MAX_FIELDS = 16
"""Maximum number of fields in one JSON object. pydantic builds an error for each unknown field."""


def read_json(body: bytes, headers: Mapping[bytes, bytes]) -> dict[str, Any]:
    """Parses a JSON object. An empty body counts as an empty object; a byte-order mark is skipped.

    Args:
        body: the whole body, decompressed.
        headers: header fields of the request, with names in lower case.

    Raises:
        RequestError: 400 if the body is not a JSON object or has more values than any valid request, 415 if it is a
            form.
    """
    for character, maximum in MAX_COUNT.items():
        if len(body) > maximum and body.count(character) > maximum:
            raise RequestError(
                400,
                f"A JSON body may contain the character {character.decode()!r} at most {maximum:,} times, including "
                "inside strings; send more latents as an .npy body to /decode",
            )
    try:
        fields = from_json(body.removeprefix(BOM_UTF8) or b"{}", cache_strings="keys")  # caching values costs more
    except ValueError as error:
        if headers.get(b"content-type", b"").startswith(FORM_MEDIA_TYPES):
            raise RequestError(415, "The body is a form; send a JSON object") from None
        raise RequestError(400, f"Invalid JSON: {error}") from None
    if not isinstance(fields, dict):
        raise RequestError(400, f"Input should be an object, got {shorten(fields)}")
    for each in (fields, *fields.values()) if len(fields) <= MAX_FIELDS else (fields,):
        if isinstance(each, dict) and len(each) > MAX_FIELDS:
            raise RequestError(400, f"An object may have at most {MAX_FIELDS} fields, got {len(each):,}")
    return fields


def shorten(value: object) -> str:
    """Describes a JSON value for an error message in at most 82 characters.

    Long texts are cut off. Of an object or a list with several items, only the type and the length are given.
    """
    match value:
        case [item] if not isinstance(item, list | dict):
            return f"[{shorten(item)}]"
        case [_]:
            return "a list of 1 item"
        case list():
            return f"a list of {len(value):,} items"
        case dict():
            return f"an object of {len(value):,} field{'' if len(value) == 1 else 's'}"
        case str():
            return f"{json.dumps(value[:80]):.80}"
    return f"{json.dumps(value):.80}"


def read_npy(body: bytes) -> NDArray[np.floating]:
    """Reads latents (n, D) of a floating-point type from an .npy file, without copying them.

    The shape in the header is compared with the actual size of the body before it is used.

    Raises:
        RequestError: 400 if the body is not an .npy file of version 1.0 with such an array in C order, or has more
            rows than the limit.
    """
    stream = io.BytesIO(body)
    try:
        if npy.read_magic(stream) != (1, 0):
            raise ValueError
        shape, fortran_order, dtype = npy.read_array_header_1_0(stream, MAX_NPY_HEADER)
    except Exception:  # NumPy parses the header as Python, which raises many types of errors
        raise RequestError(400, "The body is not an .npy file of format version 1.0", "latents") from None
    if dtype.kind != "f":
        raise RequestError(400, f"The .npy body has the dtype {dtype!s:.40}; send floating-point numbers", "latents")
    if fortran_order:
        raise RequestError(
            400, "The .npy body has Fortran order; send it in C order (numpy.ascontiguousarray)", "latents"
        )
    if len(shape) != 2 or min(shape) < 1:
        raise RequestError(400, f"The .npy body must have shape (n, D), got {shape!s:.60}", "latents")
    if shape[0] > SETTINGS.max_array_images:
        raise RequestError(
            400, f"The .npy body has {shape[0]:,} rows; at most {SETTINGS.max_array_images:,} are allowed", "latents"
        )
    declared, actual = math.prod(shape) * dtype.itemsize, len(body) - stream.tell()
    if declared != actual:
        expected = f"{declared:,}"[:40]
        raise RequestError(
            400, f"The .npy body has {actual:,} bytes of data, but its header declares {expected}", "latents"
        )
    return np.frombuffer(body, dtype, offset=stream.tell()).reshape(shape)
