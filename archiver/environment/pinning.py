"""Pinned, consistent views of an environment: how one is taken beside a live server, or why not.

``locked``: a live process has the environment open, and a slot in its reader table protects the snapshot (reader.py).
``cold``: no process has it open; it is read without any lock, so that a server can start at any time, and whether one
did is looked at meanwhile and afterwards. ``frozen`` and ``external``: the configuration says that this is a snapshot
of a file system, or it is a copy that a command made; read like a cold one. There is no silent unlocked copy.

Runs in a helper process (helper.py): liblmdb can crash on a damaged file.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import lmdb
import msgspec

from archiver.environment.databases import Database, find_trees, longest_value, summary
from archiver.environment.freelist import check_not_truncated
from archiver.environment.library import open_reading, translated
from archiver.environment.locks import LOCK_FILE, LockState, inspect_lock
from archiver.environment.messages import Declared, Method
from archiver.environment.meta import DATA_FILE, Meta, read_meta, read_metas
from archiver.environment.reader import ReaderSlot, registered
from archiver.environment.reader_table import LockFileChangedError
from archiver.errors import BusyError, SnapshotChangedError, SourceError
from archiver.filesystem import Identity, identity

_SPARE_DATABASES = 128
"""Named databases that may be created between the reading of the meta page and the pin."""
_ATTEMPTS = 100
_PATIENCE = 5.0
"""Seconds to wait for a moment at which the newest commit is announced: a commit may wait for its disk."""
_OTHER_WAYS = "Stop the server for the time of the backup, or let a command of its own copy it (docs/HOT-BACKUP.md)."


class PinnedEnvironment(msgspec.Struct, eq=False):
    """One environment as of one transaction, in the process that pinned it. May be copied from any thread, once."""

    directory: Path
    method: Method
    pinned: datetime
    meta: Meta
    protected_from: int | None
    """The oldest transaction that the server keeps whole for us; None when there is no server."""
    _environment: lmdb.Environment
    _transaction: "lmdb.Transaction[memoryview]"
    _slot: ReaderSlot | None
    _file: Identity
    """The data.mdb that was opened."""
    _newest: int
    """The newest transaction so far: there must never be an older one, and without protection no newer one."""
    _written: int | None = None
    """When data.mdb was last written to before ``leave``, in nanoseconds: it must not be any more."""

    @property
    def oldest_reader(self) -> int:
        """The oldest transaction that any reader of a live server's environment holds: this snapshot's or older."""
        return self.meta.txnid if self._slot is None else self._slot.oldest

    def list_databases(self) -> tuple[tuple[Database, ...], int, int]:
        """Its databases, the pages that a compact copy holds (all of theirs and two meta pages), and the bytes that
        the longest value takes in a row, as far as that can be told quickly (``longest_value``).

        Raises ``FormatError`` for a truncated file, before LMDB touches a page that is not there.
        """
        check_not_truncated(self.directory / DATA_FILE, self.meta)
        environment, transaction, page_size = self._environment, self._transaction, self.meta.page_size
        trees = find_trees(environment, transaction, self.meta.main, self.directory)
        databases, pages = summary(trees)
        longest = longest_value(environment, transaction, trees, page_size, self.directory)
        return databases, 2 + pages, longest * page_size

    def copy_to(self, descriptor: int) -> None:
        """Write a compact copy to ``descriptor``: no free pages, pages renumbered, txnid 1.

        Raises ``SourceError`` when LMDB cannot copy, its reader having gone away included. It proves nothing unless
        ``confirm`` passes afterwards.
        """
        with translated(self.directory):
            self._environment.copyfd(descriptor, compact=True, txn=self._transaction)

    def confirm(self) -> None:
        """Raise ``SnapshotChangedError`` unless what was read until now is of this very snapshot.

        A locked snapshot is, as long as its reader slot has held and nobody has put another file, or other content, in
        the place of data.mdb. Any other is when nobody has committed, or even opened the environment, since it was
        pinned; so is a locked one after ``leave``.
        """
        if self._slot is not None and not self._slot.released:
            self._slot.check()
            self._check_in_place()
            return
        state = inspect_lock(self.directory)
        txnid = read_meta(self.directory / DATA_FILE).txnid
        if state.live or txnid != self._newest or self._written not in (None, _last_write(self.directory)):
            raise SnapshotChangedError(
                f"{self.directory} was opened by another process while it was copied without locks: "
                f"expected transaction {self._newest} and no process, got {txnid}"
                + (f" and {state.holder_text}" if state.live else ""),
                hint="Run the backup again.",
            )

    def _check_in_place(self) -> None:
        data = self.directory / DATA_FILE
        newest = read_meta(data).txnid
        if identity(data.stat()) != self._file or newest < self._newest:
            raise SnapshotChangedError(
                f"{data} was replaced while it was pinned: expected transaction {self._newest} or a later one of the "
                f"same file, got {newest}",
                hint="Never put files in place while a backup runs; run the backup again.",
            )
        self._newest = newest

    @property
    def alone(self) -> bool:
        """Whether a server that had the environment open has gone."""
        return self._slot is not None and self._slot.alone

    def leave(self) -> None:
        """Go on without the reader slot when the server has gone: nothing may keep another server from starting."""
        if self._slot is not None:
            self._slot.check()
            # All commits until now have respected the slot; from now on there must be none. Not even one that is
            # killed half-way: other than beside a cold snapshot, which is the newest, it may use our pages again.
            self._written = _last_write(self.directory)
            self._check_in_place()
            self._slot.leave()

    def release(self) -> None:
        """Let the server use the snapshot's pages again; what is read from now on is worth nothing."""
        if self._slot is not None:
            self._slot.release()


