"""Signals to every process of a session, as an external command with all that it started is one (external.py). Linux.

``killpg`` alone reaches a group, and a shell may put its jobs into groups of their own.
"""

import os
import signal
from contextlib import suppress


def signal_session(session: int, number: signal.Signals) -> None:
    """Send ``number`` once to every process of ``session`` that this user may signal, those of its first group first.

    ``session`` must not have been reaped: its number could be another's by now.
    """
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(session, number)
    signalled: set[int] = set()
    # Again until there is no other: one may have begun another while the list was read.
    while found := {pid for pid in _processes() if _strayed(pid, session)} - signalled:
        for pid in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        signalled |= found


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _strayed(pid: int, session: int) -> bool:
    """Whether the process is in ``session``, but not in the group that has the same number."""
    try:
        return os.getsid(pid) == session != os.getpgid(pid)
    except (ProcessLookupError, PermissionError):
        return False
