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
from itertools import accumulate

import msgspec
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

_PROBES = 8
_PROBE_SIZE = 4 * 1024
_SMALL_FRAME = 4 * _PROBES * _PROBE_SIZE
"""Frames below this size are compressed unseen: looking would cost more than it could save."""
_WORTHWHILE = 0.97
"""What does not shrink below this share of its size is not worth compressing."""
_QUICK = zstandard.ZstdCompressionParameters.from_level(-1, window_log=22, hash_log=17)
"""Looks for repetitions alone, as far back as a frame of 4 MiB reaches, and leaves other bytes as they are."""

# One input slice of the streaming decoder. Four bytes of a run-length block can grow to 128 KiB, so this bounds what
# one call may allocate to 32 MiB, however hostile the input.
_DECODER_SLICE = 1024

_local = threading.local()


def compress(
    buffers: Iterable[Buffer], *, level: Callable[[], int] = lambda: 3, frame_size: int = FRAME_SIZE, workers: int = 2
) -> Generator[bytes, None, None]:
    """Compress into frames of ``frame_size`` bytes of plaintext, then the seek table; empty input: one empty frame.

    What does not compress is stored as it is, in raw blocks, so that media cost no compression time.
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
    """One frame with its content size in the header and no checksum: the age layer authenticates every byte.

    Stored raw is only what shrinks by less than 3 % in two ways: a quick one that looks for repetitions in all of it,
    and level 1 on samples, which sees whether some bytes are more frequent than others. So no repetition is missed for
    its place. What both can miss is a smaller part of the frame whose bytes are unevenly frequent but never repeat.
    """
    if not _looks_random(plaintext):
        return _compressor(level).compress(plaintext)
    quick = _quick_compressor().compress(plaintext)
    if len(quick) > _WORTHWHILE * len(plaintext):
        return quick
    # Low levels do not look back as far.
    return min(quick, _compressor(level).compress(plaintext), key=len)


def _looks_random(plaintext: Buffer) -> bool:
    view = memoryview(plaintext)
    if len(view) < _SMALL_FRAME:
        return False
    stride = (len(view) - _PROBE_SIZE) // (_PROBES - 1)
    sample = b"".join(view[number * stride :][:_PROBE_SIZE] for number in range(_PROBES))
    return len(_compressor(1).compress(sample)) > _WORTHWHILE * len(sample)


def _compressor(level: int) -> zstandard.ZstdCompressor:
    """This thread's compressor of that level."""
    compressors: dict[int, zstandard.ZstdCompressor] = _local.__dict__.setdefault("compressors", {})
    if level not in compressors:
        # Level 1 is small and used for every probe. Of the others, up to 54 MiB at level 19, one is kept.
        kept = {number: compressor for number, compressor in compressors.items() if number == 1}
        _local.compressors = compressors = {**kept, level: zstandard.ZstdCompressor(level=level)}
    return compressors[level]


def _quick_compressor() -> zstandard.ZstdCompressor:
    compressor: zstandard.ZstdCompressor | None = getattr(_local, "quick", None)
    if compressor is None:
        compressor = _local.quick = zstandard.ZstdCompressor(compression_params=_QUICK)
    return compressor


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


class SeekTable(msgspec.Struct, frozen=True):
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
