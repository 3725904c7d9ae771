"""A process that holds a reader slot as archiver's helper does, for tests: ``python pinner.py DIRECTORY``.

Its first line is ``{"number": ..., "txnid": ..., "pid": ...}`` of the slot and the process. Then it answers each line
of its standard input with one of JSON: ``digest`` with a hash of every record of the snapshot that it opened under the
slot, ``check`` with null or the error by which the pin was lost, ``reopen`` after it has opened and closed ``lock.mdb``
once more, ``release`` after it has freed the slot. It ends with its input.
"""

import hashlib
import json
import os
import sys
from pathlib import Path

import lmdb

from archiver.environment.reader import ReaderSlot, registered
from archiver.errors import SnapshotChangedError


def main(directory: Path) -> None:
    with (
        registered(directory) as slot,
        lmdb.open(
            str(directory), readonly=True, create=False, lock=False, map_size=0, max_dbs=16, lib_version=0
        ) as environment,
        environment.begin(buffers=True) as transaction,
    ):
        say({"number": slot.number, "txnid": slot.txnid, "pid": os.getpid()})
        for line in sys.stdin:
            match line.strip():
                case "digest":
                    say(digest(environment, transaction))
                case "check":
                    say(lost(slot))
                case "reopen":
                    with (directory / "lock.mdb").open("r+b") as lock:
                        say(len(lock.read()))
                case "release":
                    slot.release()
                    say(None)


def digest(environment: lmdb.Environment, transaction: "lmdb.Transaction[memoryview]") -> str:
    found = hashlib.sha256()
    for key, value in transaction.cursor():
        found.update(key)
        found.update(value)
    for name in environment.dbs(transaction):
        for key, value in transaction.cursor(environment.open_db(bytes(name), txn=transaction, create=False)):
            found.update(key)
            found.update(value)
    return found.hexdigest()


def lost(slot: ReaderSlot) -> str | None:
    try:
        slot.check()
    except SnapshotChangedError as error:
        return error.message
    return None


def say(answer: object) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
