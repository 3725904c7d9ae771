"""The media tree: a walk in path order, by stated rules, that nothing on disk can lead astray."""

import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from fnmatch import translate
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar

import msgspec

from archiver.catalog.records import MAX_PATH
from archiver.errors import NotFoundError, SourceError
from archiver.filesystem import ROOT, Beneath, Identity, identity, join
from archiver.sources.entries import (
    Attributes,
    DirectoryEntry,
    FileEntry,
    Found,
    Skipped,
    SymlinkEntry,
    UnreadableError,
    explain,
)
from archiver.sources.sorting import PathOrder, sorted_names

PACK_SIZE = 64 * 1024 * 1024
"""About how many bytes of small files one pack holds."""
PACK_LIMIT = 32 * 1024 * 1024
"""The size in bytes of the largest file that goes into a pack; larger ones get objects of their own."""
BATCH_ENTRIES = 16 * 1024

_LEFT_OUT_NAMES = frozenset({b"lock.mdb", b"ucotron-writer.lock"})
_LEFT_OUT_PREFIXES = (b".archiver-restore-", b".archiver-before-")
_LMDB_FILE = b"data.mdb"
_LMDB_MAGIC = bytes.fromhex("dec0efbe")
_LMDB_MAGIC_OFFSET = 16
_OPEN_ATTEMPTS = 3


class MediaTree:
    """A media directory that is being backed up.

    Left out without a word: what matches ``exclude``; files and directories whose (st_dev, st_ino) is in ``skip``,
    which are never opened, because closing a descriptor of a ``lock.mdb`` would drop our own locks on it; regular files
    called ``lock.mdb`` or ``ucotron-writer.lock``; and what a restore leaves, ``.archiver-restore-*`` and
    ``.archiver-before-*``.
    Left out as ``Skipped``: sockets, pipes and devices, what cannot be read or vanishes, paths over 4,096 bytes, and
    a ``data.mdb`` that holds an LMDB environment, of which a raw copy could be torn. Symbolic links are recorded,
    never followed. Mount points below the directory are crossed: a volume mounted there belongs to the tree.

    An ``exclude`` pattern has ``*``, ``?`` and ``[...]`` as the shell does, except that ``*`` also matches ``/``. With
    a ``/`` in it, it is compared with the whole path below ``root``, otherwise with the last name; an excluded
    directory is not entered. Raises ``NotFoundError`` or ``SourceError`` when ``root`` is missing or no directory.
    """

    def __init__(self, root: Path, *, skip: AbstractSet[Identity] = frozenset(), exclude: Sequence[str] = ()) -> None:
        self.root = root
        self._skip = skip
        self._excluded_names = _any_of(pattern for pattern in exclude if "/" not in pattern)
        self._excluded_paths = _any_of(pattern for pattern in exclude if "/" in pattern)
        self._beneath = _open_root(root)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._beneath.close()

    def walk(self) -> Iterator[Found]:
        """Everything in the tree, in order of the bytes of whole relative paths, after the root itself as ``.``.

        Bounded memory, even for one directory of ten million files. A directory is listed in one go when it is
        entered, so what is created later is not part of the backup.
        """
        with _open_root(self.root) as beneath:
            try:
                root = DirectoryEntry(ROOT, self._root_attributes(beneath))
                stack = [(ROOT, self._list(beneath, ROOT))]
            except OSError as error:
                raise SourceError(f"media directory {explain(error)}: {self.root}") from error
            yield root
            while stack:
                directory, names = stack[-1]
                name = next(names, None)
                if name is None:
                    stack.pop()
                elif name.endswith(b"/"):
                    path = join(directory, name[:-1])
                    try:
                        stack.append((path, self._list(beneath, path)))
                    except OSError as error:
                        yield Skipped(path, explain(error))
                else:
                    found = self._look(beneath, join(directory, name), name)
                    if isinstance(found, DirectoryEntry):
                        names.descend(name)
                    if found is not None:
                        yield found

    def open_file(self, path: bytes) -> tuple[int, os.stat_result]:
        """Open the regular file ``path`` for reading: its descriptor, and what it was when it was opened.

        A file that was replaced since it was listed is opened as it is now. Raises ``UnreadableError``.
        """
        try:
            for _ in range(_OPEN_ATTEMPTS):
                listed = self._beneath.status(path)
                if not stat.S_ISREG(listed.st_mode) or identity(listed) in self._skip:
                    raise UnreadableError(path, "is no longer the regular file that was listed")
                # O_NONBLOCK: a pipe put in its place this very moment must not make us wait for a writer.
                descriptor = self._beneath.open(path, os.O_RDONLY | os.O_NONBLOCK)
                opened = os.fstat(descriptor)
                if identity(opened) == identity(listed):
                    return descriptor, opened
                os.close(descriptor)
        except OSError as error:
            raise UnreadableError(path, explain(error)) from error
        raise UnreadableError(path, "was replaced again and again while it was opened")

    def _root_attributes(self, beneath: Beneath) -> Attributes:
        with beneath.directory(ROOT) as descriptor:
            return Attributes.of(os.fstat(descriptor))

    def _list(self, beneath: Beneath, path: bytes) -> PathOrder:
        with beneath.directory(path) as descriptor, os.scandir(descriptor) as listing:
            return PathOrder(sorted_names(os.fsencode(entry.name) for entry in listing))

    def _look(self, beneath: Beneath, path: bytes, name: bytes) -> Found | None:
        if len(path) > MAX_PATH:
            return Skipped(path, f"its path is longer than {MAX_PATH} bytes")
        try:
            status = beneath.status(path)
            if self._is_left_out(path, name, status):
                return None
            if stat.S_ISREG(status.st_mode):
                return self._look_at_database(path, status) if name == _LMDB_FILE else FileEntry.of(path, status)
            if stat.S_ISDIR(status.st_mode):
                return DirectoryEntry(path, Attributes.of(status))
            if stat.S_ISLNK(status.st_mode):
                return SymlinkEntry(path, Attributes.of(status), beneath.target(path))
        except OSError as error:
            return Skipped(path, explain(error))
        return Skipped(path, f"is {_special(status.st_mode)}")

    def _is_left_out(self, path: bytes, name: bytes, status: os.stat_result) -> bool:
        if name.startswith(_LEFT_OUT_PREFIXES) or identity(status) in self._skip:
            return True
        if name in _LEFT_OUT_NAMES and stat.S_ISREG(status.st_mode):
            return True
        return _matches(self._excluded_names, name) or _matches(self._excluded_paths, path)

    def _look_at_database(self, path: bytes, status: os.stat_result) -> Found:
        try:
            descriptor, _ = self.open_file(path)
        except UnreadableError as error:
            return error.skipped
        try:
            magic = os.pread(descriptor, len(_LMDB_MAGIC), _LMDB_MAGIC_OFFSET)
        except OSError as error:
            return Skipped(path, explain(error))
        finally:
            os.close(descriptor)
        if magic == _LMDB_MAGIC:
            return Skipped(path, "is an LMDB environment that the source does not name")
        return FileEntry.of(path, status)


