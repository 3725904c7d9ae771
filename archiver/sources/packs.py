"""Packs: the small files of a batch as one POSIX pax tar that GNU tar extracts as it is."""

import errno
import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from itertools import chain

import msgspec
from blake3 import blake3
from msgspec.structs import replace

from archiver.buffers import Buffer
from archiver.catalog.records import Extent, FileRecord
from archiver.filesystem import advise, read_region
from archiver.sources.entries import FileEntry, HardLinkEntry, HardLinks, Skipped, UnreadableError, explain
from archiver.sources.media import PACK_LIMIT, MediaTree
from archiver.sources.tar import END, padding, tar_header

_ATTEMPTS = 3
_AHEAD = 32
"""How many files wait open for their turn. Where they are in no cache, 20,000 of them are read in a third of the time
so; each is little of the system's memory, because it reads ahead no more than about 1 MiB of a file."""
_STRETCH = 1024 * 1024
"""Bytes of buffers that are joined to one, because whoever takes them has work with each."""

_SCARCE = (errno.EMFILE, errno.ENFILE)

Opened = tuple[int, os.stat_result]
"""The descriptor of a file, and what it was when it was opened."""


class Member(msgspec.Struct, frozen=True):
    """A file as it is stored in a pack."""

    file: FileEntry
    """Its size and attributes are those of what was read."""
    offset: int
    """Where its content begins in the plaintext of the tar, in bytes."""
    blake3: str
    changed: bool
    """It changed each time it was read: it is stored as it was read last, perhaps a mixture of two states."""

    def record(self, object_id: str) -> FileRecord:
        """The catalog's record of the file, with the object that the pack became."""
        size = self.file.size
        extents = [Extent(offset=0, length=size, object=object_id, object_offset=self.offset)] if size else []
        return self.file.record(size, self.blake3, extents)


class _Content(msgspec.Struct, frozen=True):
    file: FileEntry
    blocks: deque[bytes]
    """Its bytes, each let go as soon as it was passed on: a file has up to 32 MiB."""
    changed: bool


