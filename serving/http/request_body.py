"""Reads and decompresses the body of a request within its size limits. `body_parsing` interprets it."""

import asyncio
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.types import Receive

from serving.http.body_parsing import NPY_MAGIC
from serving.http.budget import Reservation
from serving.http.errors import CLIENT_CLOSED_REQUEST, RequestError

INFLATE_BYTES = 256 << 10
"""Number of bytes to decompress before the event loop may serve other requests."""


@dataclass(frozen=True)
class BodyLimits:
    """Maximum sizes of a body in bytes, after decompression."""

    npy: int
    """Limit of a body that begins like an .npy file. It is the larger one."""
    other: int
    """Limit of any other body, such as JSON."""
    rule: str
    """Sentence about the limits, for the error message."""


def own_limits(max_npy_bytes: int, max_json_bytes: int) -> BodyLimits:
    """Returns the limits of the service's own routes."""
    return BodyLimits(
        max_npy_bytes,
        max_json_bytes,
        f"A JSON body may have at most {max_json_bytes:,} bytes and an .npy body at most {max_npy_bytes:,}; send many "
        "latents to /decode as an .npy body",
    )


async def read_body(
    receive: Receive, headers: Mapping[bytes, bytes], limits: BodyLimits, reservation: Reservation
) -> bytes:
    """Reads the whole body and returns it decompressed.

    Args:
        receive: the ASGI `receive` function of the request.
        headers: header fields of the request, with names in lower case.
        limits: maximum sizes of the body.
        reservation: this request's part of the memory budget. It grows as bytes arrive.

    Raises:
        RequestError: 413 if the body is too large, 400 if it cannot be decompressed, 415 if the compression is not
            supported, 429 if the bodies of all requests exceed the budget, 499 if the client disconnects.
    """
    declared = headers.get(b"content-length", b"0")
    if declared.isdigit() and int(declared) > limits.npy:
        raise _too_large(f"{int(declared):,}", limits)
    decoder = _decoder(headers.get(b"content-encoding", b""))
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RequestError(CLIENT_CLOSED_REQUEST, "The client disconnected")
        more = message.get("more_body", False)
        data = message.get("body", b"")
        while True:
            body += decoder.decode(data) if decoder else data
            limit = limits.npy if body.startswith(NPY_MAGIC) else limits.other
            if len(body) > limit:
                raise _too_large(f"more than {limit:,}", limits)
            if len(body) > INFLATE_BYTES or more:
                reservation.resize(len(body))
            if not decoder or not decoder.pending:
                break
            data = decoder.rest
            await asyncio.sleep(0)
    if decoder:
        decoder.check_complete()
    return bytes(body)


def _too_large(size: str, limits: BodyLimits) -> RequestError:
    return RequestError(413, f"The body has {size} bytes. {limits.rule}")


class _Decompressor:
    """Decompresses gzip or zlib data in steps of at most INFLATE_BYTES.

    Args:
        window_bits: argument `wbits` of `zlib.decompressobj`, which selects the format.
    """

    def __init__(self, window_bits: int):
        self._window_bits = window_bits
        self._stream = zlib.decompressobj(window_bits)
        self._empty = True
        self.rest = b""
        """Compressed bytes that `decode` has not processed yet."""
        self.pending = False
        """Whether `decode` must be called with `rest` before more bytes are received."""

    def decode(self, data: bytes) -> bytes:
        """Decompresses the next bytes and returns at most INFLATE_BYTES.

        Raises:
            RequestError: 400 if the data is not compressed in this format.
        """
        if self._stream.eof and data:  # a gzip file may have several members
            self._stream = zlib.decompressobj(self._window_bits)
        self._empty = self._empty and not data
        try:
            decoded = self._stream.decompress(data, INFLATE_BYTES)
        except zlib.error as error:
            raise RequestError(400, f"The body cannot be decompressed as its Content-Encoding says: {error}") from None
        self.rest = self._stream.unconsumed_tail or self._stream.unused_data
        self.pending = bool(self.rest) or len(decoded) == INFLATE_BYTES
        return decoded

    def check_complete(self) -> None:
        """Checks that the compressed data is complete.

        Raises:
            RequestError: 400 if the end of the data is missing.
        """
        if not self._stream.eof and not self._empty:
            raise RequestError(400, "The compressed body is incomplete; send all of it")


class _DeflateDecompressor(_Decompressor):
    """Decompresses `Content-Encoding: deflate`: zlib data (RFC 1950), or raw deflate data as many clients send it."""

    def __init__(self) -> None:
        super().__init__(zlib.MAX_WBITS)

    def decode(self, data: bytes) -> bytes:
        if self._empty and data and data[0] & 0x0F != zlib.DEFLATED:
            self._window_bits = -zlib.MAX_WBITS  # raw data, without the header of zlib
            self._stream = zlib.decompressobj(self._window_bits)
        return super().decode(data)


def _decoder(encoding: bytes) -> _Decompressor | None:
    """Returns the decompressor for the value of a Content-Encoding field, or None if the body is not compressed."""
    match encoding.strip().lower():
        case b"" | b"identity":
            return None
        case b"gzip" | b"x-gzip":
            return _Decompressor(zlib.MAX_WBITS | 16)  # 16 selects the gzip format
        case b"deflate":
            return _DeflateDecompressor()
    name = encoding.decode("latin-1")
    raise RequestError(415, f"Content-Encoding {name:.50} is not supported; send gzip, deflate, or no compression")
