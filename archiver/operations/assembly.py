"""From objects to files: fetch every object once, and write each of its stretches to the files that are made of it."""

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from operator import attrgetter
from typing import Protocol

import msgspec

from archiver.buffers import Buffer
from archiver.catalog.records import Extent, ObjectRecord
from archiver.errors import IntegrityError
from archiver.operations.archive import Archive
from archiver.operations.history import Backup
from archiver.operations.reading import Wanted, read_objects

LARGE = 1024 * 1024
"""Bytes of a stretch from which on those who decompress it write it, too. Of smaller ones, a piece may hold more than
a process may have files open: these are written in order, one at a time."""
PENDING = 20_000
"""Stretches that may wait for their objects: what bounds memory, however many files there are."""

_START = attrgetter("start")


class Target(Protocol):
    """A file that is being put together."""

    def write_at(self, offset: int, buffer: Buffer) -> None:
        """Put ``buffer`` at byte ``offset``. May be called by several threads, in any order."""

    def observe(self, offset: int, buffer: Buffer) -> None:
        """Hear what was written, from one thread, in the order of the objects."""


Opener = Callable[[], AbstractContextManager[tuple[Target, Callable[[], object]]]]
"""Opens a target for a block, and gives with it what proves it once all its bytes have been written."""
Put = Callable[[Buffer], object]
"""Makes a whole file of its bytes, proven, before it returns."""


# Of these there are as many as small files, so they are made of little.
class _File(msgspec.Struct):
    opener: Opener
    remaining: int
    put: Put | None = None
    opened: "_Opened | None" = None

    def open(self) -> "_Opened":
        if self.opened is None:
            resources = ExitStack()
            self.opened = _Opened(*resources.enter_context(self.opener()), resources)
        return self.opened

    def finish(self) -> None:
        opened = self.open()
        with opened.resources:
            opened.prove()


class _Opened(msgspec.Struct, frozen=True):
    target: Target
    prove: Callable[[], object]
    resources: ExitStack


class _Stretch(msgspec.Struct):
    start: int
    end: int
    place: int
    file: _File

    @property
    def is_large(self) -> bool:
        return self.end - self.start >= LARGE

    def within(self, offset: int, buffer: Buffer) -> tuple[int, Buffer]:
        """The part of it that lies in ``buffer``, the object's plaintext from ``offset`` on, and its place in the
        file."""
        start = max(self.start, offset)
        end = max(start, min(self.end, offset + len(buffer)))
        return self.place + start - self.start, memoryview(buffer)[start - offset : end - offset]


