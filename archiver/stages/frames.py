"""zstd in independent frames with a seek table at the end: the "zstd seekable format", without checksums.

Source of the format: ``contrib/seekable_format/zstd_seekable_compression_format.md`` in zstd's repository. The result
is a plain zstd file: ``zstd -d`` reads it as it is, because the seek table is a skippable frame.

::

    frame 0 | frame 1 | … | skippable frame: magic 0x184D2A5E, length,
                            per frame (compressed size u32, plaintext size u32),
                            number of frames u32, descriptor 0, magic 0x8F92EAB1
"""

import struct
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import zstandard

from archiver.buffers import Buffer, rechunk
from archiver.errors import FormatError
from archiver.parallel import ordered_map

FRAME_SIZE = 4 * 1024 * 1024
MAX_FRAME_SIZE = 64 * 1024 * 1024
"""The largest plaintext of one frame that a reader accepts: what one frame may make it allocate."""
MAX_FRAMES = 1 << 20
"""The most frames that a seek table may list: what it may make a reader allocate."""
MAX_WINDOW = 128 * 1024 * 1024
"""The largest window that the streaming decoder accepts, the same as stock ``zstd -d``."""

_SKIPPABLE_MAGIC = 0x184D2A5E
_SEEKABLE_MAGIC = 0x8F92EAB1
_ENTRY = struct.Struct("<II")
_SKIPPABLE_HEADER = struct.Struct("<II")
FOOTER = struct.Struct("<IBI")

_RAW_BLOCK = 128 * 1024
_PROBES = 8
_PROBE_SIZE = 16 * 1024
_WORTHWHILE = 0.97
"""A frame whose probes do not shrink below this share of their size is stored raw."""

# One input slice of the streaming decoder. Four bytes of a run-length block can grow to 128 KiB, so this bounds what
# one call may allocate to 32 MiB, however hostile the input.
_DECODER_SLICE = 1024

_local = threading.local()


def compress(
    buffers: Iterable[Buffer], *, level: Callable[[], int] = lambda: 3, frame_size: int = FRAME_SIZE, workers: int = 2
) -> Generator[bytes, None, None]:
    """Compress into frames of ``frame_size`` bytes of plaintext, then the seek table; empty input: one empty frame.

    Frames that a cheap probe finds incompressible are stored raw, so that media cost no compression time.
    """
    if not 1 <= frame_size <= MAX_FRAME_SIZE:
        raise FormatError(f"a frame holds 1 to {MAX_FRAME_SIZE} bytes, got a frame size of {frame_size}")
    entries: list[tuple[int, int]] = []

    def encode(plaintext: Buffer) -> tuple[bytes, int]:
        return compress_frame(plaintext, level()), len(plaintext)

    for frame, size in ordered_map(encode, rechunk(buffers, frame_size), workers=workers):
        entries.append((len(frame), size))
        yield frame
    if not entries:
        frame = compress_frame(b"", level())
        entries.append((len(frame), 0))
        yield frame
    yield encode_seek_table(entries)


def compress_frame(plaintext: Buffer, level: int) -> bytes:
    """One frame with its content size in the header and no checksum: the age layer authenticates every byte."""
    if _incompressible(plaintext):
        return _raw_frame(plaintext)
    compressor: zstandard.ZstdCompressor | None = getattr(_local, f"level{level}", None)
    if compressor is None:
        compressor = zstandard.ZstdCompressor(level=level, write_content_size=True)
        setattr(_local, f"level{level}", compressor)
    return compressor.compress(plaintext)


