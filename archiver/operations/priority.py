"""The backup's share of the machine: little beside a live server that needs it, all that it leaves otherwise."""

import ctypes
import os

_LOWER = 10
_CALLS = {"x86_64": (251, 252), "aarch64": (30, 31)}
"""Numbers of ioprio_set and ioprio_get by machine (Linux, arch/x86/entry/syscalls/syscall_64.tbl and
include/uapi/asm-generic/unistd.h): the C library has no function for either."""
_PROCESS = 1
_CLASS_SHIFT = 13
_LOWEST_BEST_EFFORT = 2 << _CLASS_SHIFT | 7


def give_way() -> None:
    """Lower the priority of this process, and of the threads and helper processes that it starts from now on.

    Compression keeps all processors busy, and a server that waits for a core commits late (docs/BENCHMARKS.md). It is
    not the lowest priority on purpose: beside a host that is busy all the time a backup would then take many times as
    long, and as long as it pins a snapshot the server's files grow and do not shrink again.

    Input and output go last among those of equal rank, unless a class was chosen for this process, by ionice say. Where
    the kernel does not let that be chosen it stays as it is: a backup is worth more than its priority.
    """
    os.nice(_LOWER)
    if (calls := _CALLS.get(os.uname().machine)) is not None:
        set_priority, get_priority = calls
        call = ctypes.CDLL(None).syscall
        if call(get_priority, _PROCESS, 0) >> _CLASS_SHIFT == 0:
            call(set_priority, _PROCESS, 0, _LOWEST_BEST_EFFORT)
