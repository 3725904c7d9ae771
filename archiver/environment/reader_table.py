"""The reader table of a live server's ``lock.mdb``, changed as LMDB itself changes it.

The rules that are named here stand in reader.py, which holds the locks under which all of this happens.
"""

import ctypes
import errno
import fcntl
import mmap
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from archiver.environment import lockfile
from archiver.environment.lockfile import IDLE, SLOT_SIZE, Layout
from archiver.environment.locks import OWN_NUMBERS, announced_numbers, first_lock, set_lock
from archiver.errors import BusyError, SourceError

PATIENCE = 5.0
"""Seconds to wait for what takes LMDB microseconds: initialising a lock file, changing its reader table."""

_MOST_SLOTS = 16_000
"""LMDB has 126 unless told otherwise. All are looked at while the server's new readers wait."""


class LockFileChangedError(SourceError):
    """``lock.mdb`` is not what it was when it was inspected, or nobody else has the environment open: look again."""


class Slot(ctypes.Structure):
    """A slot as it lies in the file; every field is read and written as one aligned machine word."""

    _fields_ = (("txnid", ctypes.c_uint64), ("pid", ctypes.c_int32), ("thread", ctypes.c_uint64))


class _TimeSpec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_int64), ("nanoseconds", ctypes.c_int64))


class ReaderTable:
    """The reader table of an open lock file, mapped."""

    def __init__(self, descriptor: int, path: Path) -> None:
        self.path = path
        self._descriptor = descriptor
        status = os.fstat(descriptor)
        self._identity = (status.st_dev, status.st_ino)
        self._layout = _known_layout(os.pread(descriptor, mmap.PAGESIZE, 0), path)
        self._capacity = self._layout.capacity(status.st_size)
        if self._capacity > _MOST_SLOTS:
            raise SourceError(
                f"cannot register as a reader in {path}: its table has {self._capacity:,} slots, "
                f"expected at most {_MOST_SLOTS:,}",
                hint="Open the environment with fewer max_readers in the server.",
            )
        self._map = mmap.mmap(descriptor, status.st_size)
        self._committed = ctypes.c_uint64.from_buffer(self._map, self._layout.committed)
        self._used = ctypes.c_uint32.from_buffer(self._map, self._layout.used)

    @property
    def committed(self) -> int:
        return int(self._committed.value)

    @property
    def in_place(self) -> bool:
        """Whether the path still leads to the file that was opened."""
        try:
            status = self.path.stat()
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._identity

    @property
    def oldest(self) -> int:
        """The least txnid in the table: idle slots show the greatest of all."""
        slots = (self._slot(index) for index in range(self._used_slots()))
        return min((int(slot.txnid) for slot in slots if slot.pid), default=IDLE)

    @property
    def alone(self) -> bool:
        """Whether no process but archivers holds locks: two pins would else wait for each other for ever.

        Another archiver's lock on byte 0 may hide that of a server which has never read. Then this is wrong, and costs
        another attempt: whoever leaves looks afterwards whether a process is live.
        """
        held = first_lock(self._descriptor, 0, 1)
        if held is not None and not held.description:
            return False
        return all(number in OWN_NUMBERS for number in announced_numbers(self._descriptor))

    def unlock(self, number: int) -> None:
        """Give up the lock of ``number`` and that of byte 0."""
        for offset in (number, 0):
            set_lock(self._descriptor, fcntl.F_UNLCK, offset)

    def take(self, number: int) -> Slot:
        """Enter ``number`` with the last committed txnid into a free slot (rules 6 and 7)."""
        if not self.in_place:
            raise LockFileChangedError(f"{self.path} was replaced just now")
        with self._mutex():
            self._clear_stale(only_own=True)
            index = self._free_slot()
            slot = self._slot(index)
            slot.pid = 0
            slot.txnid = IDLE
            slot.thread = threading.get_native_id()
            if index == self._used.value:
                self._used.value = index + 1
            slot.pid = number
            self._follow(slot)
        # Unlocking was a full memory barrier: what was committed before anybody saw the slot is seen now.
        self._follow(slot)
        return slot

    def _follow(self, slot: Slot) -> None:
        """As LMDB does: a commit between reading its txnid and entering it would leave the slot too old or unseen."""
        while slot.txnid != self.committed:
            slot.txnid = self.committed

    def _free_slot(self) -> int:
        used = self._used_slots()
        index = next((index for index in range(used) if self._slot(index).pid == 0), used)
        if index >= self._capacity:
            raise BusyError(
                f"cannot pin {self.path.parent}: all {self._capacity} slots of its reader table are taken",
                hint="Stop readers that are not needed, or raise max_readers where the server opens the environment.",
            )
        return index

    def _used_slots(self) -> int:
        return min(self._used.value, self._capacity)

    def _slot(self, index: int) -> Slot:
        return Slot.from_buffer(self._map, self._layout.slots + index * SLOT_SIZE)

    def _clear_stale(self, *, only_own: bool) -> None:
        """Free the slots of archivers that were killed; of all dead readers where LMDB would do so, too.

        Called before this pin is in the table: a slot with its number is a dead archiver's, too. In a container every
        archiver may have the same pid, and so the same number.
        """
        for index in range(self._used_slots()):
            slot = self._slot(index)
            candidate = slot.pid > 0 and (slot.pid in OWN_NUMBERS or not only_own)
            if candidate and first_lock(self._descriptor, slot.pid, 1) is None:
                slot.pid = 0

    @contextmanager
    def _mutex(self) -> Iterator[None]:
        library = ctypes.CDLL(None)
        mutex = ctypes.byref(ctypes.c_char.from_buffer(self._map, self._layout.mutex))
        deadline = time.time() + PATIENCE
        until = _TimeSpec(int(deadline), int(deadline % 1 * 1e9))
        outcome = library.pthread_mutex_timedlock(mutex, ctypes.byref(until))
        if outcome not in (0, errno.EOWNERDEAD):
            held = f"another process has held it for {PATIENCE:.0f} s"
            reason = held if outcome == errno.ETIMEDOUT else os.strerror(outcome).lower()
            raise BusyError(
                f"cannot lock the reader table of {self.path}: {reason}",
                hint="See whether a process that has the environment open was stopped, and run the backup again.",
            )
        try:
            if outcome == errno.EOWNERDEAD:
                # First of all: unlocked without this, the mutex could never be locked again, by nobody.
                library.pthread_mutex_consistent(mutex)
                self._clear_stale(only_own=False)
            yield
        finally:
            library.pthread_mutex_unlock(mutex)


def _known_layout(data: bytes, path: Path) -> Layout:
    """Looked at again now that byte 0 is held: the file may have been initialised since it was inspected (rule 2)."""
    word = lockfile.format_word(data)
    layout = None if word is None else lockfile.layout(word, os.uname().machine)
    if layout is None or len(data) < layout.slots or not lockfile.made_by_glibc(data, layout):
        raise LockFileChangedError(f"{path} was initialised anew just now")
    return layout
