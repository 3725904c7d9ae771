"""Processes that die on purpose: at a chosen one of their file-system operations, told by the interpreter's audit hook.

The hook runs before the operation, so the one that is named is the first that did not happen.
"""

from collections.abc import Sequence

_HOOK = """
import os, signal, sys
state = {"count": 0}
def hook(event, arguments):
    if event not in EVENTS or not any(ROOT in os.fsdecode(a) for a in arguments if isinstance(a, (str, bytes))):
        return
    state["count"] += 1
    if state["count"] == AT:
        os.kill(os.getpid(), signal.SIGKILL)
def tell():
    sys.__stderr__.write(f"\\nevents {state['count']}\\n")
import atexit
atexit.register(tell)
sys.addaudithook(hook)
"""
_EVENTS = ("open", "os.link", "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod", "os.symlink")


def dying_at(number: int, root: str, operations: Sequence[str] = _EVENTS) -> str:
    """Python code after which the process is killed before its file-system operation ``number`` on a path that
    contains ``root``; with 0 it lives, and its last line on stderr tells how many there were. ``operations``: which
    of them count, by the names of their audit events."""
    return f"EVENTS, ROOT, AT = {tuple(operations)!r}, {root!r}, {number}{_HOOK}"


def events(errors: str) -> int:
    """How many operations a process counted that was told to live."""
    return int(errors.rsplit(maxsplit=1)[-1])
