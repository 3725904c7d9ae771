"""The streaming decoder over files that stock tools and attackers make: all of it, or an error, in bounded memory."""

import contextlib
import random
import struct
import subprocess
import tracemalloc

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from archiver.errors import FormatError
from archiver.stages.frames import compress, decompress

RANDOM = random.Random(11)
WORDS = [b"alpha", b"beta", b"gamma", b"delta", b"omega", b"\x00\x01", b"\n"]
PLAINTEXT = b" ".join(RANDOM.choice(WORDS) for _ in range(60_000)) + RANDOM.randbytes(50_000)
MIB = 1024 * 1024
MAGIC = struct.pack("<I", zstandard.MAGIC_NUMBER)


def zstd(plaintext: bytes, *options: str) -> bytes:
    return subprocess.run(["zstd", "-c", *options], input=plaintext, capture_output=True, check=True).stdout


def skippable(payload: bytes, number: int = 0) -> bytes:
    return struct.pack("<II", 0x184D2A50 + number, len(payload)) + payload


def read(data: bytes, step: int = 4096) -> bytes:
    return b"".join(decompress(data[start : start + step] for start in range(0, len(data), step)))


@pytest.mark.parametrize("checksum", ["--check", "--no-check"])
@pytest.mark.parametrize("options", [["-1"], ["-3"], ["-19"], ["--fast=5"], ["--long=27", "-3"], ["-T2", "-B32768"]])
def test_reads_what_the_stock_tool_writes(options: list[str], checksum: str) -> None:
    packed = zstd(PLAINTEXT, checksum, *options)
    assert read(packed) == PLAINTEXT
    assert read(packed, step=7) == PLAINTEXT


def test_reads_concatenated_frames_and_skips_skippable_ones() -> None:
    parts = [PLAINTEXT[:1000], b"", PLAINTEXT[1000:90_000]]
    packed = [zstd(part) for part in parts]
    file = skippable(b"first") + packed[0] + skippable(b"") + packed[1] + skippable(b"x" * 5000, 15) + packed[2]
    assert read(file) == read(file, step=1) == b"".join(parts)
    assert read(file + skippable(b"last")) == b"".join(parts)
    assert read(skippable(b"nothing else")) == b""


@pytest.mark.parametrize("plaintext", [b"", b"x", PLAINTEXT[:3000], PLAINTEXT[-20_000:]])
@pytest.mark.parametrize("checksum", ["--check", "--no-check"])
def test_every_truncation_of_a_single_frame_is_refused(plaintext: bytes, checksum: str) -> None:
    packed = zstd(plaintext, checksum)
    sizes = range(len(packed)) if len(packed) < 2000 else RANDOM.sample(range(len(packed)), 300)
    for size in sizes:
        with pytest.raises(FormatError):
            read(packed[:size])


def test_every_truncation_inside_our_own_files_is_refused() -> None:
    packed = list(compress([PLAINTEXT[:4000]], frame_size=1500))
    ends = {sum(map(len, packed[:count])) for count in range(1, len(packed))}
    whole = b"".join(packed)
    for size in set(range(len(whole))) - ends:
        with pytest.raises(FormatError):
            read(whole[:size])


def test_a_wrong_checksum_is_refused() -> None:
    packed = bytearray(zstd(PLAINTEXT, "--check"))
    packed[-1] ^= 1
    with pytest.raises(FormatError, match="not a valid zstd stream"):
        read(bytes(packed))


def test_garbage_before_between_and_after_frames_is_refused() -> None:
    packed = zstd(PLAINTEXT[:1000])
    for file in (b"", b"\0", b"garbage" + packed, packed + b"\0", packed + b"garbage", packed + b"\0" * 9 + packed):
        with pytest.raises(FormatError):
            read(file)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing_but_format_errors(data: bytes) -> None:
    for start in (b"", MAGIC):
        with contextlib.suppress(FormatError):
            read(start + data, step=3)


def run_length_bomb(blocks: int, size: int = 128 * 1024) -> bytes:
    """``blocks`` blocks of four bytes that each stand for ``size`` zeros (RFC 8878, section 3.1.1.2)."""
    header = MAGIC + bytes([0b00000000, 0b0101_0000])  # a window of 1 MiB, no content size
    block = (size << 3 | 1 << 1).to_bytes(3, "little") + b"\0"
    last = (size << 3 | 1 << 1 | 1).to_bytes(3, "little") + b"\0"
    return header + block * (blocks - 1) + last


def test_a_bomb_stays_in_bounded_memory() -> None:
    """8 GiB out of 256 KiB, and no call may allocate more than one slice's worth, 32 MiB, twice for the join."""
    packed = run_length_bomb(65_536)
    tracemalloc.start()
    try:
        total = 0
        for buffer in decompress([packed]):
            total += len(buffer)
            if total > 512 * MIB:
                break
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total > 512 * MIB
    assert peak < 80 * MIB


def test_a_run_length_frame_is_read_whole() -> None:
    assert sum(map(len, decompress([run_length_bomb(40)]))) == 40 * 128 * 1024


def window(exponent: int) -> bytes:
    return MAGIC + bytes([0, exponent << 3]) + (5 << 3 | 1).to_bytes(3, "little") + b"hello"


def test_a_window_beyond_that_of_the_stock_tool_is_refused() -> None:
    assert read(window(17)) == b"hello"  # 2 ** (10 + 17) bytes: 128 MiB
    for exponent in (18, 21, 31):
        with pytest.raises(FormatError, match="not a valid zstd stream"):
            read(window(exponent))


@pytest.mark.parametrize("stated", [4, 6, 2**20, 2**40, 2**64 - 1])
def test_a_content_size_that_lies_is_refused(stated: int) -> None:
    """Single segment, eight bytes of content size, one raw block of five bytes."""
    frame = MAGIC + bytes([0b1110_0000]) + struct.pack("<Q", stated) + (5 << 3 | 1).to_bytes(3, "little") + b"hello"
    with pytest.raises(FormatError):
        read(frame)
