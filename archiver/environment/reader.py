"""The reader pin: a slot in the reader table of a live server's ``lock.mdb``, taken without opening its environment.

Why it exists. A reader that is not in the table is not protected: the server uses the pages of its snapshot again. But
LMDB can only enter a reader by opening the environment with locking, and a library whose lock version is not the
server's either refuses (the lmdb wheel beside heed) or, being first, keeps the server from starting. So archiver enters
itself, and reads with MDB_NOLOCK under the slot. A page that transaction N freed is used again only when no slot shows
an older snapshot than N, so every snapshot at or after the slot's txnid is whole.

The rules, each with what it prevents:

1. Nothing is touched before a lock on byte 0 is held and somebody else holds one, too. A server that starts alone takes
   byte 0 exclusively and initialises the table: with our lock there and nobody else, it would find a table that nobody
   has initialised. Our lock is shared, as every LMDB process's is, and never queued for.
2. Only formats and mutexes that are known (lockfile.py) are touched. Writing to another place would ruin a live server.
3. Locks are open-file-description locks. Classic ones are lost when any descriptor of the file is closed.
4. The number in the slot is not this process's pid but one that no process can have. The table tells processes apart by
   pid alone: a server in another container with the same pid would take our slot for its own and clear it when it
   closes, and ours could keep it from locking the byte of its pid, so that its first read would fail.
5. The byte at that number is locked before the number is in the table. An LMDB that checks for stale readers asks for
   this lock: it must find it as long as we live, and it is gone when we are, however we end.
6. The table changes under its mutex only, which is held for some microseconds and waited for at most seconds. It is
   robust: if its owner died, LMDB's own recovery is done here, because the system reports that to one process only.
7. Fields are written in LMDB's order and as whole words: first a free slot that reads nothing, then the number, then
   the txnid. Other processes look at the table without its mutex, at any moment.
8. When every other process has gone, the pin does not keep a server of another LMDB out: after a moment ``leave`` gives
   up all locks. Until then a server that only starts anew finds the pin in place.
   Replacing data.mdb is noticed by whoever holds the pin (pinning.py), who then leaves at once: a server that joins a
   lock file of the old data.mdb takes its last txnid for the new one's, and can begin at the wrong meta page.
9. A slot that is lost, or a lock file that was replaced, is noticed: ``check`` raises, and the copy counts for nothing.
"""

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from archiver.environment.lockfile import IDLE
from archiver.environment.locks import LOCK_FILE, OWN_NUMBERS, first_lock, set_lock
from archiver.environment.reader_table import PATIENCE, LockFileChangedError, ReaderTable
from archiver.errors import BusyError, SnapshotChangedError, SourceError


class ReaderSlot:
    """A slot of the reader table, ours until ``release``. ``check`` and ``release`` may be called from any thread."""

    def __init__(self, table: ReaderTable, number: int) -> None:
        self.number = number
        self._table = table
        self._slot = table.take(number)
        self._lock = threading.Lock()
        self.released = False

    @property
    def txnid(self) -> int:
        """Every snapshot from this transaction on is protected."""
        return int(self._slot.txnid)

    @property
    def committed(self) -> int:
        """The last transaction of which the server says that it is committed; it says so before it begins the next."""
        return self._table.committed

    @property
    def oldest(self) -> int:
        """The oldest transaction that any reader of the environment holds, this one included."""
        return self._table.oldest

    @property
    def alone(self) -> bool:
        """Whether nobody else has the environment open any more."""
        return self._table.alone

    def check(self) -> None:
        """Raise ``SnapshotChangedError`` unless the pin has held until now."""
        if self._slot.pid != self.number or self._slot.txnid == IDLE or not self._table.in_place:
            raise SnapshotChangedError(
                f"the pin on {self._table.path.parent} was lost: its {LOCK_FILE} was deleted or replaced, "
                "or its reader slot cleared, while a process had it open",
                hint=f"Never delete {LOCK_FILE} while a process has the environment open.",
            )

    def release(self) -> None:
        """Let the server use the snapshot's pages again. May be repeated."""
        with self._lock:
            # A slot that is no longer ours may be somebody else's by now.
            if not self.released and self._slot.pid == self.number:
                self._slot.txnid = IDLE
                self._slot.pid = 0
            self.released = True

    def leave(self) -> None:
        """Release, and give up the locks as well, so that the next process may initialise the table (rule 8)."""
        self.release()
        self._table.unlock(self.number)


@contextmanager
def registered(directory: Path) -> Iterator[ReaderSlot]:
    """Hold a reader slot in the ``lock.mdb`` of ``directory`` for the block.

    Raises ``LockFileChangedError`` when it is worth while to inspect the file again, ``BusyError`` when the table is
    full or another process keeps it locked, and ``SourceError`` for a file that cannot be written to.
    """
    path = directory / LOCK_FILE
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        raise LockFileChangedError(f"{path} does not exist any more") from None
    except OSError as error:
        raise SourceError(
            f"cannot register as a reader in {path}: {str(error.strerror).lower()}",
            hint=f"Mount the volume read-write and let the user that runs archiver write {LOCK_FILE}.",
        ) from error
    with ExitStack() as resources:
        resources.callback(os.close, descriptor)
        try:
            slot = resources.enter_context(_taken(descriptor, path))
        except OSError as error:
            raise SourceError(
                f"cannot register as a reader in {path}: {str(error.strerror).lower()}",
                hint="The file system must offer fcntl locks and shared mappings, as LMDB itself needs them.",
            ) from error
        yield slot


@contextmanager
def _taken(descriptor: int, path: Path) -> Iterator[ReaderSlot]:
    with _byte_zero(descriptor, path), _own_number(descriptor, path) as number:
        slot = ReaderSlot(ReaderTable(descriptor, path), number)
        try:
            yield slot
        finally:
            slot.release()


@contextmanager
def _byte_zero(descriptor: int, path: Path) -> Iterator[None]:
    """Take part in the environment as every LMDB process does (rule 1)."""
    deadline = time.monotonic() + PATIENCE
    # Before the lock as well: a lock beside nobody, if only until it is noticed, would meet a server that starts.
    _require_holder(descriptor, path)
    while not set_lock(descriptor, fcntl.F_RDLCK, 0):
        if time.monotonic() > deadline:
            raise BusyError(
                f"a process has been initialising {path} for {PATIENCE:.0f} s",
                hint="See whether the server has started properly, and run the backup again.",
            )
        time.sleep(0.001)
        _require_holder(descriptor, path)
    try:
        _require_holder(descriptor, path)
        yield
    finally:
        set_lock(descriptor, fcntl.F_UNLCK, 0)


def _require_holder(descriptor: int, path: Path) -> None:
    if first_lock(descriptor) is None:
        raise LockFileChangedError(f"no process has {path.parent} open any more")


@contextmanager
def _own_number(descriptor: int, path: Path) -> Iterator[int]:
    """A number that no other pin on this file uses, with its byte locked (rules 4 and 5)."""
    first = os.getpid() % len(OWN_NUMBERS)
    for step in range(1000):
        number = OWN_NUMBERS[(first + step) % len(OWN_NUMBERS)]
        if set_lock(descriptor, fcntl.F_WRLCK, number):
            break
    else:
        raise BusyError(f"a thousand archivers have pinned {path.parent}")
    try:
        yield number
    finally:
        set_lock(descriptor, fcntl.F_UNLCK, number)
