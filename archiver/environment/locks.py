"""Who has an environment open: told from ``lock.mdb`` without disturbing anyone.

Every process that has an environment open with locking holds a shared fcntl lock on byte 0 of ``lock.mdb``, and from
its first read transaction on an exclusive one on the byte at the offset of its pid (LMDB's mdb.c,
``mdb_env_setup_locks``, ``mdb_reader_pid``). ``F_OFD_GETLK`` asks which lock a write lock would meet; it takes none and
needs no write access. archiver itself only ever takes open-file-description locks: unlike the classic ones, they are
not lost when this process closes another descriptor of the file. A process that opened the environment with MDB_NOLOCK
is invisible to LMDB itself and to this module. Linux, 64-bit.
"""

import fcntl
import os
import stat
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from archiver.environment import lockfile
from archiver.environment.lockfile import Layout, Reader
from archiver.errors import SourceError

LOCK_FILE = "lock.mdb"
OWN_NUMBERS = range(0x41000000, 0x41000000 + (1 << 22))
"""What archiver's pins announce in place of a pid. Linux hands out no pid from 2^22 on (PID_MAX_LIMIT), so such a
number is never that of a server, in whatever pid namespace, and shows whose pin it is."""

_FLOCK = struct.Struct("@hhqqi4x")
"""``struct flock``: type, whence, start, length (0 = to the end), pid."""
_LONGEST_FILE = 1 << 20
"""Bytes of a lock file that are looked at: 16,000 readers."""
_OF_DESCRIPTION = -1
"""The pid that the system tells for an open-file-description lock; 0 is a process of another pid namespace."""
_MOST_LOCKS = 20_000
"""More than an environment has readers by far; to tell one, the system searches them all."""
_END = 1 << 31
"""Where the bytes of pids end."""


class Held(msgspec.Struct, frozen=True):
    """A lock that a live process holds on ``lock.mdb``."""

    start: int
    length: int
    """0 is to the end of the file."""
    pid: int | None
    """The holder; None when the system does not tell (another pid namespace, an open-file-description lock)."""
    description: bool
    """Whether it is an open-file-description lock: only archiver takes such."""


class LockState(msgspec.Struct, frozen=True):
    """What ``lock.mdb`` says; all fields are at rest when there is no such file."""

    present: bool = False
    format_word: int | None = None
    """The lock file's format: its low 12 bits are the version, the rest depends on the build; None if not LMDB's."""
    live: bool = False
    """Whether a process has the environment open with locking."""
    holder: int | None = None
    """Pid of one such process; None when the system does not tell."""
    writable: bool = False
    """Whether this process may write to the lock file, as it must to register as a reader."""
    layout: Layout | None = None
    """None for a format, or on a machine, that archiver does not know."""
    glibc: bool = False
    """Whether its mutexes were made by glibc."""
    readers: tuple[Reader, ...] = ()
    numbers: tuple[int, ...] = ()
    """What the live processes that have read announce: their pids, each in its own namespace, and archiver's pins."""
    pids: Mapping[int, int] = msgspec.field(default_factory=dict)
    """For each number whose process this process can see: its pid, which another namespace may number differently."""

    @property
    def version(self) -> int | None:
        """1 is released LMDB 0.9, 2 is its branch mdb.master, which heed uses, and LMDB 1.0."""
        return None if self.format_word is None else lockfile.version(self.format_word)

    @property
    def holder_text(self) -> str:
        """The live process in the words of a message."""
        if self.holder is None and self.numbers and all(number in OWN_NUMBERS for number in self.numbers):
            return "another archiver"
        return "a live process" if self.holder is None else f"a live process (pid {self.holder})"

    @property
    def stale(self) -> tuple[Reader, ...]:
        """Slots whose owner is gone: they keep pages from being used again, as live readers do."""
        return tuple(reader for reader in self.readers if reader.pid not in self.numbers)


