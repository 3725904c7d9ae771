"""Cutting streams: no byte lost, doubled or moved, however the stream arrives."""

import io
import os
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.buffers import Buffer, BufferFile, filled, multiples, rechunk, split

MIB = 1024 * 1024
NOISE = os.urandom(5 * MIB)
BUFFERS = st.lists(
    st.binary(max_size=40).flatmap(lambda data: st.sampled_from([data, bytearray(data), memoryview(data)])), max_size=12
)


def joined(buffers: list[Buffer]) -> bytes:
    return b"".join(bytes(buffer) for buffer in buffers)


@given(BUFFERS, st.integers(1, 50))
def test_rechunk_gives_the_same_bytes_in_equal_pieces(buffers: list[Buffer], size: int) -> None:
    pieces = list(rechunk(buffers, size))
    assert joined(pieces) == joined(buffers)
    assert all(len(piece) == size for piece in pieces[:-1])
    assert all(0 < len(piece) <= size for piece in pieces)


@given(BUFFERS, st.integers(1, 50))
def test_rechunk_never_changes_what_it_has_yielded(buffers: list[Buffer], size: int) -> None:
    kept, seen = [], []
    for piece in rechunk(buffers, size):
        kept.append(piece)
        seen.append(bytes(piece))
    assert [bytes(piece) for piece in kept] == seen


def test_rechunk_does_not_copy_a_buffer_that_fits() -> None:
    data = bytearray(b"abcdef")
    first, second = rechunk([data], 3)
    data[:] = b"uvwxyz"
    assert (bytes(first), bytes(second)) == (b"uvw", b"xyz")


def test_rechunk_passes_an_error_on_and_yields_no_partial_piece_before_it() -> None:
    def failing() -> Iterator[bytes]:
        yield b"abcde"
        raise OSError("disk")

    pieces = rechunk(failing(), 4)
    assert bytes(next(pieces)) == b"abcd"
    with pytest.raises(OSError, match="disk"):
        next(pieces)


@pytest.mark.parametrize("total", [0, 1, 2 * MIB - 1, 2 * MIB, 2 * MIB + 1, 5 * MIB])
@pytest.mark.parametrize("step", [300_000, 2 * MIB, 3 * MIB])
def test_rechunk_of_large_pieces_gives_the_same_bytes(total: int, step: int) -> None:
    data = NOISE[:total]
    pieces = list(rechunk((data[start : start + step] for start in range(0, total, step)), 2 * MIB))
    assert joined(pieces) == data
    assert [len(piece) for piece in pieces[:-1]] == [2 * MIB] * (len(pieces) - 1)


@given(BUFFERS, st.integers(1, 50))
def test_multiples_gives_the_same_bytes_in_whole_units(buffers: list[Buffer], unit: int) -> None:
    pieces = list(multiples(buffers, unit))
    assert joined(pieces) == joined(buffers)
    assert all(len(piece) % unit == 0 for piece in pieces[:-1])
    assert all(pieces)


@given(BUFFERS, st.integers(1, 50))
def test_multiples_never_changes_what_it_has_yielded(buffers: list[Buffer], unit: int) -> None:
    kept, seen = [], []
    for piece in multiples(buffers, unit):
        kept.append(piece)
        seen.append(bytes(piece))
    assert [bytes(piece) for piece in kept] == seen


def test_multiples_copies_only_what_straddles() -> None:
    first, second = bytearray(b"abcdefgh"), bytearray(b"ijklmnop")
    pieces = multiples([first, second], 3)
    whole = [next(pieces), next(pieces), next(pieces)]
    first[:6], second[1:7] = b"ABCDEF", b"JKLMNO"
    assert [bytes(piece) for piece in whole] == [b"ABCDEF", b"ghi", b"JKLMNO"]


def reading(data: bytes) -> Callable[[memoryview], int]:
    """What fills buffers from ``data``, from its start to its end."""
    rest = memoryview(data)

    def read_into(target: memoryview) -> int:
        nonlocal rest
        taken = min(len(rest), len(target))
        target[:taken] = rest[:taken]
        rest = rest[taken:]
        return taken

    return read_into


