"""A process that gets in the way, for tests: ``python locker.py LOCK_FILE shared|exclusive|mutex``.

``shared`` and ``exclusive`` hold a lock of that kind on byte 0, as a live LMDB process and as one that initialises the
file; ``mutex`` holds the mutex of the reader table. It prints ``ready``, then answers each line of its standard input
once it has done it: ``share`` turns an exclusive lock into a shared one, ``unlock`` gives back whatever it holds.
"""

import ctypes
import fcntl
import json
import mmap
import os
import sys
from collections.abc import Callable

from archiver.environment import lockfile


def main(path: str, mode: str) -> None:
    with open(path, "r+b") as lock:
        if mode == "mutex":
            unlock = lock_mutex(lock.fileno())
        else:
            fcntl.lockf(lock, fcntl.LOCK_SH if mode == "shared" else fcntl.LOCK_EX, 1, 0)

            def unlock() -> None:
                fcntl.lockf(lock, fcntl.LOCK_UN, 1, 0)

        say("ready")
        for line in sys.stdin:
            if line.strip() == "share":
                fcntl.lockf(lock, fcntl.LOCK_SH, 1, 0)
            else:
                unlock()
            say("done")


def lock_mutex(descriptor: int) -> Callable[[], None]:
    mapped = mmap.mmap(descriptor, 0)
    layout = lockfile.layout(lockfile.format_word(mapped[:64]) or 0, os.uname().machine)
    assert layout is not None
    library = ctypes.CDLL(None)
    mutex = ctypes.byref(ctypes.c_char.from_buffer(mapped, layout.mutex))
    assert library.pthread_mutex_lock(mutex) == 0

    def unlock() -> None:
        assert library.pthread_mutex_unlock(mutex) == 0

    return unlock


def say(answer: object) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
