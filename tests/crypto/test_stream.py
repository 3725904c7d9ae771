"""The payload's chunks: sizes, nonces, order, and opening at random."""

import itertools

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given, settings
from hypothesis import strategies as st

from archiver.crypto.header import derive_key
from archiver.crypto.stream import (
    CHUNK,
    OVERHEAD,
    SEALED_CHUNK,
    PayloadOpener,
    PayloadSealer,
    chunk_count,
    plaintext_size,
    sealed_size,
)
from archiver.errors import DecryptionError, FormatError

FILE_KEY, NONCE = bytes(range(16)), bytes(range(16, 32))
SIZES = st.one_of(
    st.integers(0, 2**45),
    st.builds(lambda chunks, delta: max(0, chunks * CHUNK + delta), st.integers(0, 2**29), st.integers(-20, 20)),
)


def sealed(plaintext: bytes) -> bytes:
    out = bytearray(sealed_size(len(plaintext)))
    assert PayloadSealer(FILE_KEY, NONCE).seal_into(plaintext, out, last=True) == len(out)
    return bytes(out)


def opened(index: int, data: bytes, *, last: bool) -> bytes:
    out = bytearray(len(data))
    size = PayloadOpener(FILE_KEY, NONCE).open_into(index, data, out, last=last)
    return bytes(out[:size])


@given(SIZES)
def test_sizes_are_inverse(size: int) -> None:
    assert plaintext_size(sealed_size(size)) == size
    assert chunk_count(size) == len(range(0, size, CHUNK)) or size == 0


@given(st.integers(-5, 3 * SEALED_CHUNK + 40))
def test_a_size_is_possible_or_refused(size: int) -> None:
    possible = size >= OVERHEAD and (size == OVERHEAD or size % SEALED_CHUNK == 0 or size % SEALED_CHUNK > OVERHEAD)
    if possible:
        assert sealed_size(plaintext_size(size)) == size
    else:
        with pytest.raises(FormatError, match="no whole chunks"):
            plaintext_size(size)


@pytest.mark.parametrize(
    "size", [-1, 0, 1, 15, SEALED_CHUNK + 1, SEALED_CHUNK + 15, SEALED_CHUNK + 16, 2 * SEALED_CHUNK + 16]
)
def test_impossible_sizes_are_refused(size: int) -> None:
    with pytest.raises(FormatError, match="no whole chunks"):
        plaintext_size(size)


def test_chunks_are_what_the_specification_says() -> None:
    cipher = ChaCha20Poly1305(derive_key(FILE_KEY, salt=NONCE, info=b"payload"))
    first, second = b"a" * CHUNK, b"b"
    expected = cipher.encrypt(bytes(12), first, None) + cipher.encrypt(bytes(10) + b"\x01\x01", second, None)
    assert sealed(first + second) == expected
    assert sealed(b"") == cipher.encrypt(bytes(11) + b"\x01", b"", None)


def test_a_full_last_chunk_is_the_final_one() -> None:
    assert len(sealed(bytes(CHUNK))) == SEALED_CHUNK
    assert opened(0, sealed(bytes(CHUNK)), last=True) == bytes(CHUNK)


@pytest.mark.parametrize("calls", [[3], [1, 2], [2, 1], [1, 1, 1]])
def test_pieces_of_any_number_of_chunks_give_the_same_bytes(calls: list[int]) -> None:
    plaintext = b"".join(bytes([value]) * CHUNK for value in range(3)) + b"tail"
    sealer, out, start = PayloadSealer(FILE_KEY, NONCE), bytearray(), 0
    for count in calls:
        piece = bytearray(count * SEALED_CHUNK)
        assert sealer.seal_into(plaintext[start : start + count * CHUNK], piece, last=False) == len(piece)
        out += piece
        start += count * CHUNK
    tail = bytearray(4 + OVERHEAD)
    sealer.seal_into(b"tail", tail, last=True)
    assert bytes(out + tail) == sealed(plaintext)


@pytest.mark.parametrize(
    ("before", "size", "last"),
    [(0, 0, False), (0, 1, False), (0, CHUNK - 1, False), (0, CHUNK + 1, False), (1, 0, True), (1, 5, False)],
)
def test_the_sealer_refuses_chunks_out_of_form(before: int, size: int, last: bool) -> None:
    sealer, out = PayloadSealer(FILE_KEY, NONCE), bytearray(2 * SEALED_CHUNK)
    for _ in range(before):
        sealer.seal_into(bytes(CHUNK), out, last=False)
    with pytest.raises(ValueError, match=f"cannot seal {size} bytes"):
        sealer.seal_into(bytes(size), out, last=last)


def test_the_sealer_refuses_chunks_after_the_last() -> None:
    sealer, out = PayloadSealer(FILE_KEY, NONCE), bytearray(SEALED_CHUNK)
    sealer.seal_into(b"x", out, last=True)
    for last in (True, False):
        with pytest.raises(ValueError, match="finished=True"):
            sealer.seal_into(bytes(CHUNK), out, last=last)


def test_opens_any_run_of_chunks() -> None:
    plaintext = b"".join(bytes([value]) * CHUNK for value in range(4)) + b"tail"
    data = sealed(plaintext)
    for first, end in itertools.combinations(range(6), 2):
        run = data[first * SEALED_CHUNK : end * SEALED_CHUNK]
        assert opened(first, run, last=end == 5) == plaintext[first * CHUNK : end * CHUNK]


def test_a_chunk_opens_only_at_its_place_and_with_its_flag() -> None:
    data = sealed(bytes(2 * CHUNK + 5))
    chunks = [data[start : start + SEALED_CHUNK] for start in range(0, len(data), SEALED_CHUNK)]
    for number, chunk in enumerate(chunks):
        for index, last in itertools.product(range(4), (False, True)):
            if (index, last) == (number, number == 2):
                assert opened(index, chunk, last=last) == bytes(len(chunk) - OVERHEAD)
            else:
                with pytest.raises((DecryptionError, FormatError)):
                    opened(index, chunk, last=last)


@pytest.mark.parametrize(
    ("index", "size", "last"),
    [
        (0, 0, True),
        (0, 0, False),
        (0, 15, True),
        (0, SEALED_CHUNK + 15, True),
        (0, SEALED_CHUNK + 16, True),
        (0, 100, False),
    ],
)
def test_the_opener_refuses_impossible_sizes(index: int, size: int, last: bool) -> None:
    with pytest.raises(FormatError):
        opened(index, bytes(size), last=last)


def test_an_empty_final_chunk_after_others_is_refused_though_its_tag_is_right() -> None:
    cipher = ChaCha20Poly1305(derive_key(FILE_KEY, salt=NONCE, info=b"payload"))
    chunk = cipher.encrypt(bytes(10) + b"\x01\x01", b"", None)
    with pytest.raises(FormatError, match="final chunk of an encrypted payload is empty"):
        opened(1, chunk, last=True)


def test_an_index_that_does_not_fit_its_nonce_is_refused() -> None:
    with pytest.raises(OverflowError):
        opened(2**88, bytes(SEALED_CHUNK), last=False)


@settings(max_examples=30)
@given(st.integers(0, 3), st.integers(0, SEALED_CHUNK * 8 - 1))
def test_a_flipped_bit_in_any_chunk_is_refused(chunk: int, bit: int) -> None:
    data = bytearray(sealed(bytes(4 * CHUNK)))
    data[chunk * SEALED_CHUNK + bit // 8] ^= 1 << bit % 8
    with pytest.raises(DecryptionError, match=f"chunk {chunk} "):
        opened(0, bytes(data), last=True)