def _incompressible(plaintext: Buffer) -> bool:
    view = memoryview(plaintext)
    if len(view) < _PROBE_SIZE:
        return False
    stride = max((len(view) - _PROBE_SIZE) // (_PROBES - 1), 1)
    starts = range(0, len(view) - _PROBE_SIZE + 1, stride)
    sample = b"".join(view[start : start + _PROBE_SIZE] for start in starts[:_PROBES])
    probe: zstandard.ZstdCompressor | None = getattr(_local, "probe", None)
    if probe is None:
        probe = _local.probe = zstandard.ZstdCompressor(level=1)
    return len(probe.compress(sample)) > _WORTHWHILE * len(sample)


def _raw_frame(plaintext: Buffer) -> bytes:
    """A frame of raw blocks (RFC 8878, section 3.1.1): single segment, content size in four bytes."""
    view = memoryview(plaintext)
    parts: list[Buffer] = [struct.pack("<IBI", zstandard.MAGIC_NUMBER, 0b10100000, len(view))]
    for start in range(0, len(view), _RAW_BLOCK):
        block = view[start : start + _RAW_BLOCK]
        last = start + len(block) == len(view)
        parts += [(len(block) << 3 | last).to_bytes(3, "little"), block]
    return b"".join(parts)


def decompress_frame(frame: Buffer, size: int) -> bytes:
    """The ``size`` bytes of one complete frame; anything else in ``frame`` is a ``FormatError``."""
    try:
        stated = zstandard.frame_content_size(frame)
        if stated != size:
            raise FormatError(f"a zstd frame holds {stated} bytes where the seek table says {size}")
        decompressor: zstandard.ZstdDecompressor | None = getattr(_local, "decompressor", None)
        if decompressor is None:
            decompressor = _local.decompressor = zstandard.ZstdDecompressor()
        plaintext = decompressor.decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise FormatError(f"a zstd frame does not decompress: {error}") from None
    if len(plaintext) != size:
        raise FormatError(f"a zstd frame gave {len(plaintext)} bytes, expected {size}")
    return plaintext


def decompress(buffers: Iterable[Buffer]) -> Iterator[bytes]:
    """Decompress any zstd file, ours or a stock one, in bounded memory; an end inside a frame is a ``FormatError``.

    For streams whose length is not known beforehand; objects are read through their seek table instead.
    """
    decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
    decoder = decompressor.decompressobj()
    seen = False
    complete = False
    for piece in rechunk(buffers, _DECODER_SLICE):
        rest = bytes(piece)
        while rest:
            if complete:
                decoder = decompressor.decompressobj()
            try:
                plaintext = decoder.decompress(rest)
            except zstandard.ZstdError as error:
                raise FormatError(f"not a valid zstd stream: {error}") from None
            seen = True
            complete = decoder.eof
            rest = decoder.unused_data if complete else b""
            if plaintext:
                yield plaintext
    if not (seen and complete):
        raise FormatError("a zstd stream ends in the middle of a frame: it was cut off")


@dataclass(frozen=True, slots=True)
class SeekTable:
    """Where each frame lies: frame ``i`` is compressed bytes ``[starts[i], starts[i + 1])`` and plaintext
    ``[offsets[i], offsets[i + 1])``; both have one more item than there are frames."""

    starts: Sequence[int]
    offsets: Sequence[int]

    @property
    def frames(self) -> int:
        return len(self.starts) - 1

    @property
    def plaintext_size(self) -> int:
        return self.offsets[-1]


def _compressed_limit(plaintext: int) -> int:
    """More than any zstd frame of so many bytes has, stored raw included: 3 bytes a block of 128 KiB, and a header."""
    return plaintext + plaintext // 128 + 1024


def encode_seek_table(entries: Sequence[tuple[int, int]]) -> bytes:
    """The skippable frame for frames of (compressed size, plaintext size)."""
    if len(entries) > MAX_FRAMES:
        raise FormatError(f"a zstd file holds at most {MAX_FRAMES} frames, got {len(entries)}: use larger frames")
    body = b"".join(_ENTRY.pack(*entry) for entry in entries) + FOOTER.pack(len(entries), 0, _SEEKABLE_MAGIC)
    return _SKIPPABLE_HEADER.pack(_SKIPPABLE_MAGIC, len(body)) + body


def seek_table_size(footer: Buffer, total: int) -> int:
    """Bytes of the whole skippable frame that ends with ``footer`` (its last 9 bytes) in a file of ``total`` bytes."""
    if len(footer) != FOOTER.size:
        raise FormatError(f"no seek table fits in a zstd file of {total} bytes")
    frames, descriptor, magic = FOOTER.unpack(footer)
    size = int(_SKIPPABLE_HEADER.size + frames * _ENTRY.size + FOOTER.size)
    if magic != _SEEKABLE_MAGIC or descriptor != 0 or not 0 < frames <= MAX_FRAMES or size > total:
        raise FormatError("no valid seek table at the end of a zstd file")
    return size


def decode_seek_table(data: Buffer, total: int) -> SeekTable:
    """Parse the skippable frame ``data`` at the end of a zstd file of ``total`` bytes, validating every size."""
    size = seek_table_size(memoryview(data)[-FOOTER.size :], total)
    magic, length = _SKIPPABLE_HEADER.unpack_from(data)
    if len(data) != size or magic != _SKIPPABLE_MAGIC or length != size - _SKIPPABLE_HEADER.size:
        raise FormatError("no valid seek table at the end of a zstd file")
    entries = list(_ENTRY.iter_unpack(memoryview(data)[_SKIPPABLE_HEADER.size : -FOOTER.size]))
    if any(
        plaintext > MAX_FRAME_SIZE or compressed > _compressed_limit(plaintext) for compressed, plaintext in entries
    ):
        raise FormatError(
            f"a zstd frame of more than {MAX_FRAME_SIZE} bytes, or that compression made larger, is refused"
        )
    starts = list(accumulate((compressed for compressed, _ in entries), initial=0))
    if starts[-1] != total - size:
        raise FormatError(f"the seek table covers {starts[-1]} bytes of frames, the file has {total - size}")
    return SeekTable(starts, list(accumulate((plaintext for _, plaintext in entries), initial=0)))
