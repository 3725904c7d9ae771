"""Objects on their way in: an age file around zstd frames, of which any may be had."""

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import msgspec

from archiver.buffers import Buffer
from archiver.crypto.age import MAX_HEAD, AgeReader
from archiver.crypto.recipients import Identity
from archiver.crypto.stream import CHUNK
from archiver.errors import ArchiverError, IntegrityError, NotFoundError, RefusedError
from archiver.stages.frames import FOOTER, SeekTable, decode_seek_table, decompress_frame, seek_table_size
from archiver.stores.base import Store

PIECE = 128 * CHUNK
"""Plaintext that is fetched and decompressed as one (8 MiB), unless one frame is larger. Counted in plaintext, because
a few stored bytes may grow to any size."""
_TAIL = 2 * CHUNK
"""How much is fetched from the end, to read the seek table: enough for one of 16,000 frames."""

_KEPT = 2 * PIECE
"""What a thread keeps at most for what it decrypts."""
_local = threading.local()

Frame = tuple[int, Buffer]
"""Offset in the object's plaintext, and the plaintext of one frame."""


@contextmanager
def naming(key: str) -> Iterator[None]:
    """Within the block, an error about bytes says which object they are of."""
    try:
        yield
    except IntegrityError as error:
        if key in error.message:
            raise
        raise type(error)(f"{key}: {error.message}", hint=error.hint) from error


class Piece(msgspec.Struct, frozen=True):
    """Consecutive ``frames`` of one object, and the ``size`` stored bytes from ``offset`` on that hold them."""

    frames: range
    start: int
    """Where they begin in the compressed plaintext, of which ``length`` bytes are opened."""
    length: int
    offset: int
    size: int
    carried: int
    """How many stored bytes right before ``offset`` belong to it as well: the last ones of the piece before it."""


class StoredKey(msgspec.Struct, frozen=True):
    """An object of ``size`` stored bytes at ``key``, and what opens it. Nothing is read yet."""

    store: Store
    key: str
    size: int
    identities: Sequence[Identity]

    def open(self) -> "OpenObject":
        """Fetch its header and its seek table: two requests."""
        head = self.fetch(0, min(self.size, MAX_HEAD))
        with naming(self.key):
            age = AgeReader(head, self.size, self.identities)

        def fetch(start: int, length: int) -> Buffer:
            return age.open_range(start, length, self.fetch(*age.ciphertext_range(start, length)))

        with naming(self.key):
            return OpenObject(self.key, bytes(memoryview(head)[: age.payload_offset]), age, _read_table(age, fetch))

    def open_whole(self, stored: Buffer) -> "OpenObject":
        """Open it from all its ``stored`` bytes."""
        view = memoryview(stored)

        def take(start: int, length: int) -> Buffer:
            offset, size = age.ciphertext_range(start, length)
            return age.open_range(start, length, view[offset : offset + size])

        with naming(self.key):
            age = AgeReader(view[:MAX_HEAD], self.size, self.identities)
            return OpenObject(self.key, bytes(view[: age.payload_offset]), age, _read_table(age, take))

    def fetch(self, offset: int, size: int) -> Buffer:
        """``size`` stored bytes from ``offset`` on.

        Raises ``IntegrityError`` when the object is missing, and ``RefusedError`` when it is archived.
        """
        try:
            return _together(self.store.read(self.key, offset, size), size) if size else b""
        except NotFoundError as error:
            # A list or a manifest names it: the backup is damaged, not absent.
            raise IntegrityError(
                f"{self.key} is missing from {self.store.url}",
                hint="Restore another backup, or this one from another copy.",
            ) from error
        except RefusedError as error:
            if not self._is_archived():
                raise
            raise RefusedError(
                f"{self.key} is archived: the store gives it out only after it was thawed",
                hint="archiver restore --thaw asks for what it needs, waits for some hours, and restores; what was "
                "thawed can then be read for some days.",
            ) from error

    def _is_archived(self) -> bool:
        try:
            return self.store.availability(self.key) != "ready"
        except ArchiverError:
            # What the store said to the read tells more.
            return False