def inspect_lock(directory: Path) -> LockState:
    """The state of ``lock.mdb`` in ``directory``; raises ``SourceError`` when it cannot be read.

    Closing the descriptor would drop the classic locks of a process that has the environment open with locking, so
    nothing in archiver ever does that.
    """
    path = directory / LOCK_FILE
    try:
        descriptor, writable = _open(path)
    except FileNotFoundError:
        return LockState()
    except OSError as error:
        raise SourceError(
            f"cannot tell whether {directory} is in use: cannot open {LOCK_FILE}: {str(error.strerror).lower()}",
            hint=f"Let the user that runs archiver read and write {path}.",
        ) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise SourceError(f"cannot tell whether {directory} is in use: {LOCK_FILE} is not a regular file")
        content = os.pread(descriptor, _LONGEST_FILE, 0)
        return _state(content, first_lock(descriptor), announced_numbers(descriptor), writable)
    except OSError as error:
        raise SourceError(
            f"cannot tell whether {directory} is in use: {LOCK_FILE}: {str(error.strerror).lower()}"
        ) from error
    finally:
        os.close(descriptor)


def first_lock(descriptor: int, start: int = 0, length: int = 0) -> Held | None:
    """Any lock that others hold on ``length`` bytes from ``start`` on; those of ``descriptor`` itself do not count."""
    answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, length, 0))
    kind, _, found, size, pid = _FLOCK.unpack(answer)
    return None if kind == fcntl.F_UNLCK else Held(found, size, pid if pid > 0 else None, pid == _OF_DESCRIPTION)


def set_lock(descriptor: int, kind: int, offset: int) -> bool:
    """Take (F_RDLCK, F_WRLCK) or give back (F_UNLCK) the lock of one byte; False when another process is in the way.

    The lock belongs to the open file description: it ends when the last descriptor of that is closed, at the latest
    with the process.
    """
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, offset, 1, 0))
    except BlockingIOError:
        return False
    return True


def _state(data: bytes, held: Held | None, announced: Mapping[int, int | None], writable: bool) -> LockState:
    word = lockfile.format_word(data)
    layout = None if word is None else lockfile.layout(word, os.uname().machine)
    return LockState(
        present=True,
        format_word=word,
        live=held is not None,
        holder=None if held is None else held.pid,
        writable=writable,
        layout=layout,
        glibc=layout is not None and lockfile.made_by_glibc(data, layout),
        readers=() if layout is None else lockfile.readers(data, layout),
        numbers=tuple(sorted(announced)),
        pids={number: pid for number, pid in announced.items() if pid is not None},
    )


def announced_numbers(descriptor: int) -> dict[int, int | None]:
    """The numbers that live processes announce, with the holder of each lock; ``SourceError`` for too many."""
    return {held.start: held.pid for held in _locks(descriptor, 1, _END) if held.length == 1}


def _locks(descriptor: int, start: int, end: int) -> Iterator[Held]:
    """Every lock on bytes ``start`` to ``end``: the system tells one at a time, so ask again on both sides of it."""
    ranges = [(start, end)]
    found = 0
    while ranges:
        start, end = ranges.pop()
        held = first_lock(descriptor, start, end - start) if start < end else None
        if held is not None:
            found += 1
            if found > _MOST_LOCKS:
                raise SourceError(f"too many locks on {LOCK_FILE}: expected at most {_MOST_LOCKS:,}, got more")
            yield held
            ranges.append((start, held.start))
            if held.length:
                ranges.append((held.start + held.length, end))


def _open(path: Path) -> tuple[int, bool]:
    # A pipe or a device in its place must not keep the opening waiting for ever.
    flags = os.O_NONBLOCK | os.O_NOCTTY
    try:
        return os.open(path, os.O_RDWR | flags), True
    except FileNotFoundError:
        raise
    except OSError:
        # No permission, a read-only mount: the state can be told all the same.
        return os.open(path, os.O_RDONLY | flags), False
