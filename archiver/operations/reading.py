"""Many objects as one stream of their frames: fetched, opened and decompressed in parallel, delivered in order.

Threads that wait for the store and threads that compute are apart, because their numbers have different reasons: a
network needs some requests in flight, however few processors there are. What the order needs happens in between, in
the consumer's thread: an object's ciphertext is hashed as it arrives.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import TypeVar

import msgspec

from archiver.buffers import Buffer
from archiver.crypto.stream import SEALED_CHUNK
from archiver.errors import IntegrityError
from archiver.operations.objects import PIECE, Frame, OpenObject, Piece, StoredKey
from archiver.parallel import ordered_map
from archiver.stages.measure import Meter

T = TypeVar("T")
R = TypeVar("R")
_FETCHES = 4
"""Requests in flight."""
_AHEAD = 1
"""Pieces that may wait behind those that are being fetched, and behind those that are being decompressed."""

Intervals = Sequence[tuple[int, int]]
"""Stretches (offset, length) of an object's plaintext."""


class Wanted(msgspec.Struct, frozen=True):
    """An object, and which ``intervals`` of it; None: all."""

    stored: StoredKey
    plaintext_size: int
    blake3: str
    """Of the stored bytes."""
    intervals: Intervals | None

    @property
    def is_small(self) -> bool:
        """Whether one request fetches all of it, and it is one piece."""
        return max(self.stored.size, self.plaintext_size) <= PIECE


class _Opened(msgspec.Struct, frozen=True):
    frames: list[Frame]
    complete: bool
    """Whether they are the last of all frames of the object."""


class _Task(msgspec.Struct, frozen=True):
    """What one request fetches and one thread decompresses."""

    number: int
    wanted: Wanted
    offset: int
    size: int
    decode: Callable[[Buffer, list[Buffer]], _Opened]
    """Of the stored bytes that the piece before it has as well, and of its own."""
    carried: int = 0
    head: Buffer = b""
    """Stored bytes before the first piece: they belong to the hash."""
    last: bool = True


class ObjectReader(msgspec.Struct, frozen=True):
    """Random access to the plaintext of one object, which is said to have ``plaintext_size`` bytes of it.

    A full read proves the object's ciphertext hash; a partial one proves each chunk's authenticity under the vault,
    and the caller proves the hash of what it puts together.
    """

    stored: StoredKey
    plaintext_size: int
    workers: int

    def read(
        self, intervals: Intervals | None, blake3: str, advance: Callable[[int], None] = lambda _: None
    ) -> Generator[tuple[int, Buffer], None, None]:
        """The frames that ``intervals`` touch, as (offset, bytes); everything else as of ``read_objects``."""
        wanted = Wanted(self.stored, self.plaintext_size, blake3, intervals)
        with closing(read_objects([wanted], self.workers, advance)) as frames:
            for _, offset, plaintext in frames:
                yield offset, plaintext


def read_objects(
    wanted: Sequence[Wanted],
    workers: int,
    advance: Callable[[int], None] = lambda _: None,
    early: Callable[[int, int, Buffer], None] = lambda *_: None,
) -> Generator[tuple[int, int, Buffer], None, None]:
    """The frames that ``wanted`` touches, each once, in order, as (number of the object, offset in it, bytes).

    Where these are all frames of an object, an ``IntegrityError`` follows its last one unless its stored bytes have the
    recorded hash. ``advance`` hears stored bytes as they arrive. ``early`` gets what will be yielded as soon as it has
    been decompressed, in any order and from several threads. Closing the generator ends all threads.

    Memory: at most 5 pieces of stored bytes that are being fetched or wait, and ``workers + 1`` that are being
    decrypted or decompressed, of twice their size, or wait for the consumer; the consumer has one. A piece has about
    8 MiB. Each of the ``workers`` threads keeps the memory that it decrypts to.
    """

    def decode(item: tuple[_Task, Buffer, list[Buffer], Meter]) -> tuple[_Task, _Opened, Meter]:
        task, carried, stored, meter = item
        opened = task.decode(carried, stored)
        for offset, plaintext in opened.frames:
            early(task.number, offset, plaintext)
        return task, opened, meter

    fetched = _parallel(_fetch, _tasks(wanted), _FETCHES)
    # Closing ends the threads even where an error's traceback keeps the generators alive.
    with closing(_parallel(decode, _in_order(fetched, advance), workers)) as decoded:
        for task, opened, hashed in decoded:
            for offset, plaintext in opened.frames:
                yield task.number, offset, plaintext
            if opened.complete:
                _check(task.wanted, hashed)


