"""What the system tells of a process: its name, and since when it has run. Linux."""

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

_PROC = Path("/proc")
_START_AFTER_NAME = 19
"""The index of ``starttime`` among the fields of /proc/PID/stat that follow the name (proc_pid_stat(5))."""


@dataclass(frozen=True, slots=True)
class Process:
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


def start_time(status: bytes, boot: bytes) -> datetime:
    """When a process began, from its /proc/PID/stat and the system's /proc/stat; exact to about a second."""
    # The name stands in parentheses and may hold spaces and parentheses itself.
    fields = status[status.rindex(b")") + 1 :].split()
    ticks = int(fields[_START_AFTER_NAME])
    booted = next(int(line.split()[1]) for line in boot.splitlines() if line.startswith(b"btime "))
    return datetime.fromtimestamp(booted + ticks / os.sysconf("SC_CLK_TCK"), UTC)