@pytest.mark.parametrize("size", [1000, MIB - 1, MIB, MIB + 1, 2 * MIB])
@pytest.mark.parametrize("whole", [0, 1, 2])
@pytest.mark.parametrize("more", [-1, 0, 1])
def test_filled_gives_all_bytes_in_new_buffers_of_one_size(size: int, whole: int, more: int) -> None:
    data = NOISE[: max(0, whole * size + more)]
    kept: list[Buffer] = list(filled(size, reading(data)))
    assert joined(kept) == data
    assert [len(part) for part in kept[:-1]] == [size] * (len(kept) - 1)
    assert all(0 < len(part) <= size for part in kept)


@pytest.mark.parametrize("total", [0, 1, MIB - 1, MIB, MIB + 1, 2 * MIB - 1, 2 * MIB])
def test_a_stream_about_as_long_as_the_first_buffer_is_whole(total: int) -> None:
    data = NOISE[:total]
    assert joined(list(filled(5 * MIB, reading(data)))) == data


@pytest.mark.parametrize("total", [MIB + 1, 2 * MIB, 5 * MIB])
def test_the_last_buffer_takes_no_more_memory_than_its_bytes(total: int) -> None:
    """Many objects of some megabytes may wait for the store, each in what would be a whole part."""
    for part in filled(4 * MIB, reading(NOISE[:total])):
        assert isinstance(part.obj, bytes | bytearray)
        assert len(part.obj) == len(part)


def test_filled_holds_no_buffer_while_the_next_one_is_made() -> None:
    alive = weakref.WeakSet[Any]()

    class Part(bytearray):
        def __init__(self, size: int) -> None:
            super().__init__(size)
            assert not alive
            alive.add(self)

        __hash__ = object.__hash__  # type: ignore[assignment]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("archiver.buffers.bytearray", Part, raising=False)
        parts = filled(1000, reading(bytes(3000)))
        seen = 0
        while next(parts, None) is not None:
            seen += 1
    assert seen == 3


@given(BUFFERS, st.integers(1, 100))
def test_split_gives_the_same_bytes_within_the_limit(buffers: list[Buffer], limit: int) -> None:
    pieces = [list(piece) for piece in split(buffers, limit)]
    assert joined([joined(piece) for piece in pieces]) == joined(buffers)
    assert pieces
    for piece in pieces:
        # A single buffer above the limit is not cut; nothing else may exceed it.
        assert len(piece) == 1 or len(joined(piece)) <= limit
        assert all(len(buffer) for buffer in piece)
    assert len(pieces) == 1 or all(pieces), "an object without bytes would be stored for nothing"


@given(st.integers(0, 200), st.integers(1, 8), st.integers(1, 6))
def test_split_fills_every_stream_but_the_last(total: int, size: int, factor: int) -> None:
    data = bytes(index % 251 for index in range(total))
    pieces = [joined(list(piece)) for piece in split(rechunk([data], size), size * factor)]
    assert all(len(piece) == size * factor for piece in pieces[:-1])
    assert b"".join(pieces) == data


def test_split_of_nothing_is_one_empty_stream() -> None:
    assert [list(piece) for piece in split([], 10)] == [[]]
    assert [list(piece) for piece in split([b"", b""], 10)] == [[]]


def test_split_passes_an_error_on_inside_the_stream_that_it_would_have_ended() -> None:
    def failing() -> Iterator[bytes]:
        yield b"abcd"
        raise OSError("disk")

    piece = next(split(failing(), 4))
    assert next(piece) == b"abcd"
    with pytest.raises(OSError, match="disk"):
        next(piece)


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.integers(-1, 50)),
        st.tuples(st.just("seek"), st.integers(0, 50)),
        st.tuples(st.just("end"), st.just(0)),
    )
)


@given(st.binary(max_size=40), OPERATIONS)
def test_a_buffer_reads_as_a_file(data: bytes, operations: list[tuple[str, int]]) -> None:
    ours, model = BufferFile(memoryview(data)), io.BytesIO(data)
    for name, number in operations:
        match name:
            case "read":
                assert ours.read(number) == model.read(number)
            case "seek":
                ours.seek(min(number, len(data)))
                model.seek(min(number, len(data)))
            case _:
                assert ours.seek(0, io.SEEK_END) == model.seek(0, io.SEEK_END)
        assert ours.tell() == model.tell()