class OpenObject(msgspec.Struct, frozen=True):
    """One object whose header and seek table have been read. May be used by several threads."""

    key: str
    head: bytes
    """The stored bytes before the payload."""
    age: AgeReader
    table: SeekTable

    def touched(self, intervals: Iterable[tuple[int, int]]) -> Sequence[int]:
        """The frames that ``intervals`` of plaintext (offset, length) touch."""
        with naming(self.key):
            return touched_frames(self.table.offsets, intervals)

    def pieces(self, wanted: Sequence[int]) -> Iterator[Piece]:
        """The ``wanted`` frames in pieces. Those of all frames are all stored bytes behind the head, each once."""
        fetched = self.age.payload_offset
        total = self.age.plaintext_size
        last = wanted[-1] + 1 if len(wanted) == self.table.frames else None
        for frames in grouped(wanted, self.table.offsets):
            start = self.table.starts[frames.start]
            # With the last of all frames comes the seek table, and with it the proof that the payload is complete.
            length = (total if frames.stop == last else self.table.starts[frames.stop]) - start
            offset, size = self.age.ciphertext_range(start, length)
            # Two pieces that meet within a chunk of the payload both need it.
            carried = min(max(fetched - offset, 0), size)
            fetched = max(fetched, offset + size)
            yield Piece(frames, start, length, offset + carried, size - carried, carried)

    def decode(self, piece: Piece, carried: Buffer, stored: list[Buffer]) -> list[Frame]:
        """The frames of ``piece`` out of its ``carried`` bytes and of its others, which are taken out of ``stored``: so
        they are freed as soon as they are decrypted."""
        with naming(self.key):
            opened = self.age.open_range(piece.start, piece.length, stored.pop(), before=carried, room=_room)
            return self._decompress(piece.frames, piece.start, opened)

    def decode_whole(self, frames: Sequence[int], stored: list[Buffer]) -> list[Frame]:
        """``frames`` out of all bytes of the object, which are taken out of ``stored`` and whose end is proven as
        well."""
        with naming(self.key):
            payload = memoryview(stored.pop())[self.age.payload_offset :]
            opened = self.age.open_range(0, self.age.plaintext_size, payload, room=_room)
            del payload
            return self._decompress(frames, 0, opened)

    def _decompress(self, frames: Sequence[int], start: int, compressed: memoryview) -> list[Frame]:
        starts, offsets = self.table.starts, self.table.offsets
        return [
            (
                offsets[index],
                decompress_frame(
                    compressed[starts[index] - start : starts[index + 1] - start], offsets[index + 1] - offsets[index]
                ),
            )
            for index in frames
        ]


def _together(pieces: Iterator[Buffer], size: int) -> Buffer:
    """The ``size`` bytes that ``pieces`` have. Mostly it is one, which is not copied."""
    first = next(pieces, b"")
    buffer = first if len(first) == size else bytearray(first).ljust(size, b"\0")
    rest = memoryview(buffer)[len(first) :]
    # To the end in any case: there the store says what was wrong, and has its connection back.
    for piece in pieces:
        rest[: len(piece)] = piece
        rest = rest[len(piece) :]
    return buffer


def _room(size: int) -> memoryview:
    """``size`` bytes for what this thread decrypts, until it decrypts the next. A new buffer each time would be filled
    with zeros first."""
    if size > _KEPT:
        return memoryview(bytearray(size))
    room: memoryview | None = getattr(_local, "room", None)
    if room is None or len(room) < size:
        room = _local.room = memoryview(bytearray(size))
    return room[:size]


def _read_table(age: AgeReader, read: Callable[[int, int], Buffer]) -> SeekTable:
    """The seek table, out of the compressed plaintext that ``read`` gives stretches (start, length) of."""
    total = age.plaintext_size
    known = min(total, _TAIL)
    tail = read(total - known, known)
    size = seek_table_size(tail[-FOOTER.size :], total)
    if size > known:
        tail = read(total - size, size)
    return decode_seek_table(tail[-size:], total)


def touched_frames(offsets: Sequence[int], intervals: Iterable[tuple[int, int]]) -> list[int]:
    """The indices, ascending, of the frames that any of ``intervals`` (offset, length) overlaps."""
    touched: set[int] = set()
    for start, length in intervals:
        if start < 0 or start + length > offsets[-1]:
            raise IntegrityError(f"an extent ends at byte {start + length} of an object of {offsets[-1]} bytes")
        if length:
            touched.update(range(bisect_right(offsets, start) - 1, bisect_left(offsets, start + length)))
    return sorted(touched)


def grouped(frames: Sequence[int], offsets: Sequence[int]) -> Iterator[range]:
    """Ascending ``frames`` in ranges of consecutive ones, of at most ``PIECE`` bytes of plaintext if not one frame."""
    first = following = None
    for frame in frames:
        if first is None or frame != following or offsets[frame + 1] - offsets[first] > PIECE:
            if first is not None and following is not None:
                yield range(first, following)
            first = frame
        following = frame + 1
    if first is not None and following is not None:
        yield range(first, following)
