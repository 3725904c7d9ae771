"""A process that holds an environment as heed would, for tests: ``python holder.py DIRECTORY``.

It is not heed: it gives ``lock.mdb`` of a closed environment lock version 2 and takes the two fcntl locks by which
LMDB processes know each other (shared on byte 0, exclusive on the byte of the own pid), then waits for its standard
input to end. The real heed writer comes with issue 2 (hot backups), when there is a reader pin to try against it.
"""

import fcntl
import os
import struct
import sys


def main(directory: str) -> None:
    with open(os.path.join(directory, "lock.mdb"), "r+b") as lock:
        magic, word = struct.unpack("=II", lock.read(8))
        lock.seek(0)
        lock.write(struct.pack("=II", magic, word & ~0xFFF | 2))
        lock.flush()
        fcntl.lockf(lock, fcntl.LOCK_SH, 1, 0)
        fcntl.lockf(lock, fcntl.LOCK_EX, 1, os.getpid())
        sys.stdout.write('"ready"\n')
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1])
