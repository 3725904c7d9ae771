"""How much a live server can still write while a snapshot of its environment is pinned, and when that is too little.

A pin on transaction T keeps every page that T sees. The server may then reuse only what transactions before T had
freed, takes all else at the end of its map, and fails with MDB_MAP_FULL when that is used up; the last page in use
never goes down again. So the room is what lies beyond the last page and the old free pages. A long value needs pages
in a row, which free pages may not offer (Ucotron's index is one value), so the end of the map must be large enough by
itself as well, and at least for the longest value: a commit that finds no room for it fails without moving the last
page, so that nothing would be seen of it. And the file grows with its last page, so the disk must hold out.

One rule decides both questions. A pin is taken only if the whole headroom can be written to, a third of it and the
longest value twice at the end of the map, and the disk has the headroom free or more than the map can take. A pin that
is held is given up when less than two thirds of any of these shares is left, or not once the longest value: the
difference lets a pin that has just been allowed live for a while. And it never takes more than half of what lies beyond
the last page. What it kept is free afterwards, so that the next attempt has more room than this one, and the end of the
map, which nothing brings back, is not used up by one night's attempts.
"""

import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from archiver.environment.freelist import reusable_pages
from archiver.environment.meta import Meta, read_meta
from archiver.errors import SourceError

_HELD = 2 / 3
"""The part of the headroom that must be left while a pin is held."""
_END_OF_MAP = 1 / 3
"""The part of it that must lie at the end of the map."""
_VALUES_TO_BEGIN, _VALUES_TO_HOLD = 2, 1
"""How often the longest value must fit there."""
_REST_PER_COUNT = 4
_BLOCK = 512
"""The unit of st_blocks, whatever the file system's block is."""


class Room(msgspec.Struct, frozen=True):
    """What a server can still write to; sizes are bytes."""

    map_size: int
    beyond: int
    """From the end of the last page in use to the end of the map."""
    reusable: int
    """Free pages that a pin does not keep from being reused."""
    disk_size: int
    disk_free: int
    """What a user without privileges may take."""
    growth: int
    """What the file can still take from the disk, were the whole map written to."""
    longest: int = 0
    """What the longest value takes in a row; 0 while that is not known."""
    kept: int = 0
    """What a pin must leave beyond the last page: half of what there was when it was taken."""


def refusal(room: Room, headroom: float) -> str | None:
    """Why no pin must be taken, or None; ``headroom`` is a share of the map and of the disk, 0 to 1."""
    return _lack(room, headroom, _VALUES_TO_BEGIN)


def shortage(room: Room, headroom: float) -> str | None:
    """Why a pin that is held must be given up, or None; never where ``refusal`` would have allowed to take it."""
    if room.beyond < room.kept:
        got, kept = _got(room.beyond, room.map_size), _needed(room.kept, room.map_size)
        return f"{_short_end(room, got)}, expected {kept}, half of what there was when it was pinned"
    return _lack(room, headroom * _HELD, _VALUES_TO_HOLD)


def rest_after_count(duration: float) -> float:
    """Seconds until free pages may be counted again after it took ``duration``: a fifth of a core at the most."""
    return _REST_PER_COUNT * duration


