"""Pinned, consistent views of an environment: how one is taken beside a live server, or why not.

``locked``: a live process has the environment open in a lock format that the lmdb wheel speaks, so an ordinary read
transaction protects the snapshot. ``cold``: no process has it open; it is read without locks, so that a server can
start at any time, and whether one committed meanwhile is checked afterwards. There is no silent unlocked copy.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import lmdb

from archiver.environment.databases import Database, list_databases
from archiver.environment.freelist import check_not_truncated
from archiver.environment.library import open_reading, translated
from archiver.environment.locks import LOCK_FILE, LockState, inspect_lock, opened_with_locking
from archiver.environment.meta import DATA_FILE, Meta, read_meta, read_metas
from archiver.errors import SourceError

Method = Literal["locked", "cold"]

_LOCK_VERSION = 1
_HEED_LOCK_VERSION = 2
_SPARE_DATABASES = 128
"""Named databases that may be created between the reading of the meta page and the pin."""
_ATTEMPTS = 100


class SnapshotChangedError(SourceError):
    """A cold environment was opened or written to during the copy: pin again and copy again."""


@dataclass(eq=False, slots=True)
class Snapshot:
    """One environment as of transaction ``txnid``; sizes are bytes. May be copied from any thread, once at a time."""

    name: str
    directory: Path
    method: Method
    pinned: datetime
    meta: Meta
    databases: tuple[Database, ...]
    used_pages: int
    """The two meta pages and the pages of all databases: what a compact copy holds."""
    _environment: lmdb.Environment = field(repr=False)
    _transaction: "lmdb.Transaction[memoryview]" = field(repr=False)
    _resources: ExitStack = field(repr=False)

    @property
    def txnid(self) -> int:
        return self.meta.txnid

    @property
    def page_size(self) -> int:
        return self.meta.page_size

    @property
    def map_size(self) -> int:
        return self.meta.map_size

    @property
    def last_page(self) -> int:
        return self.meta.last_page

    @property
    def estimated_copy_size(self) -> int:
        """Bytes of a compact copy, for progress; what the copy really has is known at its end."""
        return self.used_pages * self.page_size

    def copy_to(self, descriptor: int) -> None:
        """Write a compact copy to ``descriptor``: no free pages, pages renumbered, txnid 1.

        Raises ``SourceError`` when LMDB cannot copy, its reader having gone away included.
        """
        with translated(self.directory):
            self._environment.copyfd(descriptor, compact=True, txn=self._transaction)

    def confirm(self) -> None:
        """Call after the copy has ended: raises ``SnapshotChangedError`` unless the copy is that of this very snapshot.

        A locked snapshot is protected by its reader slot. A cold one is confirmed when nobody has committed, or even
        opened the environment, since it was pinned.
        """
        if self.method == "locked":
            return
        state = inspect_lock(self.directory)
        txnid = read_meta(self.directory / DATA_FILE).txnid
        if state.live or txnid != self.txnid:
            raise SnapshotChangedError(
                f"{self.directory} was opened by another process while it was copied without locks: "
                f"expected transaction {self.txnid} and no process, got {txnid}"
                + (f" and {state.holder_text}" if state.live else ""),
                hint="Run the backup again.",
            )

    def release(self) -> None:
        """Give the snapshot up, so that the server may reuse its pages; it cannot be copied afterwards."""
        self._resources.close()


def choose_method(state: LockState, directory: Path) -> Method:
    """How to pin an environment whose lock file is in ``state``; raises ``SourceError`` when no way is safe."""
    if not state.live:
        return "cold"
    if state.version == _HEED_LOCK_VERSION:
        raise SourceError(
            f"cannot pin {directory}: {state.holder_text} has it open in the lock format of heed (version 2), "
            "and hot backups of that are not supported yet",
            hint="Stop the server for the time of the backup.",
        )
    if state.version != _LOCK_VERSION:
        found = "none" if state.format_word is None else f"{state.format_word:#x}"
        raise SourceError(
            f"cannot pin {directory}: {state.holder_text} has it open in an unknown lock format: "
            f"expected version {_LOCK_VERSION}, got {found}",
            hint="Stop the process that has the environment open, and back it up cold.",
        )
    if not state.writable:
        raise SourceError(
            f"cannot pin {directory}: {state.holder_text} has it open, and {LOCK_FILE} cannot be written to, "
            "so that the process would not respect a reader",
            hint=f"Mount the volume read-write and let the user that runs archiver write {LOCK_FILE}.",
        )
    return "locked"


@contextmanager
def pin(directory: Path, *, name: str) -> Iterator[Snapshot]:
    """Pin the environment in ``directory`` for the block, or until the snapshot is released.

    Raises ``NotFoundError`` without a data.mdb, ``FormatError`` when it is corrupt or truncated, ``BusyError`` when
    the reader table is full, and ``SourceError`` when no safe way to read it exists; the message says why.
    """
    data = directory / DATA_FILE
    expected = read_meta(data).main.entries + _SPARE_DATABASES
    method = choose_method(inspect_lock(directory), directory)
    with ExitStack() as resources:
        if method == "locked":
            resources.enter_context(opened_with_locking(directory))
        environment = resources.enter_context(open_reading(directory, lock=method == "locked", databases=expected))
        transaction, meta = _begin(environment, data)
        resources.callback(transaction.abort)
        pinned = datetime.now(UTC)
        check_not_truncated(data, meta)
        databases, pages = list_databases(environment, transaction, meta.main, directory)
        yield Snapshot(name, directory, method, pinned, meta, databases, 2 + pages, environment, transaction, resources)


def _begin(environment: lmdb.Environment, data: Path) -> "tuple[lmdb.Transaction[memoryview], Meta]":
    """A read transaction and the meta page of its commit, which only lasts until the second commit after it."""
    for _ in range(_ATTEMPTS):
        with translated(data.parent):
            transaction = environment.begin(buffers=True)
        for meta in read_metas(data):
            if meta.txnid == transaction.id():
                return transaction, meta
        transaction.abort()
    raise SourceError(f"cannot pin {data.parent}: it is committed to faster than its meta pages can be read")
