"""Reads the body of a request, within its limits, before anything is made of it."""

import asyncio
import zlib
from collections.abc import Mapping

from starlette.types import Receive

from serving.http.body_parsing import NPY_MAGIC
from serving.http.budget import Share
from serving.http.errors import CLIENT_CLOSED_REQUEST, RequestError

INFLATE_BYTES = 256 << 10
"""Number of bytes that are decompressed before the event loop serves other requests."""


async def read_body(
    receive: Receive, headers: Mapping[bytes, bytes], max_npy_bytes: int, max_json_bytes: int, share: Share
) -> bytes:
    """Returns the whole body, decompressed.

    Args:
        receive: The function of the ASGI server.
        headers: Names in lower case, and values.
        max_npy_bytes: Largest body that begins as an .npy file does, after decompression.
        max_json_bytes: Largest body of any other kind, after decompression.
        share: Counts the bytes while they arrive.

    Raises:
        RequestError: 413, the body is too large; 400, it is not compressed as the header says; 415, the compression is
            unknown; 429, too many bytes are held already; 499, the client disconnected.
    """
    declared = headers.get(b"content-length", b"0")
    if declared.isdigit() and int(declared) > max_npy_bytes:
        raise _too_large(f"{int(declared):,}", max_npy_bytes, max_json_bytes)
    decoder = _decoder(headers.get(b"content-encoding", b""))
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RequestError(CLIENT_CLOSED_REQUEST, "The client disconnected")
        more = message.get("more_body", False)
        piece = message.get("body", b"")
        while True:
            body += decoder.decode(piece) if decoder else piece
            limit = max_npy_bytes if body.startswith(NPY_MAGIC) else max_json_bytes
            if len(body) > limit:
                raise _too_large(f"more than {limit:,}", max_npy_bytes, max_json_bytes)
            if len(body) > INFLATE_BYTES or more:
                share.resize(len(body))
            if not decoder or not decoder.pending:
                break
            piece = decoder.rest
            await asyncio.sleep(0)
    if decoder:
        decoder.check_complete()
    return bytes(body)


def _too_large(size: str, max_npy_bytes: int, max_json_bytes: int) -> RequestError:
    return RequestError(
        413,
        f"The body has {size} bytes; JSON may have {max_json_bytes:,} and an .npy array {max_npy_bytes:,}. "
        "Send many latents to /decode as an .npy array",
    )


class _Inflate:
    """Decompresses gzip or zlib data in steps of at most INFLATE_BYTES."""

    def __init__(self, window_bits: int):
        self._window_bits = window_bits
        self._inflate = zlib.decompressobj(window_bits)
        self._empty = True
        self.rest = b""
        """Compressed bytes that `decode` has not used yet."""
        self.pending = False
        """Whether `decode` has to be called again with `rest`, although no new bytes have arrived."""

    def decode(self, data: bytes) -> bytes:
        if self._inflate.eof and data:  # gzip files may be concatenated
            self._inflate = zlib.decompressobj(self._window_bits)
        self._empty = self._empty and not data
        try:
            decoded = self._inflate.decompress(data, INFLATE_BYTES)
        except zlib.error as error:
            raise RequestError(400, f"The body is not compressed as Content-Encoding says ({error})") from None
        self.rest = self._inflate.unconsumed_tail or self._inflate.unused_data
        self.pending = bool(self.rest) or len(decoded) == INFLATE_BYTES
        return decoded

    def check_complete(self) -> None:
        if not self._inflate.eof and not self._empty:
            raise RequestError(400, "The compressed body ends too early")


class _Deflate(_Inflate):
    """Decompresses `Content-Encoding: deflate`, which is zlib data; many clients leave zlib's header out."""

    def __init__(self) -> None:
        super().__init__(zlib.MAX_WBITS)

    def decode(self, data: bytes) -> bytes:
        if self._empty and data and data[0] & 0x0F != zlib.DEFLATED:
            self._window_bits = -zlib.MAX_WBITS
            self._inflate = zlib.decompressobj(self._window_bits)
        return super().decode(data)


def _decoder(encoding: bytes) -> _Inflate | None:
    """Returns the decoder for a Content-Encoding, or None for a body that is not compressed."""
    match encoding.strip().lower():
        case b"" | b"identity":
            return None
        case b"gzip" | b"x-gzip":
            return _Inflate(zlib.MAX_WBITS | 16)
        case b"deflate":
            return _Deflate()
    name = encoding.decode("latin-1")
    raise RequestError(415, f"Content-Encoding {name:.50} is not supported; send gzip, deflate, or no compression")
