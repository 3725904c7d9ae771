"""Cutting streams: no byte lost, doubled or moved, however the stream arrives."""

import errno
import io
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.buffers import Buffer, BufferFile, allocate, multiples, rechunk, split

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


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 16 * MIB])
def test_a_new_buffer_is_zero_and_nobody_else_s(size: int) -> None:
    first, second = allocate(size), allocate(size)
    assert first == second == bytes(size)
    first[-1:] = b"x"[:size]
    assert second == bytes(size)


def test_a_large_buffer_takes_memory_only_where_it_is_written() -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    before = resident()
    buffers = [allocate(64 * MIB) for _ in range(4)]
    for buffer in buffers:
        buffer[:1000] = bytes(1000)
    assert resident() - before < 32 * MIB
    buffers[0][:] = bytes(64 * MIB)
    assert resident() - before > 48 * MIB


def test_a_buffer_does_without_huge_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Mapping(mmap.mmap):
        def madvise(self, *arguments: int) -> None:
            asked.append(arguments)
            raise OSError(errno.EINVAL, "no huge pages")

    monkeypatch.setattr(mmap, "mmap", Mapping)
    assert allocate(2 * MIB) == bytes(2 * MIB)
    assert asked == [(mmap.MADV_HUGEPAGE,)]


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
