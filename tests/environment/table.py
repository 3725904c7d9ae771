"""The reader table of a lock file as tests look at it and damage it: by plain reads and writes of the file."""

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from archiver.environment import lockfile
from archiver.environment.lockfile import SLOT_SIZE, Layout


def layout_of(directory: Path) -> Layout:
    """That of the lock file in ``directory``, which is a known one."""
    head = (directory / "lock.mdb").read_bytes()[:64]
    layout = lockfile.layout(lockfile.format_word(head) or 0, os.uname().machine)
    assert layout is not None
    return layout


@dataclass(frozen=True)
class Table:
    """What readers share; compares by all bytes of the slots."""

    word: int
    used: int
    slots: bytes

    @classmethod
    def read(cls, directory: Path) -> Self:
        layout = layout_of(directory)
        data = (directory / "lock.mdb").read_bytes()
        (used,) = struct.unpack_from("=I", data, layout.used)
        return cls(lockfile.format_word(data) or 0, used, data[layout.slots :])

    @property
    def pids(self) -> tuple[int, ...]:
        """Of the slots that were ever used, in order; 0 is free."""
        return tuple(struct.unpack_from("=i", self.slots, index * SLOT_SIZE + 8)[0] for index in range(self.used))


def set_slot(directory: Path, index: int, pid: int, txnid: int = 1) -> None:
    """Write slot ``index``, and raise the count of used slots if it is beyond."""
    layout = layout_of(directory)
    used = max(Table.read(directory).used, index + 1)
    with (directory / "lock.mdb").open("r+b", buffering=0) as lock:
        os.pwrite(lock.fileno(), struct.pack("=QiI", txnid, pid, 0), layout.slots + index * SLOT_SIZE)
        os.pwrite(lock.fileno(), struct.pack("=I", used), layout.used)


def set_mutex_kind(directory: Path, kind: int) -> None:
    """Mark the readers' mutex as made by another C library."""
    with (directory / "lock.mdb").open("r+b", buffering=0) as lock:
        os.pwrite(lock.fileno(), struct.pack("=I", kind), layout_of(directory).mutex + 16)
