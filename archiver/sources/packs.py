"""Packs: the small files of a batch as one POSIX pax tar that GNU tar extracts as it is."""

import os
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain

from blake3 import blake3

from archiver.buffers import Buffer
from archiver.catalog.records import Extent, FileRecord
from archiver.filesystem import read_region
from archiver.sources.entries import (
    FileEntry,
    HardLinkEntry,
    HardLinks,
    Skipped,
    UnreadableError,
    explain,
    group_name,
    owner_name,
)
from archiver.sources.media import PACK_LIMIT, MediaTree

_ATTEMPTS = 3
_NANOSECONDS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Member:
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


@dataclass(frozen=True, slots=True)
class _Content:
    file: FileEntry
    data: bytes
    changed: bool


class Pack:
    """Reads ``files`` one by one into a tar, and tells in ``outcomes`` by path what became of each.

    The first readable file is read at once, so that ``empty`` is known before an object is created; an empty pack
    need not be stored. A file is read whole before its header is written, up to three times if it changes meanwhile.
    What cannot be read becomes ``Skipped``, and a further name of a stored file a ``HardLinkEntry``; neither is in
    the tar. A file that has grown beyond ``limit`` bytes since it was listed has no outcome here: it is in ``grown``,
    to be read as a ``LargeFile``. ``outcomes`` and ``grown`` are complete when ``buffers()`` is used up.
    Memory: one file.
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

    def buffers(self) -> Iterator[Buffer]:
        """The tar, once: POSIX pax, exact times and names in extended headers, two zero blocks at the end."""
        offset = 0
        first = [self._first] if self._first is not None else []
        self._first = None
        for content in chain(first, self._contents):
            file = content.file
            header = tar_header(file)
            digest = blake3(content.data).hexdigest()
            offset += len(header)
            self.outcomes[file.path] = Member(file, offset, digest, content.changed)
            padding = bytes(-file.size % tarfile.BLOCKSIZE)
            offset += file.size + len(padding)
            yield header
            if content.data:
                yield content.data
            if padding:
                yield padding
        yield bytes(2 * tarfile.BLOCKSIZE)

    def _read_files(self, files: Iterable[FileEntry]) -> Iterator[_Content]:
        for listed in files:
            link = self._links.find(listed)
            if link is not None:
                self.outcomes[listed.path] = link
                continue
            try:
                content = self._read(listed.path)
            except UnreadableError as error:
                self.outcomes[listed.path] = error.skipped
                continue
            if content is not None:
                self._links.remember(content.file)
                yield content

    def _read(self, path: bytes) -> _Content | None:
        descriptor, status = self._tree.open_file(path)
        try:
            attempt = 0
            while True:
                attempt += 1
                if status.st_size > self._limit:
                    self.grown.append(FileEntry.of(path, status))
                    return None
                data = b"".join(read_region(descriptor, 0, status.st_size))
                after = os.fstat(descriptor)
                changed = (after.st_size, after.st_mtime_ns) != (len(data), status.st_mtime_ns)
                if not changed or attempt == _ATTEMPTS:
                    return _Content(replace(FileEntry.of(path, status), size=len(data)), data, changed)
                status = after
        except OSError as error:
            raise UnreadableError(path, explain(error)) from error
        finally:
            os.close(descriptor)


def tar_header(file: FileEntry) -> bytes:
    """The blocks before the content of ``file``: an extended header with what ustar cannot hold, then its own."""
    attributes = file.attributes
    info = tarfile.TarInfo(file.path.decode("utf-8", "surrogateescape"))
    info.size = file.size
    info.mode = attributes.mode
    info.mtime = attributes.mtime_ns // _NANOSECONDS
    info.uid, info.gid = attributes.uid, attributes.gid
    info.uname, info.gname = owner_name(attributes.uid), group_name(attributes.gid)
    info.pax_headers = {"mtime": _pax_time(attributes.mtime_ns)}
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _pax_time(nanoseconds: int) -> str:
    seconds, fraction = divmod(abs(nanoseconds), _NANOSECONDS)
    sign = "-" if nanoseconds < 0 else ""
    return f"{sign}{seconds}.{fraction:09d}"
