"""Files that are too large for a pack: read once, in order, hole by hole, as objects of their own."""

import os
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Self

from blake3 import blake3

from archiver.buffers import Buffer
from archiver.catalog.records import Extent, FileRecord
from archiver.filesystem import Region, advise, data_regions, hash_zeros, read_region
from archiver.sources.entries import FileEntry, UnreadableError, explain
from archiver.sources.media import MediaTree


class LargeFile:
    """One file, open for reading. ``pieces`` are to be used up in order, each once; then ``record`` describes it.

    Its size is the one it has when it is opened: what is appended later is not read, and where it shrinks meanwhile
    the record ends with what was read. Either way ``changed`` tells. Its hash covers holes as zeros.
    Opening and reading raise ``UnreadableError``: the backup goes on without the file.
    """

    def __init__(self, tree: MediaTree, path: bytes) -> None:
        self._path = path
        self._descriptor, self._opened = tree.open_file(path)
        # What is behind the reader stays in the page cache: part of it may be what the live server reads, and the
        # kernel gives up pages that were read once, as here, before those that a server uses again and again.
        advise(self._descriptor, self._opened.st_size, os.POSIX_FADV_SEQUENTIAL)
        self._hasher = blake3()
        self._hashed = 0
        self.size = self._opened.st_size
        """Bytes; smaller than at first when the file shrinks while it is read."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    @property
    def entry(self) -> FileEntry:
        """The file as it was when it was opened."""
        return FileEntry.of(self._path, self._opened)

    @property
    def changed(self) -> bool:
        """It changed since it was opened: what was read may be a mixture of two states."""
        now = os.fstat(self._descriptor)
        return (now.st_size, now.st_mtime_ns) != (self._opened.st_size, self._opened.st_mtime_ns)

    def pieces(self, limit: int) -> Iterator["Piece"]:
        """What is to become one object each, of at most ``limit`` bytes; none for a file without data."""
        try:
            regions = data_regions(self._descriptor, self.size)
        except OSError as error:
            raise UnreadableError(self._path, explain(error)) from error
        for group in cut(regions, limit):
            self.size = min(self.size, max(self._hashed, os.fstat(self._descriptor).st_size))
            if group[0][0] >= self.size:
                return
            yield Piece(self, group)

    def read(self, region: Region) -> Iterator[Buffer]:
        """The bytes of one region; fewer where the file has shrunk. Regions must be read in order, each once."""
        offset, length = region
        if offset < self._hashed:
            raise ValueError(f"region at {offset} was read already, up to {self._hashed}")
        hash_zeros(self._hasher, offset - self._hashed)
        self._hashed = offset
        try:
            for block in read_region(self._descriptor, offset, length):
                self._hasher.update(block)
                self._hashed += len(block)
                yield block
        except OSError as error:
            raise UnreadableError(self._path, explain(error)) from error
        if self._hashed < offset + length:
            self.size = self._hashed

    def record(self, extents: list[Extent]) -> FileRecord:
        """The catalog's record of the file, once all pieces have been read; ``extents`` are those of its pieces."""
        hash_zeros(self._hasher, self.size - self._hashed)
        self._hashed = self.size
        return self.entry.record(self.size, self._hasher.hexdigest(), extents)


class Piece:
    """The regions of a ``LargeFile`` that one object holds, one after the other."""

    def __init__(self, file: LargeFile, regions: Sequence[Region]) -> None:
        self._file = file
        self._regions = regions
        self._lengths: list[int] = []

    def buffers(self) -> Iterator[Buffer]:
        """The plaintext of the object, once."""
        for region in self._regions:
            length = 0
            for block in self._file.read(region):
                length += len(block)
                yield block
            self._lengths.append(length)
            if length < region[1]:
                return

    def extents(self, object_id: str) -> list[Extent]:
        """Where the bytes that ``buffers()`` gave, now in the object ``object_id``, belong in the file."""
        extents: list[Extent] = []
        position = 0
        for (offset, _), length in zip(self._regions, self._lengths, strict=False):
            if length:
                extents.append(Extent(offset=offset, length=length, object=object_id, object_offset=position))
            position += length
        return extents


def cut(regions: Iterable[Region], limit: int) -> list[list[Region]]:
    """Share ``regions`` out to objects of at most ``limit`` bytes, in order.

    An object holds one or more whole regions, or a part of one that is longer than ``limit``.
    """
    groups: list[list[Region]] = []
    room = 0
    for offset, length in regions:
        if groups and length <= room:
            groups[-1].append((offset, length))
            room -= length
            continue
        groups += [[(start, min(limit, offset + length - start))] for start in range(offset, offset + length, limit)]
        room = limit - length
    return groups
