"""Bounds the structure of a model file before it is parsed.

A parsed message takes more memory than its bytes: an empty node of 2 bytes becomes an object of about 100. Weights and
the card are plain bytes and do not grow. So everything else in the file is bounded in size.
"""

from collections.abc import Iterator

from onnx import GraphProto, ModelProto, TensorProto

from models.common.errors import GraphError

MAX_STRUCTURE_BYTES = 2**20
"""Maximum size in bytes of what a file holds besides weights and metadata."""

_Payload = dict[int, "_Payload | None"]
"""Numbers of the fields to enter (a dictionary) and of the fields to leave out (None)."""

_PAYLOAD: _Payload = {
    ModelProto.GRAPH_FIELD_NUMBER: {GraphProto.INITIALIZER_FIELD_NUMBER: {TensorProto.RAW_DATA_FIELD_NUMBER: None}},
    ModelProto.METADATA_PROPS_FIELD_NUMBER: None,
}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
"""Wire types of protobuf."""


def check_structure(file: bytes) -> None:
    """Checks that a file can be parsed in a bounded amount of memory.

    Raises:
        GraphError: the file is not a protobuf message, or its structure is larger than `MAX_STRUCTURE_BYTES`.
    """
    total = 0
    for size in _structure(file, 0, len(file), _PAYLOAD):
        total += size
        if total > MAX_STRUCTURE_BYTES:
            raise GraphError(
                f"format: besides weights and metadata it holds more than {MAX_STRUCTURE_BYTES >> 10:,} KiB, which is "
                "the maximum"
            )


def _structure(file: bytes, at: int, end: int, payload: _Payload) -> Iterator[int]:
    """Yields the size in bytes of each field, without the payload."""
    while at < end:
        start = at
        tag, at = _varint(file, at, end)
        field, kind = tag >> 3, tag & 7
        size = 0
        if kind == _VARINT:
            _, at = _varint(file, at, end)
        elif kind == _BYTES:
            size, at = _varint(file, at, end)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise GraphError(f"format: not an ONNX file (wire type {kind} at byte {start:,})")
        if size > end - at:
            raise GraphError(f"format: not an ONNX file (a field of {size:,} bytes at byte {start:,} is cut short)")
        if kind == _BYTES and field in payload:
            yield at - start
            inner = payload[field]
            if inner is not None:
                yield from _structure(file, at, at + size, inner)
        else:
            yield at - start + size
        at += size


def _varint(file: bytes, at: int, end: int) -> tuple[int, int]:
    """Reads a number of 7 bits a byte. Returns it and the position after it."""
    value = 0
    for position in range(at, min(at + 10, end)):
        value |= (file[position] & 127) << 7 * (position - at)
        if file[position] < 128:
            return value, position + 1
    raise GraphError(f"format: not an ONNX file (a number at byte {at:,} is cut short)")
