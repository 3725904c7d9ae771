"""Objects on their way out and in: zstd frames inside an age file, written as a stream, read in ranges."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager

from archiver.buffers import Buffer
from archiver.crypto.age import MAX_HEAD, AgeReader
from archiver.crypto.recipients import Identity
from archiver.crypto.stream import CHUNK
from archiver.errors import ArchiverError, IntegrityError, NotFoundError, RefusedError
from archiver.parallel import ordered_map
from archiver.stages.frames import (
    FOOTER,
    SeekTable,
    decode_seek_table,
    decompress_frame,
    seek_table_size,
)
from archiver.stages.measure import Meter
from archiver.stores.base import Store

_TAIL = 2 * CHUNK
"""How much is fetched from the end, to read the seek table: enough for one of 16,000 frames."""
_RANGE = 128 * CHUNK
"""How much one request fetches (8 MiB)."""
_FETCHES = 4
"""Requests in flight for one object."""


@contextmanager
def naming(key: str) -> Iterator[None]:
    """Within the block, an error about bytes says which object they are of."""
    try:
        yield
    except IntegrityError as error:
        if key in error.message:
            raise
        raise type(error)(f"{key}: {error.message}", hint=error.hint) from error


class ObjectReader:
    """Random access to the plaintext of one object of ``size`` stored bytes, by ranges of its zstd frames.

    A full read proves the object's ciphertext hash; a partial one proves each chunk's authenticity under the vault,
    and the caller proves the hash of what it puts together.
    """

    def __init__(self, store: Store, key: str, size: int, identities: Sequence[Identity], workers: int) -> None:
        self._store = store
        self._key = key
        self._size = size
        self._workers = workers
        self._whole = self._get(0, size) if size <= _RANGE else None
        self._head = self._fetch(0, min(size, MAX_HEAD))
        with naming(key):
            self._age = AgeReader(self._head, size, identities)
            self._table = self._read_table()

    @property
    def plaintext_size(self) -> int:
        """Bytes of the object's plaintext, as its seek table states them."""
        return self._table.plaintext_size

    def read(
        self, intervals: Iterable[tuple[int, int]], blake3: str, advance: Callable[[int], None] | None = None
    ) -> Iterator[tuple[int, bytes]]:
        """The frames that ``intervals`` of plaintext (offset, length) touch, each once, in order, as (offset, bytes).

        When these are all frames, the stored bytes are hashed on the way, and the iterator ends with an
        ``IntegrityError`` unless they hash to ``blake3``. ``advance`` hears stored bytes as they arrive.
        """
        with naming(self._key):
            wanted = touched_frames(self._table.offsets, intervals)
        if len(wanted) == self._table.frames:
            return self.read_all(blake3, advance)
        pieces = (
            piece for first, last in runs(wanted) for piece in cut(self._table.starts[first], self._table.starts[last])
        )
        return self._decompress(self._opened(pieces, None, advance), wanted)

    def read_all(self, blake3: str, advance: Callable[[int], None] | None = None) -> Iterator[tuple[int, bytes]]:
        """All frames in order as (offset, bytes), with the proof of ``blake3`` at the end."""
        meter = Meter()
        meter.update(memoryview(self._head)[: self._age.payload_offset])
        opened = self._opened(cut(0, self._age.plaintext_size), meter, advance)
        yield from self._decompress(opened, range(self._table.frames))
        if meter.blake3 != blake3 or meter.size != self._size:
            raise IntegrityError(
                f"{self._key}: stored bytes hash to {meter.blake3}, expected {blake3}",
                hint="The object was replaced or damaged: restore another backup, or this one from another copy.",
            )

    def _opened(
        self, pieces: Iterable[tuple[int, int]], meter: Meter | None, advance: Callable[[int], None] | None
    ) -> Generator[Buffer, None, None]:
        """The compressed bytes of ``pieces``, fetched in parallel, decrypted in order."""

        def fetch(piece: tuple[int, int]) -> tuple[tuple[int, int], Buffer]:
            return piece, self._fetch(*self._age.ciphertext_range(*piece))

        for piece, ciphertext in ordered_map(fetch, pieces, workers=_FETCHES):
            if meter is not None:
                meter.update(ciphertext)
            if advance is not None:
                advance(len(ciphertext))
            yield self._age.open_range(*piece, ciphertext)

    def _read_table(self) -> SeekTable:
        total = self._age.plaintext_size
        known = min(total, _TAIL)
        tail = self._read_range(total - known, known)
        size = seek_table_size(tail[-FOOTER.size :], total)
        if size > known:
            tail = self._read_range(total - size, size)
        return decode_seek_table(tail[-size:], total)

    def _read_range(self, start: int, length: int) -> Buffer:
        return self._age.open_range(start, length, self._fetch(*self._age.ciphertext_range(start, length)))

    def _fetch(self, offset: int, size: int) -> Buffer:
        if self._whole is not None:
            return memoryview(self._whole)[offset : offset + size]
        return self._get(offset, size)

    def _get(self, offset: int, size: int) -> bytes:
        try:
            return b"".join(self._store.read(self._key, offset, size))
        except NotFoundError as error:
            # A list or a manifest names it: the backup is damaged, not absent.
            raise IntegrityError(
                f"{self._key} is missing from {self._store.url}",
                hint="Restore another backup, or this one from another copy.",
            ) from error
        except RefusedError as error:
            if not self._is_archived():
                raise
            raise RefusedError(
                f"{self._key} is archived: the store gives it out only after it was thawed",
                hint="archiver restore --thaw asks for what it needs, waits for some hours, and restores; what was "
                "thawed can then be read for some days.",
            ) from error

    def _is_archived(self) -> bool:
        try:
            return self._store.availability(self._key) != "ready"
        except ArchiverError:
            # What the store said to the read tells more.
            return False

    def _decompress(self, opened: Generator[Buffer, None, None], wanted: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        starts, offsets = self._table.starts, self._table.offsets
        sizes = [starts[index + 1] - starts[index] for index in wanted]

        def decode(item: tuple[Buffer, int]) -> tuple[int, bytes]:
            frame, index = item
            return offsets[index], decompress_frame(frame, offsets[index + 1] - offsets[index])

        frames = zip(cut_frames(opened, sizes), wanted, strict=True)
        # Closing ends the fetching threads even where an error's traceback keeps the generators alive.
        with naming(self._key), closing(opened):
            yield from ordered_map(decode, frames, workers=self._workers)


def touched_frames(offsets: Sequence[int], intervals: Iterable[tuple[int, int]]) -> list[int]:
    """The indices, ascending, of the frames that any of ``intervals`` (offset, length) overlaps."""
    touched: set[int] = set()
    for start, length in intervals:
        if start < 0 or start + length > offsets[-1]:
            raise IntegrityError(f"an extent ends at byte {start + length} of an object of {offsets[-1]} bytes")
        if length:
            touched.update(range(bisect_right(offsets, start) - 1, bisect_left(offsets, start + length)))
    return sorted(touched)


def runs(indices: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Ascending ``indices`` as ranges [first, last) of consecutive ones."""
    first = last = None
    for index in indices:
        if last is not None and first is not None and index != last:
            yield first, last
            first = index
        elif first is None:
            first = index
        last = index + 1
    if first is not None and last is not None:
        yield first, last


def cut(start: int, end: int) -> Iterator[tuple[int, int]]:
    """[start, end) as pieces (offset, length) that end at multiples of one request's size, so that no chunk of the age
    payload is fetched twice within a run."""
    while start < end:
        length = min(end, (start // _RANGE + 1) * _RANGE) - start
        yield start, length
        start += length


def cut_frames(buffers: Iterable[Buffer], sizes: Sequence[int]) -> Iterator[Buffer]:
    """Cut a stream into buffers of the given ``sizes``, then use it up: what follows the frames is the seek table."""
    pending = bytearray()
    source = iter(buffers)
    for size in sizes:
        while len(pending) < size:
            following = next(source, None)
            if following is None:
                raise IntegrityError(f"a compressed stream ends {size - len(pending)} bytes before a frame does")
            pending += following
        yield bytes(memoryview(pending)[:size])
        del pending[:size]
    for _ in source:
        pass
