"""zstd frames as we write them, read by us and by the stock tool."""

import base64
import random
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from archiver.errors import FormatError
from archiver.stages import frames
from archiver.stages.frames import (
    FOOTER,
    MAX_FRAME_SIZE,
    MAX_FRAMES,
    SeekTable,
    compress,
    compress_frame,
    decode_seek_table,
    decompress,
    decompress_frame,
    encode_seek_table,
    seek_table_size,
)

FRAME = 1000
MIB = 1024 * 1024
SMALL_FRAME = 128 * 1024
"""From this size on a frame is looked at before it is compressed."""
RANDOM = random.Random(7)
NOISE = RANDOM.randbytes(600_000)
TEXT = b"the quick brown fox jumps over the lazy dog; " * 14_000


def stock(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-d", "-c"], input=data, capture_output=True, check=True).stdout


def pack(plaintext: bytes, *, frame_size: int = FRAME, level: int = 3, workers: int = 2) -> bytes:
    return b"".join(compress([plaintext], level=lambda: level, frame_size=frame_size, workers=workers))


def table_of(data: bytes) -> SeekTable:
    size = seek_table_size(data[-FOOTER.size :], len(data))
    return decode_seek_table(data[-size:], len(data))


def frames_of(data: bytes) -> list[bytes]:
    """Every frame's plaintext, through the seek table."""
    table = table_of(data)
    sizes = [end - start for start, end in pairwise(table.offsets)]
    stretches = [data[start:end] for start, end in pairwise(table.starts)]
    return [decompress_frame(frame, size) for frame, size in zip(stretches, sizes, strict=True)]


@pytest.mark.parametrize("size", [0, 1, FRAME - 1, FRAME, FRAME + 1, 7 * FRAME, 7 * FRAME + 1])
@pytest.mark.parametrize("data", [NOISE, TEXT, bytes(10_000)], ids=["noise", "text", "zeros"])
def test_boundary_sizes_come_back_by_every_way(data: bytes, size: int) -> None:
    plaintext = data[:size]
    packed = pack(plaintext)
    assert stock(packed) == plaintext
    assert b"".join(decompress([packed])) == plaintext
    pieces = frames_of(packed)
    assert b"".join(pieces) == plaintext
    assert [len(piece) for piece in pieces[:-1]] == [FRAME] * (len(pieces) - 1)
    assert len(pieces) == max(1, -(-size // FRAME))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=12), st.integers(1, 400), st.integers(1, 3), st.integers(1, 97))
def test_any_buffers_in_and_out(buffers: list[bytes], frame_size: int, workers: int, step: int) -> None:
    packed = b"".join(compress(buffers, frame_size=frame_size, workers=workers))
    plaintext = b"".join(buffers)
    assert b"".join(frames_of(packed)) == plaintext
    pieces = [packed[start : start + step] for start in range(0, len(packed), step)]
    assert b"".join(decompress(pieces)) == plaintext


@pytest.mark.parametrize("size", [SMALL_FRAME - 1, SMALL_FRAME, SMALL_FRAME + 1, 3 * 128 * 1024, 600_000])
@pytest.mark.parametrize("level", [1, 3, 12])
def test_raw_frames_are_frames_that_the_stock_tool_reads(size: int, level: int) -> None:
    """Incompressible data are stored raw, in blocks of 128 KiB: three bytes each, and a header."""
    plaintext = NOISE[:size]
    packed = pack(plaintext, frame_size=1 << 20, level=level)
    assert stock(packed) == plaintext
    assert b"".join(decompress([packed])) == plaintext
    assert frames_of(packed) == [plaintext]
    assert len(packed) <= size + 64


@pytest.mark.parametrize("position", [0, 1, 2])
def test_frames_of_mixed_data_are_each_treated_as_they_deserve(position: int) -> None:
    parts = [NOISE[:100_000], NOISE[100_000:200_000]]
    parts.insert(position, TEXT[:100_000])
    plaintext = b"".join(parts)
    packed = pack(plaintext, frame_size=100_000)
    assert stock(packed) == plaintext
    assert frames_of(packed) == parts
    sizes = [end - start for start, end in pairwise(table_of(packed).starts)]
    assert sizes[position] < 5_000
    assert all(size > 100_000 for index, size in enumerate(sizes) if index != position)


def words(size: int) -> bytes:
    return b" ".join(RANDOM.choice([b"alpha", b"beta", b"gamma", b"delta", b"omega"]) for _ in range(size // 5))[:size]


def half_compressible(period: int, shift: int, repetitive: bytes) -> bytes:
    """4 MiB, every other ``period`` bytes of which are noise, from ``shift`` on."""
    data = bytearray(RANDOM.randbytes(4 * MIB))
    for start in range(shift, len(data), 2 * period):
        stretch = repetitive[: min(period, len(data) - start)]
        data[start : start + len(stretch)] = stretch
    return bytes(data)


STRIDE = (4 * MIB - 4096) // 7
"""From one probe to the next."""


@pytest.mark.parametrize("period", [4096, 65_536, STRIDE // 2, STRIDE, 2 * MIB])
@pytest.mark.parametrize("shift", [0, 4096, 100_000])
@pytest.mark.parametrize("repetitive", [bytes(2 * MIB), words(2 * MIB)], ids=["zeros", "words"])
def test_half_of_a_frame_is_compressed_wherever_it_lies(period: int, shift: int, repetitive: bytes) -> None:
    plaintext = half_compressible(period, shift, repetitive)
    frame = compress_frame(plaintext, 3)
    assert len(frame) < 1.01 * len(zstandard.ZstdCompressor(level=3).compress(plaintext))
    assert decompress_frame(frame, len(plaintext)) == plaintext


def test_what_hides_from_every_probe_is_compressed_all_the_same() -> None:
    data = bytearray(4 * MIB)
    for number in range(8):
        data[number * STRIDE : number * STRIDE + 4096] = NOISE[number * 4096 :][:4096]
    assert len(compress_frame(data, 3)) < 40_000


@pytest.mark.parametrize("distance", [300_001, MIB, 2 * MIB - 3])
@pytest.mark.parametrize("level", [1, 3])
def test_noise_that_repeats_within_a_frame_is_stored_once(distance: int, level: int) -> None:
    """Two copies of a photo, say. Level 1 alone would not look back as far as the larger distances."""
    plaintext = (RANDOM.randbytes(distance) * 20)[: 4 * MIB]
    frame = compress_frame(plaintext, level)
    assert len(frame) < 1.01 * distance + 50_000
    assert decompress_frame(frame, len(plaintext)) == plaintext
    assert stock(frame) == plaintext


def test_skewed_bytes_without_repetitions_are_compressed() -> None:
    """The quickest level finds nothing in them; half of the frame is enough for the samples to show it."""
    skewed = base64.b64encode(RANDOM.randbytes(2 * MIB))[: 2 * MIB]
    assert len(zstandard.ZstdCompressor(level=-1).compress(skewed)) > 0.97 * len(skewed)
    for plaintext in (skewed + RANDOM.randbytes(2 * MIB), RANDOM.randbytes(2 * MIB) + skewed):
        assert len(compress_frame(plaintext, 3)) < 0.9 * len(plaintext)


def test_incompressible_data_cost_little_time() -> None:
    """Relative to compressing the same bytes in the same run; the best of several, so that a busy machine is fair."""
    data = RANDOM.randbytes(4 * MIB)
    compressor = zstandard.ZstdCompressor(level=12)

    def fastest(work: Callable[[bytes], bytes]) -> float:
        times = []
        for _ in range(5):
            begin = time.thread_time()
            work(data)
            times.append(time.thread_time() - begin)
        return min(times)

    assert 3 * fastest(lambda plaintext: compress_frame(plaintext, 12)) < fastest(compressor.compress)


def test_a_thread_keeps_few_compressors() -> None:
    """Each holds the tables of its level, megabytes of them; the adaptive level goes through many in one run."""
    made = []

    def compress_at_all_levels() -> None:
        for level in (3, 1, 6, 5, 4, 3, 2, 1):
            for plaintext in (TEXT[:1000], NOISE[:SMALL_FRAME]):
                assert decompress_frame(compress_frame(plaintext, level), len(plaintext)) == plaintext
            made.append(len(frames._local.compressors))

    thread = threading.Thread(target=compress_at_all_levels)
    thread.start()
    thread.join()
    assert len(made) == 8
    assert max(made) <= 2


def test_levels_are_heard() -> None:
    plaintext = words(240_000)
    assert len(pack(plaintext, frame_size=1 << 20, level=19)) < len(pack(plaintext, frame_size=1 << 20, level=1))


@pytest.mark.parametrize("frame_size", [0, -1, MAX_FRAME_SIZE + 1])
def test_frame_sizes_that_no_reader_would_accept_are_not_written(frame_size: int) -> None:
    with pytest.raises(FormatError, match="a frame holds 1 to"):
        next(iter(compress([b"x"], frame_size=frame_size)))


def test_the_largest_frame_is_written_and_read() -> None:
    plaintext = bytes(MAX_FRAME_SIZE)
    assert frames_of(pack(plaintext, frame_size=MAX_FRAME_SIZE)) == [plaintext]


def test_a_failing_source_leaves_no_seek_table() -> None:
    def failing() -> Iterator[bytes]:
        yield TEXT[: 5 * FRAME]
        raise OSError("disk")

    written: list[bytes] = []
    with pytest.raises(OSError, match="disk"):
        for buffer in compress(failing(), frame_size=FRAME):
            written.append(buffer)
    with pytest.raises(FormatError):
        table_of(b"".join(written))


def test_the_seek_table_is_that_of_the_seekable_format() -> None:
    """Written by hand from zstd_seekable_compression_format.md."""
    expected = bytes.fromhex("5e2a4d18 19000000 0a000000 e8030000 14000000 07000000 02000000 00 b1ea928f")
    assert encode_seek_table([(10, 1000), (20, 7)]) == expected
    table = decode_seek_table(expected, 30 + len(expected))
    assert (list(table.starts), list(table.offsets)) == ([0, 10, 30], [0, 1000, 1007])
    assert (table.frames, table.plaintext_size) == (2, 1007)


def test_a_table_of_more_frames_than_a_reader_accepts_is_not_written() -> None:
    with pytest.raises(FormatError, match="use larger frames"):
        encode_seek_table([(1, 1)] * (MAX_FRAMES + 1))


PACKED = pack(TEXT[: 3 * FRAME + 10])
TABLE_SIZE = seek_table_size(PACKED[-FOOTER.size :], len(PACKED))


@pytest.mark.parametrize("bit", range(8))
def test_every_flipped_bit_of_the_table_is_refused_or_changes_nothing(bit: int) -> None:
    for position in range(len(PACKED) - TABLE_SIZE, len(PACKED)):
        damaged = bytearray(PACKED)
        damaged[position] ^= 1 << bit
        with pytest.raises(FormatError):
            frames_of(bytes(damaged))


def test_every_truncation_of_the_file_is_refused() -> None:
    for size in range(len(PACKED)):
        with pytest.raises(FormatError):
            frames_of(PACKED[:size])


def test_every_truncation_of_the_table_alone_is_refused() -> None:
    table = PACKED[-TABLE_SIZE:]
    for size in range(TABLE_SIZE):
        with pytest.raises(FormatError):
            decode_seek_table(table[-size:] if size else b"", len(PACKED))


def test_lying_sizes_that_add_up_are_refused_by_the_frames() -> None:
    """Moving a byte from one frame to the next keeps every sum: only decoding the frame can notice."""
    table = table_of(PACKED)
    sizes = [
        [end - start, offset_end - offset]
        for (start, end), (offset, offset_end) in zip(pairwise(table.starts), pairwise(table.offsets), strict=True)
    ]
    for column in (0, 1):
        lying = [list(entry) for entry in sizes]
        lying[0][column] += 1
        lying[1][column] -= 1
        body = PACKED[:-TABLE_SIZE] + encode_seek_table([(entry[0], entry[1]) for entry in lying])
        table_of(body)
        with pytest.raises(FormatError):
            frames_of(body)


@pytest.mark.parametrize(
    "footer",
    [
        FOOTER.pack(0, 0, 0x8F92EAB1),
        FOOTER.pack(2**32 - 1, 0, 0x8F92EAB1),
        FOOTER.pack(MAX_FRAMES + 1, 0, 0x8F92EAB1),
        FOOTER.pack(1, 0x80, 0x8F92EAB1),
        FOOTER.pack(1, 0, 0x8F92EAB2),
        b"",
        b"\xb1\xea\x92\x8f",
    ],
    ids=["none", "overflow", "too many", "checksums", "magic", "empty", "short"],
)
def test_footers_that_are_refused(footer: bytes) -> None:
    with pytest.raises(FormatError, match="seek table"):
        seek_table_size(footer, 2**40)


@pytest.mark.parametrize("difference", [-1, 1, 1000])
def test_a_table_that_does_not_cover_the_whole_file_is_refused(difference: int) -> None:
    with pytest.raises(FormatError, match=r"the seek table covers \d+ bytes of frames, the file has \d+"):
        decode_seek_table(PACKED[-TABLE_SIZE:], len(PACKED) + difference)


def test_a_frame_above_the_limit_is_refused_before_it_is_read() -> None:
    table = encode_seek_table([(10, MAX_FRAME_SIZE + 1)])
    with pytest.raises(FormatError, match="refused"):
        decode_seek_table(table, 10 + len(table))


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 2**32))
def test_arbitrary_bytes_are_never_a_table_by_accident(data: bytes, total: int) -> None:
    with pytest.raises(FormatError):
        decode_seek_table(data, total)


def test_a_frame_of_another_size_or_with_more_behind_it_is_refused() -> None:
    frame = compress_frame(TEXT[:500], 3)
    assert decompress_frame(frame, 500) == TEXT[:500]
    for stated in (0, 499, 501):
        with pytest.raises(FormatError, match="where the seek table says"):
            decompress_frame(frame, stated)
    for damaged in (frame + b"x", frame + frame, frame[:-1], b"", frame[:4]):
        with pytest.raises(FormatError):
            decompress_frame(damaged, 500)


def test_a_frame_that_lies_about_its_size_is_refused() -> None:
    """Content size 400 in the header, 500 bytes in its block, and the other way round."""
    frame = bytearray(compress_frame(NOISE[:500], 3))
    header = struct.calcsize("<IBH")
    assert struct.unpack_from("<H", frame, header - 2)[0] == 500 - 256
    for lie in (400, 600):
        struct.pack_into("<H", frame, header - 2, lie - 256)
        with pytest.raises(FormatError):
            decompress_frame(bytes(frame), lie)