class Pack:
    """Reads ``files`` one by one into a tar, and tells in ``outcomes`` by path what became of each.

    The first readable file is read at once, so that ``empty`` is known before an object is created; an empty pack
    need not be stored. A file is read whole before its header is written, up to three times if it changes meanwhile.
    What cannot be read becomes ``Skipped``, and a further name of a stored file a ``HardLinkEntry``; neither is in
    the tar. A file that has grown beyond ``limit`` bytes since it was listed has no outcome here: it is in ``grown``,
    to be read as a ``LargeFile``. ``outcomes`` and ``grown`` are complete when ``buffers()`` is used up.
    Memory: one file and 1 MiB. The next 32 files, or as many as may be, are open meanwhile, until ``buffers()`` ends or
    is closed.
    """

    def __init__(
        self, tree: MediaTree, files: Iterable[FileEntry], links: HardLinks, *, limit: int = PACK_LIMIT
    ) -> None:
        self.outcomes: dict[bytes, Member | HardLinkEntry | Skipped] = {}
        self.grown: list[FileEntry] = []
        self._tree = tree
        self._links = links
        self._limit = limit
        self._contents = self._read_files(files)
        self._first = next(self._contents, None)

    @property
    def empty(self) -> bool:
        """No file is left to store; ``outcomes`` is complete then."""
        return self._first is None

    def buffers(self) -> Generator[Buffer, None, None]:
        """The tar, once: POSIX pax, exact times and names in extended headers, two zero blocks at the end.

        In buffers of about 1 MiB; a longer file is one of its own.
        """
        try:
            yield from _joined(self._members())
        finally:
            self._contents.close()

    def _members(self) -> Iterator[bytes]:
        offset = 0
        first = [self._first] if self._first is not None else []
        self._first = None
        for content in chain(first, self._contents):
            file = content.file
            header = tar_header(file)
            hasher = blake3()
            for block in content.blocks:
                hasher.update(block)
            digest = hasher.hexdigest()
            # Else the loop's variable would hold the last block of the file while the next one is read.
            block = b""
            offset += len(header)
            self.outcomes[file.path] = Member(file, offset, digest, content.changed)
            zeros = padding(file.size)
            offset += file.size + len(zeros)
            yield header
            while content.blocks:
                yield content.blocks.popleft()
            yield zeros
        yield END

    def _read_files(self, files: Iterable[FileEntry]) -> Generator[_Content, None, None]:
        for listed, opened in self._open_ahead(files):
            # The first name of the same file may have been read only since this one was opened.
            if link := self._links.find(listed):
                _close(opened)
                self.outcomes[listed.path] = link
            elif isinstance(opened, tuple):
                try:
                    content = self._read(listed.path, *opened)
                except UnreadableError as error:
                    self.outcomes[listed.path] = error.skipped
                    continue
                if content is not None:
                    self._links.remember(content.file)
                    yield content
            else:
                self.outcomes[listed.path] = opened

    def _open_ahead(self, files: Iterable[FileEntry]) -> Iterator[tuple[FileEntry, Opened | Skipped | HardLinkEntry]]:
        """``files``, each opened while others before it were still to be read. Who is given a descriptor closes it."""
        waiting: deque[tuple[FileEntry, Opened | Skipped | HardLinkEntry]] = deque()
        try:
            for file in files:
                try:
                    opened = self._links.find(file) or self._open(file)
                except _ScarceError:
                    while waiting:
                        yield waiting.popleft()
                    opened = self._open(file, last=True)
                waiting.append((file, opened))
                if len(waiting) > _AHEAD:
                    yield waiting.popleft()
            while waiting:
                yield waiting.popleft()
        finally:
            for _, opened in waiting:
                _close(opened)

    def _open(self, file: FileEntry, *, last: bool = False) -> Opened | Skipped:
        """Raises ``_ScarceError`` where too many files are open, unless none of ours is: ``last``."""
        try:
            opened = self._tree.open_file(file.path)
        except UnreadableError as error:
            if not last and isinstance(error.__cause__, OSError) and error.__cause__.errno in _SCARCE:
                raise _ScarceError from error
            return error.skipped
        if file.size:
            advise(opened[0], file.size, os.POSIX_FADV_WILLNEED)
        return opened

    def _read(self, path: bytes, descriptor: int, status: os.stat_result) -> _Content | None:
        try:
            attempt = 0
            while True:
                attempt += 1
                if status.st_size > self._limit:
                    self.grown.append(FileEntry.of(path, status))
                    return None
                blocks = deque(read_region(descriptor, 0, status.st_size))
                size = sum(map(len, blocks))
                after = os.fstat(descriptor)
                changed = (after.st_size, after.st_mtime_ns) != (size, status.st_mtime_ns)
                if not changed or attempt == _ATTEMPTS:
                    file = FileEntry.of(path, status)
                    if file.size != size:
                        file = replace(file, size=size)
                    return _Content(file, blocks, changed)
                status = after
        except OSError as error:
            raise UnreadableError(path, explain(error)) from error
        finally:
            os.close(descriptor)


class _ScarceError(Exception):
    """The process or the system has as many files open as it may."""


def _close(opened: Opened | Skipped | HardLinkEntry) -> None:
    if isinstance(opened, tuple):
        os.close(opened[0])


def _joined(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """``pieces`` in buffers of about 1 MiB; a longer piece as it is."""
    gathered: list[bytes] = []
    size = 0
    for piece in pieces:
        if len(piece) >= _STRETCH:
            if gathered:
                yield b"".join(gathered)
            yield piece
            gathered, size = [], 0
            continue
        gathered.append(piece)
        size += len(piece)
        if size >= _STRETCH:
            yield b"".join(gathered)
            gathered, size = [], 0
    if size:
        yield b"".join(gathered)