class Gauge:
    """Measures the room beside a pin of the environment in the data file ``path``, as often as it is asked.

    To be used by one thread and only while the pin is held, which protects the free list that is read. ``oldest`` tells
    the oldest transaction that any reader holds. The map's size is that of the newest commit: LMDB writes a larger one
    with the server's first commit, but never a smaller one. ``max_size``, in bytes, is what the server is known to be
    started with; without it a map that was made smaller is taken for the larger one.

    A measurement takes about 30 microseconds, so asking every 20 ms is cheap. Free pages are counted only where the
    end of the map alone does not suffice, after a commit and after a rest; the last count stands until then, as the
    end of the map, which is watched without a rest, is where a server writes when it has used up its free pages.

    ``longest`` is what the longest value takes in a row, in bytes; any thread may set it, once it is known.

    Both questions raise ``NotFoundError``, ``SourceError`` and ``FormatError`` when the file cannot be read.
    """

    def __init__(self, path: Path, oldest: Callable[[], int], headroom: float, max_size: int | None = None) -> None:
        self._path = path
        self._oldest = oldest
        self._headroom = headroom
        self._max_size = max_size
        self.longest = 0
        self._kept: int | None = None
        self._reusable = 0
        self._counted: int | None = None
        self._next_count = 0.0

    def refusal(self) -> str | None:
        """Why the pin, just taken, must be given back at once, or None."""
        return refusal(self.measure(self._headroom), self._headroom)

    def shortage(self) -> str | None:
        """Why the pin must be given up now, or None."""
        return shortage(self.measure(self._headroom * _HELD), self._headroom)

    def measure(self, enough: float) -> Room:
        """The room now; ``reusable`` is 0 when ``beyond`` is at least the share ``enough`` of the map."""
        meta = read_meta(self._path)
        map_size = meta.map_size if self._max_size is None else min(meta.map_size, self._max_size)
        beyond = max(0, map_size - meta.size)
        if self._kept is None:
            self._kept = beyond // 2
        try:
            status, disk = os.stat(self._path), os.statvfs(self._path)
            reusable = self._count(meta) if beyond < enough * map_size else 0
        except OSError as error:
            raise SourceError(f"cannot measure the room of {self._path}: {str(error.strerror).lower()}") from error
        return Room(
            map_size=map_size,
            beyond=beyond,
            reusable=reusable,
            disk_size=disk.f_blocks * disk.f_frsize,
            disk_free=disk.f_bavail * disk.f_frsize,
            growth=max(0, map_size - status.st_blocks * _BLOCK),
            longest=self.longest,
            kept=self._kept,
        )

    def _count(self, meta: Meta) -> int:
        started = time.monotonic()
        if meta.txnid != self._counted and started >= self._next_count:
            self._reusable = reusable_pages(self._path, meta, self._oldest()) * meta.page_size
            self._counted = meta.txnid
            finished = time.monotonic()
            self._next_count = finished + rest_after_count(finished - started)
        return self._reusable


def _lack(room: Room, share: float, values: int) -> str | None:
    """What is less than ``share`` of the map or of the disk, or than the longest value ``values`` times, in words."""
    of_map = f"of its map of {_mebibytes(room.map_size)}"
    writable = room.beyond + room.reusable
    if writable < share * room.map_size:
        return f"only {_got(writable, room.map_size)} {of_map} can still be written to, expected {_expected(share)}"
    end = share * _END_OF_MAP
    if room.beyond < end * room.map_size:
        return f"{_short_end(room, _got(room.beyond, room.map_size))}, expected {_expected(end)}"
    needed = values * room.longest
    if room.beyond < needed:
        value = f"{'twice ' if values == _VALUES_TO_BEGIN else ''}its longest value of {_mebibytes(room.longest)}"
        got, expected = _got(room.beyond, room.map_size), _needed(needed, room.map_size)
        return f"{_short_end(room, got)}, expected {expected}, {value}"
    if room.disk_free < share * room.disk_size and room.disk_free < room.growth:
        of_disk = f"of its disk of {_mebibytes(room.disk_size)}"
        return f"only {_got(room.disk_free, room.disk_size)} {of_disk} is free, expected {_expected(share)}"
    return None


def _short_end(room: Room, got: str) -> str:
    return f"only {got} of its map of {_mebibytes(room.map_size)} lies beyond its last page"


def _got(part: int, whole: int) -> str:
    # Rounded down, and what is expected rounded up: a message must not say that 15 % is less than 15 %.
    return f"{math.floor(part / whole * 1000) / 10:g} %"


def _needed(part: int, whole: int) -> str:
    return f"{-(-part * 1000 // whole) / 10:g} %"


def _expected(share: float) -> str:
    # A share such as 0.1 is not exact in binary: without the inner rounding it would become 10.1 %.
    return f"{math.ceil(round(share * 1000, 6)) / 10:g} %"


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"
