"""The layout of ``lock.mdb`` on 64-bit Linux with glibc, and what its bytes say. No I/O.

Two families of LMDB write it, with one reader table but different headers (``MDB_txbody``, ``MDB_txninfo``,
``MDB_reader`` in LMDB's mdb.c). ``M`` is the size of ``pthread_mutex_t``: 40 bytes on x86-64, 48 on aarch64::

    field                             version 1: LMDB 0.9    version 2: mdb.master, so heed
    u32 magic 0xBEEFC0DE              0                      0
    u32 format, low 12 bits version   4                      4
    pthread_mutex_t, reader table     8                      24
    u64 last committed txnid          8 + M                  8
    u32 reader slots ever used        16 + M                 16
    pthread_mutex_t, writer           64 x ceil((20 + M) / 64), and 64 x ceil((24 + M) / 64); padded to 64
    reader slots, 64 bytes each       64 after that

A reader slot is: u64 txnid (all ones: idle), i32 pid (0: free), 4 bytes of padding, u64 thread.
"""

import struct

import msgspec

from archiver.buffers import Buffer

MAGIC = 0xBEEFC0DE
IDLE = 2**64 - 1
"""The txnid of a slot whose owner reads nothing just now."""
SLOT_SIZE = 64
ROBUST_SHARED = 0x90
"""How glibc marks a robust, process-shared mutex. musl's has the same size, so that only this tells them apart."""

_HEADER = struct.Struct("=II")
_SLOT = struct.Struct("=QixxxxQ")
_KIND_IN_MUTEX = 16
_VERSION_BITS = 0xFFF
_VERSION_1 = 1 | 1 << 16
"""Version 1 states nothing but that readers lock the byte of their pid."""
_MUTEX_SIZES = {"x86_64": 40, "aarch64": 48}


class Layout(msgspec.Struct, frozen=True):
    """Offsets in bytes of what a reader needs."""

    version: int
    mutex: int
    """The mutex that guards the reader table."""
    committed: int
    used: int
    slots: int

    def capacity(self, size: int) -> int:
        """The number of reader slots in a lock file of ``size`` bytes."""
        return max(size - self.slots, 0) // SLOT_SIZE


class Reader(msgspec.Struct, frozen=True):
    """A reader slot that is in use."""

    pid: int
    """As its owner announced it: in the owner's pid namespace, and no pid at all for archiver's own pins."""
    txnid: int | None
    """Of the snapshot that it reads; None when it reads nothing just now."""


def version(word: int) -> int:
    """1 is released LMDB 0.9, 2 is its branch mdb.master, which heed uses, and LMDB 1.0."""
    return word & _VERSION_BITS


def format_word(data: Buffer) -> int | None:
    """The format word of a lock file that begins with ``data``; None when it is not LMDB's."""
    if len(data) < _HEADER.size:
        return None
    magic, word = _HEADER.unpack_from(data)
    return int(word) if magic == MAGIC else None


def layout(word: int, machine: str) -> Layout | None:
    """Where things are in a lock file with format ``word`` on ``machine`` (as ``os.uname``); None if not known.

    A word or machine that is not known is never guessed at: a write to the wrong place would ruin a live server.
    """
    mutex_size = _MUTEX_SIZES.get(machine)
    if mutex_size is None:
        return None
    if word == _VERSION_1:
        writer = _padded(20 + mutex_size)
        return Layout(1, 8, 8 + mutex_size, 16 + mutex_size, writer + SLOT_SIZE)
    if word == _version_2(mutex_size):
        writer = _padded(24 + mutex_size)
        return Layout(2, 24, 8, 16, writer + SLOT_SIZE)
    return None


def made_by_glibc(data: Buffer, place: Layout) -> bool:
    """Whether the mutexes of the lock file that begins with ``data`` can be locked through this glibc."""
    start = place.mutex + _KIND_IN_MUTEX
    return data[start : start + 4] == struct.pack("=I", ROBUST_SHARED)


def readers(data: Buffer, place: Layout) -> tuple[Reader, ...]:
    """The slots in use of a whole lock file."""
    if len(data) < place.slots:
        return ()
    used = min(int.from_bytes(data[place.used : place.used + 4], "little"), place.capacity(len(data)))
    slots = (_SLOT.unpack_from(data, place.slots + index * SLOT_SIZE) for index in range(used))
    return tuple(Reader(pid, None if txnid == IDLE else txnid) for txnid, pid, _ in slots if pid)


def _padded(size: int) -> int:
    return -(-size // SLOT_SIZE) * SLOT_SIZE


def _version_2(mutex_size: int) -> int:
    """``MDB_LOCK_FORMAT`` of mdb.master: sizes and alignments, folded into 18 bits above the version."""
    eight_byte_alignment, mutexes = 3, 10
    lock_type = mutexes + eight_byte_alignment + mutex_size // 4 % 22 * 5
    sizes = 6 * 1 + 18 * 2 + 90 * ((24 + mutex_size) // SLOT_SIZE % 3) + 270 * (lock_type % 120)
    txnid_of_64_bits, pid_locks = 1 << 15, 1 << 17
    return (sizes + txnid_of_64_bits + pid_locks) << 12 | 2
