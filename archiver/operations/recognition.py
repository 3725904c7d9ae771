"""Which files of a media tree are as they were when they were last backed up."""

import os
from collections.abc import Iterable, Iterator

import msgspec
from blake3 import blake3
from msgspec import structs

from archiver.filesystem import ROOT, Identity, read_region
from archiver.operations.remembered import RememberedFile, now_ns, remembered
from archiver.operations.reuse import Reuse, Usable
from archiver.sources.entries import FileEntry, Found, UnreadableError
from archiver.sources.media import PACK_LIMIT, MediaTree

_CHANGES = 4096
_END: tuple[bytes, None] = b"", None
"""What follows the last file that is remembered."""


class Unchanged(msgspec.Struct, frozen=True):
    """A file that need not be stored: its content lies in ``objects``."""

    entry: FileEntry
    file: RememberedFile
    objects: list[Usable]


def first_names(entries: Iterable[Found | Unchanged]) -> list[FileEntry]:
    """The unchanged files with several names, each under the first of those that ``entries`` has; a file of which the
    first name is to be read is not among them: its other names become links to that one."""
    seen: set[Identity] = set()
    found = []
    for item in entries:
        entry = item.entry if isinstance(item, Unchanged) else item
        if isinstance(entry, FileEntry) and entry.links > 1 and entry.identity not in seen:
            seen.add(entry.identity)
            if isinstance(item, Unchanged):
                found.append(entry)
    return found


class Recognition:
    """Goes through the open ``tree`` and what is remembered of it, side by side: both are in order of the paths' bytes.
    Bounded memory, whatever either holds."""

    def __init__(self, tree: MediaTree, reuse: Reuse) -> None:
        self._tree = tree
        self._reuse = reuse
        self._changes: list[tuple[bytes, RememberedFile | None]] = []

    def walk(self) -> Iterator[Found | Unchanged]:
        """Everything in the tree; files that are as they were as ``Unchanged``, without being opened."""
        known: Iterator[tuple[bytes, RememberedFile | None]] = self._reuse.memory.files()
        path, file = next(known, _END)
        for entry in self._tree.walk():
            if entry.path == ROOT:
                # Comes first, not where its name belongs: names that begin with ! or - sort before it.
                yield entry
                continue
            while file is not None and path < entry.path:
                self._missed(path, file)
                path, file = next(known, _END)
            if file is None or path != entry.path or not isinstance(entry, FileEntry):
                yield entry
                continue
            yield self._recognise(entry, file)
            path, file = next(known, _END)
        while file is not None:
            self._missed(path, file)
            path, file = next(known, _END)
        self.flush()

    def remember(self, path: bytes, file: RememberedFile | None) -> None:
        """``file`` is at ``path``; None: what is there is not to be recognised."""
        self._changes.append((path, file))
        if len(self._changes) >= _CHANGES:
            self.flush()

    def flush(self) -> None:
        """Make sure of what was told to ``remember``."""
        self._reuse.memory.put_files(self._changes)
        self._changes = []

    def _recognise(self, entry: FileEntry, file: RememberedFile) -> Found | Unchanged:
        objects = self._reuse.find(file)
        if objects is None or entry.size != file.size:
            return entry
        if file.matches(entry):
            if file.missed:
                self.remember(entry.path, structs.replace(file, missed=False))
            return Unchanged(entry, file, objects)
        if entry.size > PACK_LIMIT or entry.links > 1:
            # Twice to read a large file costs more than once to store it; and each name of a file that has got a
            # further one shows a change, the first of which must be stored for the others to be links to it.
            return entry
        return self._compare(entry, file, objects) or entry

    def _compare(self, entry: FileEntry, file: RememberedFile, objects: list[Usable]) -> Unchanged | None:
        """A small file whose times have changed, where its content has not; what is wrong with others is for the pack
        to find."""
        began = now_ns()
        try:
            read, digest = _read(self._tree, entry.path, file.size)
        except (UnreadableError, OSError):
            return None
        if digest != file.hash or read.links > 1:
            return None
        current = remembered(read, file.blake3, file.extents, began)
        self.remember(entry.path, current)
        return Unchanged(read, file, objects)

    def _missed(self, path: bytes, file: RememberedFile) -> None:
        if file.missed:
            self.remember(path, None)
        else:
            self.remember(path, structs.replace(file, missed=True))
            self._reuse.keep(file.extents)


def _read(tree: MediaTree, path: bytes, size: int) -> tuple[FileEntry, bytes | None]:
    """The file as it was when it was opened, and the hash of its ``size`` bytes; None where it has another size, or
    changed meanwhile."""
    descriptor, opened = tree.open_file(path)
    try:
        hasher = blake3()
        length = 0
        for block in read_region(descriptor, 0, size + 1):
            hasher.update(block)
            length += len(block)
        read = FileEntry.of(path, opened)
        unchanged = length == size and FileEntry.of(path, os.fstat(descriptor)) == read
        return read, hasher.digest() if unchanged else None
    finally:
        os.close(descriptor)
