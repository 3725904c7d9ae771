"""From objects to files: fetch every object once, and write each of its stretches to the files that are made of it."""

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass, field
from typing import Protocol

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


class Target(Protocol):
    """A file that is being put together."""

    def write_at(self, offset: int, buffer: Buffer) -> None:
        """Put ``buffer`` at byte ``offset``. May be called by several threads, in any order."""

    def observe(self, offset: int, buffer: Buffer) -> None:
        """Hear what was written, from one thread, in the order of the objects."""


Opener = Callable[[], AbstractContextManager[tuple[Target, Callable[[], object]]]]
"""Opens a target for a block, and gives with it what proves it once all its bytes have been written."""


@dataclass(slots=True)
class _File:
    opener: Opener
    remaining: int
    resources: ExitStack = field(default_factory=ExitStack)
    target: Target | None = None
    prove: Callable[[], object] | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def open(self) -> Target:
        with self.lock:
            if self.target is None:
                self.target, self.prove = self.resources.enter_context(self.opener())
            return self.target

    def finish(self) -> None:
        with self.resources:
            self.open()
            if self.prove is not None:
                self.prove()


@dataclass(frozen=True, slots=True)
class _Stretch:
    extent: Extent
    file: _File

    @property
    def start(self) -> int:
        return self.extent.object_offset

    @property
    def end(self) -> int:
        return self.extent.object_offset + self.extent.length

    @property
    def is_large(self) -> bool:
        return self.extent.length >= LARGE

    def within(self, offset: int, buffer: Buffer) -> tuple[int, Buffer]:
        """The part of it that lies in ``buffer``, the object's plaintext from ``offset`` on, and its place in the
        file."""
        start = max(self.start, offset)
        end = max(start, min(self.end, offset + len(buffer)))
        return self.extent.offset + start - self.start, memoryview(buffer)[start - offset : end - offset]


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

    def add(self, extents: Sequence[Extent], opener: Opener) -> None:
        """A file made of ``extents``; ``opener`` is called when its first bytes are there."""
        file = _File(opener, len(extents))
        if not extents:
            file.finish()
            return
        if self._count >= PENDING and extents[0].object not in self._waiting:
            self.flush()
        for extent in extents:
            self._waiting.setdefault(extent.object, []).append(_Stretch(extent, file))
        self._count += len(extents)
        self._unfinished += 1

    def flush(self) -> None:
        """Fetch and write all that waits."""
        waiting = [
            (self._wanted(object_id, stretches), sorted(stretches, key=lambda stretch: stretch.start))
            for object_id, stretches in self._waiting.items()
        ]
        try:
            self._write(waiting)
        finally:
            for file in self._files.values():
                file.resources.close()
            self._files.clear()
        self._waiting.clear()
        self._count = 0
        if self._unfinished:
            raise IntegrityError(f"{self._unfinished} files reach beyond the objects that they are made of")

    def _wanted(self, object_id: str, stretches: Sequence[_Stretch]) -> Wanted:
        record = self._objects.get(object_id)
        if record is None:
            raise IntegrityError(f"contents name object {object_id}, which is not in the objects list")
        intervals = [(stretch.start, stretch.extent.length) for stretch in stretches]
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
        end = offset + len(buffer)
        while first < len(stretches) and stretches[first].end <= offset:
            first += 1
        for index in range(first, len(stretches)):
            if stretches[index].start >= end:
                break
            self._copy(stretches[index], offset, buffer)
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
        self._files[id(file)] = file
        return file.open()
