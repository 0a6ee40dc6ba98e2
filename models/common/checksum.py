"""Checksums: a file contains the SHA-256 of its own bytes, so that damage is found before the file is parsed.

    "file_sha256": "<64 hexadecimal digits>"

The hash is computed with these 64 digits set to zero. It shows that a file is complete and unchanged, not who made it.
"""

import hashlib
import re

from models.common.errors import ModelFileError

EMPTY_CHECKSUM = "0" * 64
"""Placeholder in a file whose checksum has not been written yet."""

_CHECKSUM = re.compile(rb'file_sha256\\?": \\?"([0-9a-f]{64})\\?"')  # in JSON, or in JSON within a string of JSON


class ChecksumError(ModelFileError):
    """A file is damaged: its SHA-256 differs from the checksum that it contains."""


def write_checksum(file: bytes) -> bytes:
    """Returns the content of a file with its SHA-256 in the place of the checksum.

    Raises:
        ModelFileError: the file has no place for a checksum, or several.
    """
    start, end = _find(file).span(1)
    return file[:start] + _digest(file, start, end).encode() + file[end:]


def verify_checksum(file: bytes) -> str:
    """Checks that no byte of a file has changed since its checksum was written.

    Returns:
        The checksum, 64 hexadecimal digits.

    Raises:
        ChecksumError: the file is damaged.
        ModelFileError: the file contains no checksum, or several.
    """
    found = _find(file)
    stated, actual = found[1].decode(), _digest(file, *found.span(1))
    if stated != actual:
        raise ChecksumError(
            f"checksum: the file is damaged; its SHA-256 {actual} differs from the checksum {stated} that it contains"
        )
    return stated


def _find(file: bytes) -> re.Match[bytes]:
    checksums = list(_CHECKSUM.finditer(file))
    if len(checksums) != 1:
        raise ModelFileError(
            "checksum: the file is truncated or was not written by mnist-gan: "
            f"it contains {len(checksums):,} checksums instead of 1"
        )
    return checksums[0]


def _digest(file: bytes, start: int, end: int) -> str:
    sha256 = hashlib.sha256(file[:start])
    sha256.update(EMPTY_CHECKSUM.encode())
    sha256.update(file[end:])
    return sha256.hexdigest()