E = TypeVar("E")


class Batch(msgspec.Struct, Generic[E]):
    """Consecutive entries: their ``small`` files make one pack, each of the ``large`` ones has its own objects."""

    entries: list[E] = msgspec.field(default_factory=list)
    small: list[FileEntry] = msgspec.field(default_factory=list)
    large: list[FileEntry] = msgspec.field(default_factory=list)


def batches(
    entries: Iterable[E],
    *,
    pack_size: int = PACK_SIZE,
    pack_limit: int = PACK_LIMIT,
    max_entries: int = BATCH_ENTRIES,
) -> Iterator[Batch[E]]:
    """``entries``, in order, in batches that end when their small files reach ``pack_size`` bytes.

    A small file has at most ``pack_limit`` bytes; a batch has at most ``max_entries`` entries and at least one.
    """
    batch, size = Batch[E](), 0
    for entry in entries:
        batch.entries.append(entry)
        if isinstance(entry, FileEntry):
            if entry.size <= pack_limit:
                batch.small.append(entry)
                size += entry.size
            else:
                batch.large.append(entry)
        if size >= pack_size or len(batch.entries) >= max_entries:
            yield batch
            batch, size = Batch[E](), 0
    if batch.entries:
        yield batch


def _any_of(patterns: Iterable[str]) -> re.Pattern[str] | None:
    """What matches a whole name that one of the shell's ``patterns`` matches; None where there is none."""
    expression = "|".join(map(translate, patterns))
    return re.compile(expression) if expression else None


def _matches(pattern: re.Pattern[str] | None, text: bytes) -> bool:
    return pattern is not None and pattern.match(text.decode("utf-8", "surrogateescape")) is not None


def _open_root(root: Path) -> Beneath:
    try:
        return Beneath(root)
    except FileNotFoundError:
        raise NotFoundError(
            f"media directory does not exist: {root}", hint="Correct media in archiver.toml, or mount its volume."
        ) from None
    except OSError as error:
        raise SourceError(f"media directory {explain(error)}: {root}") from error


def _special(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "a named pipe"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"
