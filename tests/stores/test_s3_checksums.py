"""The CRC-32 of an object, from those of its parts."""

import zlib

from hypothesis import given
from hypothesis import strategies as st

from archiver.stores.s3_checksums import Checksum, checksum_of


@given(st.lists(st.binary(max_size=300), max_size=12))
def test_parts_make_the_whole(parts: list[bytes]) -> None:
    whole = Checksum()
    for part in parts:
        whole = whole.followed_by(checksum_of(part))
    data = b"".join(parts)
    assert whole == Checksum(zlib.crc32(data), len(data))


@given(first=st.integers(0, 2**32 - 1), size=st.integers(0, 1 << 22))
def test_long_parts(first: int, size: int) -> None:
    zeros = bytes(size)
    found = Checksum(first, 1).followed_by(checksum_of(zeros))
    assert found == Checksum(zlib.crc32(zeros, first), 1 + size)


def test_parts_of_five_gibibytes() -> None:
    """As many bytes as no test reads: a thousand times a thousand are a million, however they are put together."""
    part = checksum_of(b"x" * 5368)
    thousand = Checksum()
    for _ in range(1000):
        thousand = thousand.followed_by(part)
    forward = backward = Checksum()
    for _ in range(1000):
        forward, backward = forward.followed_by(thousand), thousand.followed_by(backward)
    assert forward == backward
    assert forward.size == 5_368_000_000
