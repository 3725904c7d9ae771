"""CRC-32, which S3 verifies of every body that it is sent, and of which it says what it has stored. Pure.

CRC-32 is the checksum that S3-compatible servers agree on. It is there for damage on the way; who might alter an object
on purpose meets the hashes of the signed manifest.
"""

import base64
import zlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec

from archiver.buffers import Buffer
from archiver.errors import IntegrityError

FIELD = "ChecksumCRC32"
"""The field of requests and answers that holds it."""
_POLYNOMIAL = 0xEDB88320
"""Of CRC-32, over GF(2), its highest power first as everywhere below: x**0 is the highest bit."""
_ONE = 1 << 31


class Checksum(msgspec.Struct, frozen=True):
    """The CRC-32 of so many bytes."""

    value: int = 0
    size: int = 0

    def followed_by(self, other: "Checksum") -> "Checksum":
        """That of its bytes and then those of ``other``, without another look at them."""
        return Checksum(_multiply(_shift(other.size), self.value) ^ other.value, self.size + other.size)

    @property
    def fields(self) -> dict[str, str]:
        """As a field of a request: base64 of four big-endian bytes."""
        return {FIELD: base64.b64encode(self.value.to_bytes(4, "big")).decode()}


def checksum_of(data: Buffer) -> Checksum:
    return Checksum(zlib.crc32(data), len(data))


def compare(place: str, request: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
    """Raise ``IntegrityError`` when ``answer`` states another checksum than ``request`` did.

    Not every store refuses a body with a wrong checksum, and not every store states one. Some state one of the parts'
    checksums where that of the whole object was asked for: its text ends with a hyphen and the number of parts.
    """
    expected, found = request.get(FIELD), answer.get(FIELD)
    if expected is not None and found is not None and "-" not in found and found != expected:
        raise IntegrityError(f"{place} was altered on its way: expected {FIELD} {expected}, got {found}")


def _multiply(first: int, second: int) -> int:
    """The product of two polynomials modulo that of CRC-32: ``multmodp`` of zlib 1.2.12's crc32.c (Mark Adler)."""
    product = 0
    for bit in range(31, -1, -1):
        if first >> bit & 1:
            product ^= second
        second = second >> 1 ^ (_POLYNOMIAL if second & 1 else 0)
    return product


# Of an upload all parts but the last have one size.
@lru_cache(maxsize=16)
def _shift(size: int) -> int:
    """x**(8 * size) modulo the polynomial, by squaring: what so many bytes that follow make of a CRC-32, as
    ``crc32_combine_gen`` of the same file has it."""
    result, power = _ONE, _ONE >> 8
    while size:
        if size & 1:
            result = _multiply(power, result)
        power = _multiply(power, power)
        size >>= 1
    return result
