"""Who has an environment open: told from ``lock.mdb`` without disturbing anyone.

Every process that has an environment open with locking holds a shared fcntl lock on byte 0 of ``lock.mdb`` and an
exclusive one on the byte at the offset of its pid (LMDB's mdb.c, ``mdb_env_setup_locks``, ``mdb_reader_pid``).
``F_OFD_GETLK`` asks which lock a write lock over the whole file would meet; it takes none and needs no write access.
A process that opened the environment with MDB_NOLOCK is invisible to LMDB itself and to this module. Linux, 64-bit.
"""

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from archiver.errors import SourceError

LOCK_FILE = "lock.mdb"

_MAGIC = 0xBEEFC0DE
_HEADER = struct.Struct("=II")
_VERSION_BITS = 0xFFF
_FLOCK = struct.Struct("@hhqqi4x")
"""``struct flock``: type, whence, start, length (0 = to the end), pid."""

_opened_here: set[tuple[int, int]] = set()


@dataclass(frozen=True, slots=True)
class LockState:
    """What ``lock.mdb`` says; all fields are at rest when there is no such file."""

    present: bool = False
    format_word: int | None = None
    """The lock file's format: its low 12 bits are the version, the rest depends on the build; None if not LMDB's."""
    live: bool = False
    """Whether a process has the environment open with locking."""
    holder: int | None = None
    """Pid of one such process; None when the system does not tell (another pid namespace, open-file locks)."""
    writable: bool = False
    """Whether this process may write to the lock file, as it must to register as a reader."""

    @property
    def version(self) -> int | None:
        """1 is released LMDB 0.9, 2 is its branch mdb.master, which heed uses, and LMDB 1.0."""
        return None if self.format_word is None else self.format_word & _VERSION_BITS

    @property
    def holder_text(self) -> str:
        """The live process in the words of a message."""
        return "a live process" if self.holder is None else f"a live process (pid {self.holder})"


def inspect_lock(directory: Path) -> LockState:
    """The state of ``lock.mdb`` in ``directory``; raises ``SourceError`` when it cannot be read.

    Must not be called while this process has that environment open with locking: closing any descriptor of the file
    drops all of a process's classic fcntl locks on it, and other processes would take this one for dead.
    """
    path = directory / LOCK_FILE
    try:
        if _identity(directory) in _opened_here:
            raise AssertionError(f"{path} must not be opened twice by one process")
        descriptor, writable = _open(path)
    except FileNotFoundError:
        return LockState()
    except OSError as error:
        raise SourceError(
            f"cannot tell whether {directory} is in use: cannot open {LOCK_FILE}: {str(error.strerror).lower()}",
            hint=f"Let the user that runs archiver read and write {path}.",
        ) from error
    try:
        header = os.pread(descriptor, _HEADER.size, 0)
        kind, _, _, _, pid = _FLOCK.unpack(
            fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        )
    except OSError as error:
        raise SourceError(
            f"cannot tell whether {directory} is in use: {LOCK_FILE}: {str(error.strerror).lower()}"
        ) from error
    finally:
        os.close(descriptor)
    live = kind != fcntl.F_UNLCK
    return LockState(True, _format_word(header), live, pid if live and pid > 0 else None, writable)


@contextmanager
def opened_with_locking(directory: Path) -> Iterator[None]:
    """Remember, for the block, that this process has the environment open with locking."""
    identity = _identity(directory)
    if identity in _opened_here:
        raise AssertionError(f"{directory} must not be opened twice by one process")
    _opened_here.add(identity)
    try:
        yield
    finally:
        _opened_here.remove(identity)


def _identity(directory: Path) -> tuple[int, int]:
    status = directory.stat()
    return status.st_dev, status.st_ino


def _open(path: Path) -> tuple[int, bool]:
    try:
        return os.open(path, os.O_RDWR), True
    except FileNotFoundError:
        raise
    except OSError:
        # No permission, a read-only mount: the state can be told all the same.
        return os.open(path, os.O_RDONLY), False


def _format_word(header: bytes) -> int | None:
    if len(header) < _HEADER.size:
        return None
    magic, word = _HEADER.unpack(header)
    return int(word) if magic == _MAGIC else None
