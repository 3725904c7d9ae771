"""Random access into age files: any range, no more chunks than needed, and no damage that passes."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archiver.crypto.age import MAX_HEAD, AgeReader, seal_bytes
from archiver.crypto.header import IncompleteHeaderError, parse_header
from archiver.crypto.stream import CHUNK, NONCE_SIZE, SEALED_CHUNK
from archiver.crypto.x25519 import X25519Identity
from archiver.errors import DecryptionError, FormatError

IDENTITY = X25519Identity.generate()
OTHER = X25519Identity.generate()
BOUNDARIES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 200_001]
SIZES = st.one_of(st.integers(0, 3000), st.sampled_from(BOUNDARIES))
NOISE = os.urandom(4 * CHUNK)


def read_range(sealed: bytes | bytearray, start: int, length: int) -> bytes:
    reader = AgeReader(sealed[:MAX_HEAD], len(sealed), [IDENTITY])
    offset, size = reader.ciphertext_range(start, length)
    return bytes(reader.open_range(start, length, sealed[offset : offset + size]))


@settings(max_examples=80, deadline=None)
@given(SIZES, st.integers(0, 2**22), st.integers(0, 2**22))
def test_any_range_equals_the_slice(size: int, start: int, length: int) -> None:
    sealed = seal_bytes(NOISE[:size], [IDENTITY.recipient])
    start %= size + 1
    length %= size - start + 1
    assert read_range(sealed, start, length) == NOISE[start : start + length]


@pytest.mark.parametrize(("size", "chunks"), [(3 * CHUNK, 1), (3 * CHUNK, 2), (3 * CHUNK, 3), (CHUNK + 1, 1), (5, 1)])
def test_the_first_chunks_may_lie_apart_and_the_plaintext_where_there_is_room(size: int, chunks: int) -> None:
    sealed = seal_bytes(NOISE[:size], [IDENTITY.recipient])
    reader = AgeReader(sealed[:MAX_HEAD], len(sealed), [IDENTITY])
    payload = sealed[reader.payload_offset :]
    before, rest = payload[: chunks * SEALED_CHUNK], payload[chunks * SEALED_CHUNK :]
    memory = memoryview(bytearray(3 * CHUNK))
    opened = reader.open_range(0, size, rest, before=before, room=lambda count: memory[:count])
    assert opened == NOISE[:size] == memory[:size]
    assert reader.open_range(0, size, rest, before=before) == NOISE[:size]
    for wrong in (before[:-1] + bytes([before[-1] ^ 1]), bytes(len(before))):
        with pytest.raises(DecryptionError, match="chunk"):
            reader.open_range(0, size, rest, before=wrong)
    for short in (b"", before[1:], before + b"x"):
        with pytest.raises(FormatError, match="expected"):
            reader.open_range(0, size, rest, before=short)


@pytest.mark.parametrize("size", BOUNDARIES)
def test_knows_the_sizes_and_asks_for_whole_chunks(size: int) -> None:
    sealed = seal_bytes(NOISE[:size], [IDENTITY.recipient])
    reader = AgeReader(sealed[:400], len(sealed), [IDENTITY])
    assert reader.plaintext_size == size
    assert reader.ciphertext_range(0, size) == (reader.payload_offset, len(sealed) - reader.payload_offset)
    assert read_range(sealed, 0, size) == NOISE[:size]
    if size:
        assert reader.ciphertext_range(size, 0)[1] == 0
        assert read_range(sealed, size, 0) == b""
        offset, length = reader.ciphertext_range(size - 1, 1)
        assert offset == reader.payload_offset + (size - 1) // CHUNK * SEALED_CHUNK
        assert offset + length == len(sealed)


def test_touches_no_more_chunks_than_it_must() -> None:
    sealed = seal_bytes(NOISE[: 3 * CHUNK], [IDENTITY.recipient])
    reader = AgeReader(sealed[:400], len(sealed), [IDENTITY])
    at = reader.payload_offset
    assert reader.ciphertext_range(CHUNK, CHUNK) == (at + SEALED_CHUNK, SEALED_CHUNK)
    assert reader.ciphertext_range(CHUNK - 1, 2) == (at, 2 * SEALED_CHUNK)
    assert reader.ciphertext_range(CHUNK, 0) == (at + SEALED_CHUNK, 0)


@pytest.mark.parametrize(("start", "length"), [(-1, 1), (0, -1), (0, 101), (100, 1), (101, 0)])
def test_refuses_ranges_beyond_the_plaintext(start: int, length: int) -> None:
    sealed = seal_bytes(bytes(100), [IDENTITY.recipient])
    reader = AgeReader(sealed, len(sealed), [IDENTITY])
    with pytest.raises(FormatError, match="within 100 bytes"):
        reader.ciphertext_range(start, length)
    with pytest.raises(FormatError, match="within 100 bytes"):
        reader.open_range(start, length, b"")


def test_refuses_ciphertext_of_another_size() -> None:
    sealed = seal_bytes(bytes(2 * CHUNK), [IDENTITY.recipient])
    reader = AgeReader(sealed[:400], len(sealed), [IDENTITY])
    offset, size = reader.ciphertext_range(0, 5)
    for given_size in (0, size - 1, size + 1):
        with pytest.raises(FormatError, match=f"expected {size} bytes of an encrypted file, got {given_size}"):
            reader.open_range(0, 5, sealed[offset : offset + given_size])


def test_finds_a_file_that_lost_whole_chunks() -> None:
    sealed = seal_bytes(NOISE[: 3 * CHUNK], [IDENTITY.recipient])[:-SEALED_CHUNK]
    assert read_range(sealed, 0, CHUNK) == NOISE[:CHUNK]
    with pytest.raises(DecryptionError, match="chunk 1 "):
        read_range(sealed, CHUNK, CHUNK)


def test_finds_a_size_that_is_not_the_file_s() -> None:
    sealed = seal_bytes(NOISE[: 3 * CHUNK], [IDENTITY.recipient])
    for size in (len(sealed) - SEALED_CHUNK, len(sealed) + SEALED_CHUNK, len(sealed) - 1):
        reader = AgeReader(sealed[:400], size, [IDENTITY])
        offset, length = reader.ciphertext_range(reader.plaintext_size - 1, 1)
        with pytest.raises((FormatError, DecryptionError)):
            reader.open_range(reader.plaintext_size - 1, 1, (sealed + bytes(length))[offset : offset + length])


def test_every_flipped_bit_is_refused() -> None:
    sealed = seal_bytes(b"text", [IDENTITY.recipient])
    for bit in range(len(sealed) * 8):
        damaged = bytearray(sealed)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises((FormatError, DecryptionError)):
            read_range(damaged, 0, 4)


@pytest.mark.parametrize("size", [0, 5])
def test_every_truncation_of_a_small_file_is_refused(size: int) -> None:
    sealed = seal_bytes(NOISE[:size], [IDENTITY.recipient])
    for length in range(len(sealed)):
        with pytest.raises((FormatError, DecryptionError)):
            read_range(sealed[:length], 0, size)


def test_an_empty_file_is_proven_empty() -> None:
    sealed = seal_bytes(b"", [IDENTITY.recipient])
    reader = AgeReader(sealed, len(sealed), [IDENTITY])
    assert reader.ciphertext_range(0, 0) == (reader.payload_offset, 16)
    with pytest.raises(DecryptionError):
        reader.open_range(0, 0, bytes(16))


def test_the_reader_says_when_its_head_is_too_short() -> None:
    sealed = seal_bytes(bytes(1000), [IDENTITY.recipient, OTHER.recipient])
    head = parse_header(sealed)[1] + NONCE_SIZE
    for length in range(head):
        with pytest.raises(IncompleteHeaderError):
            AgeReader(sealed[:length], len(sealed), [IDENTITY])
        with pytest.raises(FormatError, match="truncated") as caught:
            AgeReader(sealed[:length], length, [IDENTITY])
        assert not isinstance(caught.value, IncompleteHeaderError)
    assert AgeReader(sealed[:head], len(sealed), [IDENTITY]).plaintext_size == 1000


def test_the_reader_refuses_a_wrong_identity() -> None:
    sealed = seal_bytes(b"text", [IDENTITY.recipient])
    with pytest.raises(DecryptionError, match="none of 1 identities"):
        AgeReader(sealed, len(sealed), [OTHER])
