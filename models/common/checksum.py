"""The seal: a file states the SHA-256 of all its bytes, inside itself, so that damage is found before it is read.

    "file_sha256": "<64 hexadecimal digits>"

The hash is that of the file with these digits set to zero. It proves that the file is whole, not where it came from.
"""

import hashlib
import re

from models.common.errors import ModelFileError

EMPTY_CHECKSUM = "0" * 64
"""The digits of a file that is still to be sealed."""

_CHECKSUM = re.compile(rb'file_sha256\\?": \\?"([0-9a-f]{64})\\?"')  # JSON, or JSON within a text of JSON


class ChecksumError(ModelFileError):
    """A file whose bytes do not have the SHA-256 that it states: it is damaged."""


def write_checksum(file: bytes) -> bytes:
    """Writes a file's SHA-256 into it.

    Raises:
        ModelFileError: it has no place for one, or several.
    """
    start, end = _find(file).span(1)
    return file[:start] + _digest(file, start, end).encode() + file[end:]


def verify_checksum(file: bytes) -> str:
    """Proves that a file is whole, byte for byte, before anything in it is parsed.

    Returns:
        The SHA-256 that it states.

    Raises:
        ChecksumError: the file is damaged.
        ModelFileError: it states no SHA-256, or several.
    """
    found = _find(file)
    stated, actual = found[1].decode(), _digest(file, *found.span(1))
    if stated != actual:
        raise ChecksumError(f"seal: the file is damaged; its SHA-256 is {actual}, it states {stated}")
    return stated


def _find(file: bytes) -> re.Match[bytes]:
    seals = list(_CHECKSUM.finditer(file))
    if len(seals) != 1:
        raise ModelFileError(f"seal: the file is cut short or not one of ours; it holds {len(seals)} seals, not 1")
    return seals[0]


def _digest(file: bytes, start: int, end: int) -> str:
    sha256 = hashlib.sha256(file[:start])
    sha256.update(EMPTY_CHECKSUM.encode())
    sha256.update(file[end:])
    return sha256.hexdigest()
