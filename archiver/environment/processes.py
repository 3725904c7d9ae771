"""What the system tells of processes: name and start of one, and which ones hold locks on a file. Linux."""

import os
from datetime import UTC, datetime
from pathlib import Path

import msgspec

_PROC = Path("/proc")
_START_AFTER_NAME = 19
"""The index of ``starttime`` among the fields of /proc/PID/stat that follow the name (proc_pid_stat(5))."""


class Process(msgspec.Struct, frozen=True):
    """A running process; ``pid`` is that of this process's own pid namespace."""

    pid: int
    name: str
    """As the system shortens it: 15 bytes at the most."""
    started: datetime


def find_process(pid: int) -> Process | None:
    """The process ``pid``; None when there is none, or when this user may not look at it."""
    try:
        name = (_PROC / str(pid) / "comm").read_bytes()
        status = (_PROC / str(pid) / "stat").read_bytes()
        boot = (_PROC / "stat").read_bytes()
    except OSError:
        return None
    return Process(pid, os.fsdecode(name).rstrip("\n"), start_time(status, boot))


def lock_owners(path: Path) -> frozenset[int]:
    """The pids that hold classic fcntl locks on the file at ``path``, as far as /proc/locks shows them here.

    It may show none: of processes in other pid namespaces, and on file systems that have another device number for it
    than for ``stat``.
    """
    try:
        # Where /proc is that of another pid namespace, its pids are not ours.
        if os.readlink(_PROC / "self") != str(os.getpid()):
            return frozenset()
        return owners((_PROC / "locks").read_text(), path.stat())
    except OSError:
        return frozenset()


def owners(locks: str, status: os.stat_result) -> frozenset[int]:
    """The pids in the text of /proc/locks (proc_locks(5)) that hold classic locks on the file with ``status``."""
    file = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    held = (line.split() for line in locks.splitlines())
    # A line of a process that waits has an arrow in the second column.
    return frozenset(int(pid) for _, kind, _, _, pid, where, *_ in held if (kind, where) == ("POSIX", file))


def start_time(status: bytes, boot: bytes) -> datetime:
    """When a process began, from its /proc/PID/stat and the system's /proc/stat; exact to about a second."""
    # The name stands in parentheses and may hold spaces and parentheses itself.
    fields = status[status.rindex(b")") + 1 :].split()
    ticks = int(fields[_START_AFTER_NAME])
    booted = next(int(line.split()[1]) for line in boot.splitlines() if line.startswith(b"btime "))
    return datetime.fromtimestamp(booted + ticks / os.sysconf("SC_CLK_TCK"), UTC)