def choose_method(state: LockState, directory: Path) -> Method:
    """How to pin an environment whose lock file is in ``state``; raises ``SourceError`` when no way is safe."""
    if not state.live:
        return "cold"
    if state.layout is None:
        found = "none" if state.format_word is None else f"{state.format_word:#x}"
        raise SourceError(
            f"cannot pin {directory}: {state.holder_text} has it open in an unknown lock format: "
            f"expected that of LMDB 0.9 or of heed on this machine, got {found}",
            hint=_OTHER_WAYS,
        )
    if not state.glibc or not _runs_on_glibc():
        whose = "archiver" if state.glibc else "it"
        raise SourceError(
            f"cannot pin {directory}: {state.holder_text} has it open, and {whose} does not run on glibc, so that "
            "they cannot share a mutex",
            hint="Run archiver and the server on glibc, for example in images of the same Debian release, "
            "or let a command of the server's own image copy it (docs/HOT-BACKUP.md).",
        )
    if not state.writable:
        raise SourceError(
            f"cannot pin {directory}: {state.holder_text} has it open, and {LOCK_FILE} cannot be written to, "
            "so that the process would not respect a reader",
            hint=f"Mount the volume read-write and let the user that runs archiver write {LOCK_FILE}.",
        )
    return "locked"


@contextmanager
def pinned(
    directory: Path, declared: Declared | None, protect: Callable[[ReaderSlot], None] | None = None
) -> Iterator[PinnedEnvironment]:
    """Pin the environment in ``directory`` for the block, or until it is released.

    ``protect`` gets the reader slot, if there is one, as soon as it is taken, to release it whatever happens.

    Raises ``NotFoundError`` without a data.mdb, ``FormatError`` when it is corrupt, ``BusyError`` when the reader table
    is full or what is declared a snapshot is live, and ``SourceError`` when no safe way to read it exists; the message
    says why.
    """
    data = directory / DATA_FILE
    expected = read_meta(data).main.entries + _SPARE_DATABASES
    with ExitStack() as resources:
        method, slot = _protect(directory, declared, resources)
        if slot is not None and protect is not None:
            protect(slot)
        file = identity(data.stat())
        environment = resources.enter_context(open_reading(directory, databases=expected))
        transaction, meta = _begin(environment, data, slot)
        resources.callback(transaction.abort)
        now = datetime.now(UTC)
        protected_from = None if slot is None else slot.txnid
        yield PinnedEnvironment(
            directory, method, now, meta, protected_from, environment, transaction, slot, file, meta.txnid
        )


def _protect(directory: Path, declared: Declared | None, resources: ExitStack) -> tuple[Method, ReaderSlot | None]:
    """The method, and for ``locked`` a reader slot that is older than any snapshot taken from now on."""
    for attempt in range(_ATTEMPTS):
        state = inspect_lock(directory)
        if declared is not None:
            _refuse_live(state, directory, declared)
            return declared, None
        if choose_method(state, directory) == "cold":
            return "cold", None
        try:
            return "locked", resources.enter_context(registered(directory))
        except LockFileChangedError:
            # A server is starting or stopping just now.
            time.sleep(0.001 * attempt)
    raise BusyError(
        f"cannot pin {directory}: its {LOCK_FILE} kept changing while it was looked at",
        hint="See whether the server keeps starting anew, and run the backup again.",
    )


def _last_write(directory: Path) -> int:
    return (directory / DATA_FILE).stat().st_mtime_ns


def _refuse_live(state: LockState, directory: Path, declared: Declared) -> None:
    if state.live:
        raise BusyError(
            f"cannot pin {directory}: it is declared {declared}, but {state.holder_text} has it open",
            hint="Give the path of the snapshot, not of the live environment.",
        )


def _runs_on_glibc() -> bool:
    try:
        return bool(os.confstr("CS_GNU_LIBC_VERSION"))
    except (ValueError, OSError):
        return False


def _begin(
    environment: lmdb.Environment, data: Path, slot: ReaderSlot | None
) -> "tuple[lmdb.Transaction[memoryview], Meta]":
    """A read transaction and the meta page of its commit, which only lasts until the second commit after it.

    Beside a server only a commit that it has announced counts: until then it may still take it back, when its disk
    fails, and give its number and its pages to another. One that nobody announces for long stands all the same: its
    server was killed just before, and a lock file that others hold is not initialised anew.
    """
    deadline = time.monotonic() + _PATIENCE
    while True:
        late = time.monotonic() > deadline
        with translated(data.parent):
            transaction = environment.begin(buffers=True)
        txnid = transaction.id()
        meta = next((meta for meta in read_metas(data) if meta.txnid == txnid), None)
        if slot is not None and txnid < slot.txnid:
            raise SnapshotChangedError(f"{data} is older than its {LOCK_FILE} says: {txnid} and {slot.txnid}")
        # The second commit after it may be half written to that page. It is not while the first is not announced.
        if meta is not None and (slot is None or slot.committed == txnid or (late and slot.committed < txnid)):
            return transaction, meta
        transaction.abort()
        if late:
            raise BusyError(
                f"cannot pin {data.parent}: for {_PATIENCE:.0f} s no commit of its server was seen to be complete",
                hint="See whether the server's disk is stuck, and run the backup again.",
            )
        time.sleep(0.0005)
