"""A live LMDB process for tests: ``python writer.py DIRECTORY busy|idle MAX_READERS``.

Every commit raises a counter that stands in two databases, and rewrites records of a third, so that pages are reused
all the time; a copy in which the counters differ, or a record is newer than the counter, is not a snapshot. It
prints ``ready`` after the first commit and then answers each line of its standard input: ``commit`` with the counter,
``readers`` with LMDB's reader table, ``check`` with the number of stale readers cleared and ``pid`` with its own, each
as one JSON line. In ``busy`` mode it commits all the time besides. It closes the environment when its input ends.
"""

import json
import os
import random
import select
import struct
import sys

import lmdb

_KEPT = 3000


def main(directory: str, mode: str, max_readers: int) -> None:
    chance = random.Random(7)
    environment = lmdb.open(directory, map_size=1 << 30, max_dbs=4, max_readers=max_readers, sync=False, lib_version=0)
    left, right, log = (environment.open_db(name) for name in (b"left", b"right", b"log"))
    with environment.begin() as transaction:
        counter = int.from_bytes(transaction.get(b"counter", b"", db=left), "little")

    def commit() -> int:
        nonlocal counter
        counter += 1
        packed = struct.pack("<Q", counter)
        with environment.begin(write=True) as transaction:
            transaction.put(b"counter", packed, db=left)
            for _ in range(20):
                key = struct.pack("<Q", chance.randrange(_KEPT))
                transaction.put(key, packed * chance.choice((2, 50, 1200)), db=log)
            transaction.put(b"counter", packed, db=right)
        return counter

    def say(answer: object) -> None:
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()

    commit()
    say("ready")
    while True:
        ready, _, _ = select.select([sys.stdin], [], [], 0 if mode == "busy" else None)
        if ready:
            command = sys.stdin.readline().strip()
            if not command:
                environment.close()
                return
            answers = {
                "commit": commit,
                "readers": environment.readers,
                "check": environment.reader_check,
                "pid": os.getpid,
            }
            say(answers[command]())
        if mode == "busy":
            commit()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