def _parallel(function: Callable[[T], R], items: Iterator[T], workers: int) -> Generator[R, None, None]:
    return ordered_map(function, items, workers=workers, ahead=_AHEAD)


def _tasks(wanted: Sequence[Wanted]) -> Generator[_Task, None, None]:
    """All pieces in order. While those of one object are handed out, the next one that is not small is being opened."""
    with closing(_parallel(_open, (item for item in wanted if not item.is_small), 1)) as opened:
        for number, item in enumerate(wanted):
            if item.is_small:
                yield _Task(number, item, 0, item.stored.size, partial(_decode_whole, item))
            else:
                yield from _pieces(number, item, next(opened))


def _open(item: Wanted) -> OpenObject:
    return item.stored.open()


def _pieces(number: int, item: Wanted, opened: OpenObject) -> Iterator[_Task]:
    everything = range(opened.table.frames)
    frames = everything if item.intervals is None else opened.touched(item.intervals)
    whole = len(frames) == len(everything)
    for piece in opened.pieces(frames):
        first, last = piece.frames.start == frames[0], piece.frames.stop == frames[-1] + 1
        decode = partial(_decode_piece, opened, piece, whole and last)
        yield _Task(number, item, piece.offset, piece.size, decode, piece.carried, opened.head if first else b"", last)


def _fetch(task: _Task) -> tuple[_Task, Buffer]:
    return task, task.wanted.stored.fetch(task.offset, task.size)


def _in_order(
    fetched: Generator[tuple[_Task, Buffer], None, None], advance: Callable[[int], None]
) -> Generator[tuple[_Task, Buffer, list[Buffer], Meter], None, None]:
    """Hash what has arrived, and give each piece the bytes that it shares with the one before it: at most a chunk."""
    meter, shared = Meter(), b""
    with closing(fetched):
        for task, stored in fetched:
            meter.update(task.head)
            meter.update(stored)
            advance(task.size)
            carried = shared[-task.carried :] if task.carried else b""
            # A piece may be less than a chunk, or nothing beyond what the one before it has.
            shared = (shared + bytes(memoryview(stored)[-SEALED_CHUNK:]))[-SEALED_CHUNK:]
            taken = [stored]
            del stored
            yield task, carried, taken, meter
            if task.last:
                meter = Meter()


def _decode_piece(opened: OpenObject, piece: Piece, complete: bool, carried: Buffer, stored: list[Buffer]) -> _Opened:
    return _Opened(opened.decode(piece, carried, stored), complete)


def _decode_whole(item: Wanted, _: Buffer, stored: list[Buffer]) -> _Opened:
    opened = item.stored.open_whole(stored[0])
    everything = range(opened.table.frames)
    if opened.table.plaintext_size > PIECE:
        raise IntegrityError(
            f"{opened.key}: its seek table states {opened.table.plaintext_size} bytes, expected {item.plaintext_size}"
        )
    frames = everything if item.intervals is None else opened.touched(item.intervals)
    return _Opened(opened.decode_whole(frames, stored), len(frames) == len(everything))


def _check(wanted: Wanted, meter: Meter) -> None:
    if (meter.blake3, meter.size) != (wanted.blake3, wanted.stored.size):
        raise IntegrityError(
            f"{wanted.stored.key}: stored bytes hash to {meter.blake3}, expected {wanted.blake3}",
            hint="The object was replaced or damaged: restore another backup, or this one from another copy.",
        )
