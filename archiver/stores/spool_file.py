"""The part of a spool that lies on disk: slots of one part each, in a file without a name."""

import errno
import heapq
import os
import tempfile
import zlib
from pathlib import Path

import msgspec

from archiver.buffers import Buffer
from archiver.errors import IntegrityError, StorageError

_NO_UNNAMED_FILES = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)


class Slot(msgspec.Struct, frozen=True):
    """Where a part lies, and what it must be when it is read back."""

    number: int
    size: int
    checksum: int
    """CRC-32. The hash of the object that it belongs to was taken before it came here, so nothing else would notice
    a disk that gives back other bytes before somebody restores them."""

    def __len__(self) -> int:
        return self.size


class SpoolFile:
    """Slots of ``slot_size`` bytes, at most ``limit`` bytes in all, in ``directory``.

    The file has no name and mode 0600, so that nothing is left of it however the process ends. It leaves free at least
    half of what would be free without it, and the share ``reserve`` of the whole file system. It is made when a slot
    is needed, and emptied whenever none is used. ``take`` and ``free`` are called by one thread at a time; ``write``
    and ``read`` of different slots by several at once.
    """

    def __init__(self, directory: Path, *, slot_size: int, limit: int, reserve: float) -> None:
        self._directory = directory
        self._slot_size = slot_size
        self._most = limit // slot_size
        self._reserve = reserve
        self._descriptor: int | None = None
        self._free: list[int] = []
        self._reach = 0

    def take(self, size: int) -> int | None:
        """The number of a slot for a part of ``size`` bytes, which is the caller's until he frees it; None where none
        can be had."""
        if size > self._slot_size:
            return None
        if self._free:
            return heapq.heappop(self._free)
        if self._reach >= self._most:
            return None
        try:
            if self._descriptor is None:
                self._descriptor = _unnamed_file(self._directory)
            if not self._has_room(self._descriptor):
                return None
        except OSError:
            return None
        self._reach += 1
        return self._reach - 1

    def free(self, number: int) -> None:
        """Nobody needs what lies in this slot any more."""
        heapq.heappush(self._free, number)
        if len(self._free) == self._reach:
            self._free.clear()
            self._reach = 0
            if self._descriptor is not None:
                os.ftruncate(self._descriptor, 0)

    def write(self, number: int, part: Buffer) -> Slot | None:
        """Put ``part`` into a slot that the caller has taken; None where the disk does not take it, whatever its
        reason: the caller has the part still."""
        view = memoryview(part)
        offset = number * self._slot_size
        try:
            while view:
                count = os.pwrite(self._opened, view, offset)
                view, offset = view[count:], offset + count
        except OSError:
            return None
        return Slot(number, len(part), zlib.crc32(part))

    def read(self, slot: Slot) -> Buffer:
        """The part in ``slot``; raises ``StorageError`` where it cannot be read, and ``IntegrityError`` where it is not
        what was written."""
        part = memoryview(bytearray(slot.size))
        view = part
        offset = slot.number * self._slot_size
        try:
            while view:
                count = os.preadv(self._opened, [view], offset)
                if not count:
                    break
                view, offset = view[count:], offset + count
        except OSError as error:
            raise StorageError(
                f"cannot read back what waited in {self._directory} for the store: {str(error.strerror).lower()}",
                hint="Look for disk errors in the system's log.",
            ) from error
        if view or zlib.crc32(part) != slot.checksum:
            raise IntegrityError(
                f"what waited in {self._directory} for the store is not what was written there",
                hint="Look for disk errors in the system's log, and run the backup again.",
            )
        return part

    def close(self) -> None:
        """Give the disk back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    @property
    def _opened(self) -> int:
        if self._descriptor is None:
            raise AssertionError("a slot of a spool file is used that was never taken")
        return self._descriptor

    def _has_room(self, descriptor: int) -> bool:
        """Whether the file may grow by a slot."""
        status = os.fstatvfs(descriptor)
        free, total = status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize
        without_us = free + self._reach * self._slot_size
        return free - self._slot_size >= max(without_us / 2, total * self._reserve)


def _unnamed_file(directory: Path) -> int:
    try:
        return os.open(directory, os.O_TMPFILE | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in _NO_UNNAMED_FILES:
            raise
    descriptor, name = tempfile.mkstemp(prefix="spool-", dir=directory)
    os.unlink(name)
    return descriptor
