"""What is to be known of an environment before a backup: the facts behind ``archiver doctor``."""

import os
import stat
from pathlib import Path
from typing import Literal

import msgspec

from archiver.config import PinLimits
from archiver.environment.freelist import reusable_pages
from archiver.environment.headroom import Gauge, Room
from archiver.environment.lockfile import Reader
from archiver.environment.locks import LOCK_FILE, OWN_NUMBERS, LockState, inspect_lock
from archiver.environment.messages import Declared, Method
from archiver.environment.meta import DATA_FILE, Meta, read_meta
from archiver.environment.processes import Process, find_process, lock_owners
from archiver.environment.snapshot import Snapshot, pin
from archiver.errors import ArchiverError, BusyError, FormatError, SourceError

ReaderState = Literal["live", "archiver", "stale"]
_DEFAULT_LIMITS = PinLimits()
_ALL = 2**64
"""Greater than every txnid."""
_ATTEMPTS = 5


class FileAccess(msgspec.Struct, frozen=True):
    """Whose a file is, and its permission bits."""

    uid: int
    gid: int
    mode: int

    @staticmethod
    def of(path: Path) -> "FileAccess | None":
        """That of the file at ``path``; None when there is none."""
        try:
            status = path.stat()
        except FileNotFoundError:
            return None
        return FileAccess(status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))

    def may_write(self, uid: int, gid: int) -> bool:
        """Whether a process of user ``uid`` and group ``gid`` may write the file; its other groups are not known."""
        if uid == 0:
            return True
        if uid == self.uid:
            return bool(self.mode & stat.S_IWUSR)
        return bool(self.mode & (stat.S_IWGRP if gid == self.gid else stat.S_IWOTH))


class ReaderReport(msgspec.Struct, frozen=True):
    """A reader slot that is in use."""

    number: int
    """As its owner announced it: a pid in the owner's namespace, or the number of one of archiver's pins."""
    state: ReaderState
    """``archiver`` is a live pin of archiver's, ``stale`` one whose owner is gone, archiver's own included."""
    process: Process | None
    """The owner, where this process can see it."""
    txnid: int | None
    """Of the snapshot that it reads; None when it reads nothing just now."""
    behind: int | None
    """How many transactions were committed since that."""


class Pages(msgspec.Struct, frozen=True):
    """What an environment's pages are used for, as of one commit."""

    used: int
    """The meta pages and those of databases; leaked ones, too."""
    free: int
    """Those in the free list."""
    held: int
    """Those of the free ones that the oldest reader keeps from being used again."""
    room: Room


class EnvironmentReport(msgspec.Struct, frozen=True):
    """The state of one environment; sizes are bytes."""

    directory: Path
    file_size: int
    meta: Meta
    pages: Pages | None
    """None when a live server commits too fast for them to be counted without a pin."""
    leaked_pages: int | None
    """Neither in use nor free: LMDB refuses to make a compact copy. None when that cannot be told."""
    lock: LockState
    reader_slots: int
    """The size of the reader table; 0 when its layout is not known."""
    readers: tuple[ReaderReport, ...]
    """Empty when no process is live: what a lock file then says has no meaning."""
    processes: tuple[Process, ...]
    """The live processes that this process can see; without its own and archiver's pins."""
    data_access: FileAccess
    lock_access: FileAccess | None
    way: Method | ArchiverError
    """How a backup would be taken now, or why it would be refused."""

    @property
    def copy_size(self) -> int:
        """About how many bytes a compact copy has."""
        return self.meta.page_size * (self.meta.last_page + 1 if self.pages is None else self.pages.used)

    @property
    def fullness(self) -> float:
        """The part of the map that is taken, free pages included, from 0 to 1 (or above, until the map is raised)."""
        return self.meta.size / self.meta.map_size

    @property
    def may_start(self) -> bool:
        """Whether a server of the user who has data.mdb may write to the lock file, as it must to start."""
        data, lock = self.data_access, self.lock_access
        return lock is None or lock.may_write(data.uid, data.gid)

    @property
    def elsewhere(self) -> tuple[int, ...]:
        """Pids of live processes that cannot be seen from here, each in its own pid namespace."""
        return tuple(
            number for number in self.lock.numbers if number not in self.lock.pids and number not in OWN_NUMBERS
        )


