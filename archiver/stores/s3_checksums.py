"""CRC-32, which S3 verifies of every body that it is sent, and of which it says what it has stored. Pure.

CRC-32 is the checksum that S3-compatible servers agree on. It is there for damage on the way; who might alter an object
on purpose meets the hashes of the signed manifest.
"""

import base64
import zlib
from collections.abc import Mapping
from typing import Any

from archiver.buffers import Buffer
from archiver.errors import IntegrityError

FIELD = "ChecksumCRC32"
"""The field of requests and answers that holds it."""


class Checksum:
    """The CRC-32 of bytes that come in pieces."""

    def __init__(self, data: Buffer = b"") -> None:
        self._value = zlib.crc32(data)

    def update(self, data: Buffer) -> None:
        self._value = zlib.crc32(data, self._value)

    @property
    def fields(self) -> dict[str, str]:
        """As a field of a request: base64 of four big-endian bytes."""
        return {FIELD: base64.b64encode(self._value.to_bytes(4, "big")).decode()}


def compare(place: str, request: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
    """Raise ``IntegrityError`` when ``answer`` states another checksum than ``request`` did.

    Not every store refuses a body with a wrong checksum, and not every store states one. Some state one of the parts'
    checksums where that of the whole object was asked for: its text ends with a hyphen and the number of parts.
    """
    expected, found = request.get(FIELD), answer.get(FIELD)
    if expected is not None and found is not None and "-" not in found and found != expected:
        raise IntegrityError(f"{place} was altered on its way: expected {FIELD} {expected}, got {found}")