class Assembly:
    """Collects files in the order of contents and writes them object by object.

    Files that share a pack come one after another in contents, so that a bounded number of waiting stretches is
    enough to fetch each object once. ``advance`` hears bytes as they are fetched. With ``whole``, objects are read, and
    their hashes proven, from the first byte to the last, even where no file needs all of it.
    """

    def __init__(
        self,
        archive: Archive,
        backup: Backup,
        objects: dict[str, ObjectRecord],
        placement: dict[str, str],
        advance: Callable[[int], None],
        *,
        whole: bool = False,
    ) -> None:
        self._archive = archive
        self._backup = backup
        self._objects = objects
        self._placement = placement
        self._advance = advance
        self._whole = whole
        self._unfinished = 0
        self._waiting: dict[str, list[_Stretch]] = {}
        self._count = 0
        self._files: dict[int, _File] = {}
        self._opening = threading.Lock()
        self.fetched: set[str] = set()
        """Ids of the objects that were fetched without an error."""

    def add(self, extents: Sequence[Extent], opener: Opener, put: Put | None = None) -> None:
        """A file made of ``extents``; ``opener`` is called when its first bytes are there, or ``put`` with all of them.

        ``put`` is for a file that one extent covers: used if it is small and one frame holds it, as nearly all small
        files are held, because it costs less.
        """
        file = _File(opener, len(extents), put if len(extents) == 1 and extents[0].length < LARGE else None)
        if not extents:
            file.finish()
            return
        if self._count >= PENDING and extents[0].object not in self._waiting:
            self.flush()
        for extent in extents:
            start = extent.object_offset
            stretch = _Stretch(start, start + extent.length, extent.offset, file)
            self._waiting.setdefault(extent.object, []).append(stretch)
        self._count += len(extents)
        self._unfinished += 1

    def flush(self) -> None:
        """Fetch and write all that waits."""
        waiting = [
            (self._wanted(object_id, stretches), sorted(stretches, key=_START))
            for object_id, stretches in self._waiting.items()
        ]
        try:
            self._write(waiting)
        finally:
            for file in self._files.values():
                if file.opened is not None:
                    file.opened.resources.close()
            self._files.clear()
        self.fetched.update(self._waiting)
        self._waiting.clear()
        self._count = 0
        if self._unfinished:
            raise IntegrityError(f"{self._unfinished} files reach beyond the objects that they are made of")

    def _wanted(self, object_id: str, stretches: Sequence[_Stretch]) -> Wanted:
        record = self._objects.get(object_id)
        if record is None:
            raise IntegrityError(f"contents name object {object_id}, which is not in the objects list")
        intervals = [(stretch.start, stretch.end - stretch.start) for stretch in stretches]
        for start, length in intervals:
            if start + length > record.plaintext_size:
                raise IntegrityError(
                    f"an extent ends at byte {start + length} of an object of {record.plaintext_size} bytes"
                )
        reader = self._archive.reader(self._backup, record, self._placement)
        return Wanted(reader.stored, record.plaintext_size, record.blake3, None if self._whole else intervals)

    def _write(self, waiting: Sequence[tuple[Wanted, Sequence[_Stretch]]]) -> None:
        large = [[stretch for stretch in stretches if stretch.is_large] for _, stretches in waiting]

        def early(number: int, offset: int, buffer: Buffer) -> None:
            for stretch in large[number]:
                place, piece = stretch.within(offset, buffer)
                if piece:
                    self._opened(stretch.file).write_at(place, piece)

        current = first = 0
        wanted = [item for item, _ in waiting]
        with closing(read_objects(wanted, self._archive.workers, self._advance, early)) as frames:
            for number, offset, buffer in frames:
                if number != current:
                    current, first = number, 0
                first = self._spread(waiting[number][1], first, offset, buffer)

    def _spread(self, stretches: Sequence[_Stretch], first: int, offset: int, buffer: Buffer) -> int:
        """Write what the ``stretches`` from ``first`` on have in ``buffer``; returns the first one that goes on."""
        view = memoryview(buffer)
        end = offset + len(view)
        while first < len(stretches) and stretches[first].end <= offset:
            first += 1
        for index in range(first, len(stretches)):
            stretch = stretches[index]
            if stretch.start >= end:
                break
            put = stretch.file.put
            if put is not None and offset <= stretch.start and stretch.end <= end:
                put(view[stretch.start - offset : stretch.end - offset])
                self._unfinished -= 1
            else:
                self._copy(stretch, offset, view)
        return first

    def _copy(self, stretch: _Stretch, offset: int, buffer: Buffer) -> None:
        """Write the part of ``stretch`` that lies in ``buffer``, unless that was done early, and account for it."""
        place, piece = stretch.within(offset, buffer)
        if not piece:
            return
        file = stretch.file
        target = self._opened(file)
        if not stretch.is_large:
            target.write_at(place, piece)
        target.observe(place, piece)
        if stretch.end <= offset + len(buffer):
            file.remaining -= 1
            if not file.remaining:
                file.finish()
                del self._files[id(file)]
                self._unfinished -= 1

    def _opened(self, file: _File) -> Target:
        with self._opening:
            self._files[id(file)] = file
            return file.open().target