def inspect(
    directory: Path,
    *,
    limits: PinLimits = _DEFAULT_LIMITS,
    declared: Declared | None = None,
    max_size: int | None = None,
) -> EnvironmentReport:
    """Look at the environment in ``directory``, taking and at once releasing a pin if that can be done.

    ``declared`` is how the configuration wants it read; what is ``external`` is not pinned. ``max_size`` is the map
    size in bytes that its server opens it with, if known. Raises ``NotFoundError`` without a data.mdb, ``FormatError``
    for a corrupt one, and ``SourceError`` when it cannot be read at all.
    """
    try:
        return _inspect(directory, limits, declared, max_size)
    except FormatError:
        # A server that starts just now changes what is being read without locks: real damage is there again.
        return _inspect(directory, limits, declared, max_size)


def _inspect(directory: Path, limits: PinLimits, declared: Declared | None, max_size: int | None) -> EnvironmentReport:
    data = directory / DATA_FILE
    meta = read_meta(data)
    lock = inspect_lock(directory)
    oldest = _oldest(lock)
    way: Method | ArchiverError
    leaked: int | None = None
    if declared == "external":
        way, pages = declared, _pages_without_pin(data, oldest, max_size)
    else:
        try:
            with pin(directory, name="inspection", limits=limits, declared=declared, max_size=max_size) as snapshot:
                meta, way = snapshot.meta, snapshot.method
                pages = _pages(data, meta, oldest, max_size)
                leaked = _leaked(snapshot, pages.used)
        except (SourceError, BusyError) as error:
            way, pages = error, _pages_without_pin(data, oldest, max_size)
    data_status = data.stat()
    return EnvironmentReport(
        directory=directory,
        file_size=data_status.st_size,
        meta=meta,
        pages=pages,
        leaked_pages=leaked,
        lock=lock,
        reader_slots=_reader_slots(directory, lock),
        readers=tuple(_reader(reader, lock, meta.txnid) for reader in lock.readers) if lock.live else (),
        processes=_processes(directory, lock),
        data_access=FileAccess(data_status.st_uid, data_status.st_gid, stat.S_IMODE(data_status.st_mode)),
        lock_access=FileAccess.of(directory / LOCK_FILE),
        way=way,
    )


def _oldest(lock: LockState) -> int | None:
    """The oldest transaction that a reader holds, a dead one included: LMDB, too, respects that until it is cleared."""
    return (
        min((reader.txnid for reader in lock.readers if reader.txnid is not None), default=None) if lock.live else None
    )


def _pages(data: Path, meta: Meta, oldest: int | None, max_size: int | None) -> Pages:
    """Count the pages of ``meta``, which must be protected from later commits (freelist.py)."""
    free = reusable_pages(data, meta, _ALL)
    held = 0 if oldest is None else free - reusable_pages(data, meta, oldest)
    pinned = meta.txnid if oldest is None else min(oldest, meta.txnid)
    used = meta.last_page + 1 - meta.free_list.pages - free
    return Pages(used, free, held, Gauge(data, lambda: pinned, headroom=1, max_size=max_size).measure(1))


def _pages_without_pin(data: Path, oldest: int | None, max_size: int | None) -> Pages | None:
    """As ``_pages``, of the newest commit; None when commits keep coming in between.

    A page that one commit frees is used again by the second commit after it at the earliest, so that one commit may.
    """
    for _ in range(_ATTEMPTS):
        meta = read_meta(data)
        try:
            pages = _pages(data, meta, oldest, max_size)
        except FormatError:
            continue
        if read_meta(data).txnid <= meta.txnid + 1:
            return pages
    return None


def _leaked(snapshot: Snapshot, used: int) -> int | None:
    """Pages that are neither free nor in a tree; LMDB's own counts are wrong for databases with duplicates."""
    if any("dupsort" in database.flags for database in snapshot.databases):
        return None
    return max(0, used - snapshot.used_pages)


def _reader_slots(directory: Path, lock: LockState) -> int:
    if lock.layout is None:
        return 0
    return lock.layout.capacity(os.stat(directory / LOCK_FILE).st_size)


def _reader(reader: Reader, lock: LockState, newest: int) -> ReaderReport:
    state: ReaderState = "live"
    if reader.pid not in lock.numbers:
        state = "stale"
    elif reader.pid in OWN_NUMBERS:
        state = "archiver"
    pid = lock.pids.get(reader.pid)
    behind = None if reader.txnid is None else max(0, newest - reader.txnid)
    return ReaderReport(reader.pid, state, None if pid is None else find_process(pid), reader.txnid, behind)


def _processes(directory: Path, lock: LockState) -> tuple[Process, ...]:
    if not lock.live:
        return ()
    # F_OFD_GETLK tells one of those that hold byte 0; the others are seen once they have read, or in /proc/locks.
    holder = set() if lock.holder is None else {lock.holder}
    pids = holder.union(lock.pids.values(), lock_owners(directory / LOCK_FILE))
    found = (find_process(pid) for pid in sorted(pids))
    return tuple(process for process in found if process is not None)
