"""Limits the size of everything in a model file except weights and metadata, before the file is parsed.

A parsed message takes more memory than its bytes: an empty node of 2 bytes becomes an object of about 100 bytes.
Weights and metadata are plain bytes and do not grow, so their size is not limited here.
"""

from collections.abc import Iterator

from onnx import GraphProto, ModelProto, TensorProto

from models.common.errors import GraphError

MAX_STRUCTURE_BYTES = 2**20
"""Maximum size in bytes of everything in a file except weights and metadata."""

_Payload = dict[int, "_Payload | None"]
"""Fields of a protobuf message, by number: None for a field that is not counted, and a dictionary of the same kind for
a message that contains such fields."""

_PAYLOAD: _Payload = {
    ModelProto.GRAPH_FIELD_NUMBER: {GraphProto.INITIALIZER_FIELD_NUMBER: {TensorProto.RAW_DATA_FIELD_NUMBER: None}},
    ModelProto.METADATA_PROPS_FIELD_NUMBER: None,
}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
"""Wire types of protobuf."""


def check_structure(file: bytes) -> None:
    """Checks that parsing a file takes a bounded amount of memory.

    Raises:
        GraphError: the file is not a protobuf message, or everything in it except weights and metadata takes more than
            `MAX_STRUCTURE_BYTES`.
    """
    total = 0
    for size in _structure(file, 0, len(file), _PAYLOAD):
        total += size
        if total > MAX_STRUCTURE_BYTES:
            raise GraphError(
                f"format: without weights and metadata it has more than {MAX_STRUCTURE_BYTES >> 10:,} KiB, the maximum"
            )


def _structure(file: bytes, at: int, end: int, payload: _Payload) -> Iterator[int]:
    """Yields the size in bytes of each field of the message in file[at:end], without the fields in `payload`."""
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
            raise GraphError(f"format: not an ONNX file (a field of {size:,} bytes at byte {start:,} is truncated)")
        if kind == _BYTES and field in payload:
            yield at - start
            inner = payload[field]
            if inner is not None:
                yield from _structure(file, at, at + size, inner)
        else:
            yield at - start + size
        at += size


def _varint(file: bytes, at: int, end: int) -> tuple[int, int]:
    """Reads a variable-length number, 7 bits in each byte. Returns the number and the position after it."""
    value = 0
    for position in range(at, min(at + 10, end)):
        value |= (file[position] & 127) << 7 * (position - at)
        if file[position] < 128:
            return value, position + 1
    raise GraphError(f"format: not an ONNX file (a number at byte {at:,} is truncated)")
