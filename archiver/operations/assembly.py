"""From objects to files: fetch every object once, and write each of its stretches to the files that are made of it."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Protocol

from archiver.buffers import Buffer
from archiver.catalog.records import Extent, ObjectRecord
from archiver.errors import IntegrityError
from archiver.operations.archive import Archive
from archiver.operations.history import Backup

PENDING = 20_000
"""Stretches that may wait for their objects: what bounds memory, however many files there are."""


class Target(Protocol):
    """A file that is being put together."""

    def write_at(self, offset: int, buffer: Buffer) -> None: ...


Opener = Callable[[], AbstractContextManager[tuple[Target, Callable[[], object]]]]
"""Opens a target for a block, and gives with it what proves it once all its bytes have been written."""


@dataclass(slots=True)
class _File:
    opener: Opener
    remaining: int
    resources: ExitStack = field(default_factory=ExitStack)
    target: Target | None = None
    prove: Callable[[], object] | None = None

    def open(self) -> Target:
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
        try:
            for object_id, stretches in self._waiting.items():
                self._write(object_id, sorted(stretches, key=lambda stretch: stretch.start))
        finally:
            for file in self._files.values():
                file.resources.close()
            self._files.clear()
        self._waiting.clear()
        self._count = 0
        if self._unfinished:
            raise IntegrityError(f"{self._unfinished} files reach beyond the objects that they are made of")

    def _write(self, object_id: str, stretches: Sequence[_Stretch]) -> None:
        record = self._objects.get(object_id)
        if record is None:
            raise IntegrityError(f"contents name object {object_id}, which is not in the objects list")
        reader = self._archive.reader(self._backup, record, self._placement)
        intervals = [(stretch.start, stretch.extent.length) for stretch in stretches]
        if self._whole:
            intervals.append((0, reader.plaintext_size))
        first = 0
        for offset, buffer in reader.read(intervals, record.blake3, self._advance):
            end = offset + len(buffer)
            while first < len(stretches) and stretches[first].end <= offset:
                first += 1
            for index in range(first, len(stretches)):
                if stretches[index].start >= end:
                    break
                self._copy(stretches[index], offset, buffer)

    def _copy(self, stretch: _Stretch, offset: int, buffer: Buffer) -> None:
        """Write the part of ``stretch`` that lies in ``buffer``, which is the object's plaintext from ``offset`` on."""
        start = max(stretch.start, offset)
        end = min(stretch.end, offset + len(buffer))
        if start >= end:
            return
        file = stretch.file
        self._files[id(file)] = file
        file.open().write_at(
            stretch.extent.offset + start - stretch.start, memoryview(buffer)[start - offset : end - offset]
        )
        if end == stretch.end:
            file.remaining -= 1
            if not file.remaining:
                file.finish()
                del self._files[id(file)]
                self._unfinished -= 1
