"""What the tests of environments share: live processes beside them, and environments with known content."""

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import lmdb

HERE = Path(__file__).parent
OWN_PIDS = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
"""Runs what follows as pid 1 of a pid namespace, as a container does; ends it when it is killed itself."""
Content = dict[bytes | None, list[tuple[bytes, bytes]]]


class LiveProcess:
    """One of the scripts beside this file, ready."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.pid = process.pid
        self.first = self._answer()

    def ask(self, command: str) -> object:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self._answer()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def _answer(self) -> object:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())


@contextmanager
def _script(*arguments: str, own_pids: bool = False) -> Iterator[LiveProcess]:
    command = [*(OWN_PIDS if own_pids else ()), sys.executable, *arguments]
    environment = os.environ | {"PYTHONPATH": str(HERE.parents[1])}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            yield LiveProcess(process)
        finally:
            process.kill()


def writer(
    directory: Path, mode: str = "idle", max_readers: int = 126, *, own_pids: bool = False
) -> AbstractContextManager[LiveProcess]:
    """A process that has ``directory`` open with LMDB's own locking and commits: all the time if ``busy``."""
    directory.mkdir(exist_ok=True)
    return _script(str(HERE / "writer.py"), str(directory), mode, str(max_readers), own_pids=own_pids)


def pinner(directory: Path, *, own_pids: bool = False) -> AbstractContextManager[LiveProcess]:
    """A process that holds a reader slot of archiver's in ``directory``, and a snapshot under it."""
    return _script(str(HERE / "pinner.py"), str(directory), own_pids=own_pids)


def locker(directory: Path, mode: str) -> AbstractContextManager[LiveProcess]:
    """A process that holds ``shared`` or ``exclusive`` byte 0 of the lock file, or the ``mutex`` of its readers."""
    return _script(str(HERE / "locker.py"), str(directory / "lock.mdb"), mode)


def make_environment(directory: Path, entries: int = 200, value_size: int = 100) -> Path:
    """A closed environment with databases of every kind; returns the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    with lmdb.open(str(directory), map_size=1 << 28, max_dbs=16, lib_version=0) as environment:
        kinds: dict[bytes, dict[str, bool]] = {
            b"plain": {},
            b"reverse": {"reverse_key": True},
            b"integer": {"integerkey": True},
            b"duplicates": {"dupsort": True},
            b"fixed": {"dupsort": True, "dupfixed": True},
            b"integers": {"dupsort": True, "integerdup": True, "dupfixed": True},
            b"\xff\xfe not text": {},
        }
        for name, kind in kinds.items():
            database = environment.open_db(name, None, **kind)
            size = min(value_size, 500) if kind.get("dupsort") else value_size
            with environment.begin(write=True) as transaction:
                for number in range(entries):
                    key = struct.pack("=Q", number // 8 if kind.get("dupsort") else number)
                    value = struct.pack("=Q", number) if kind.get("dupfixed") else b"%0*d" % (size, number)
                    transaction.put(key, value, db=database)
        with environment.begin(write=True) as transaction:
            transaction.put(b"an ordinary record of the main database", b"x" * 48)
            transaction.put(b"plain\0and no database", bytes(48))
        with environment.begin(write=True) as transaction:
            for number in range(0, entries, 3):
                transaction.delete(struct.pack("=Q", number), db=environment.open_db(b"plain", txn=transaction))
    return directory


def read_content(data: Path) -> Content:
    """Every pair of every database of a data file that nobody writes to, found without archiver's own listing."""
    content: Content = {}
    with (
        lmdb.open(str(data), subdir=False, readonly=True, lock=False, max_dbs=64, lib_version=0) as environment,
        environment.begin() as transaction,
    ):
        names = environment.dbs(transaction)
        content[None] = [(key, b"" if key in names else value) for key, value in transaction.cursor()]
        for name in names:
            database = environment.open_db(name, txn=transaction, create=False)
            flags = json.dumps(database.flags(), sort_keys=True).encode()
            content[name] = [(b"flags", flags), *transaction.cursor(database)]
    return content


def counters(data: Path) -> tuple[int, int, int]:
    """The two counters of writer.py in a copy, and the newest number in its log."""
    content = read_content(data)
    left, right = (struct.unpack("<Q", dict(content[name])[b"counter"])[0] for name in (b"left", b"right"))
    newest = max(struct.unpack_from("<Q", value)[0] for key, value in content[b"log"] if key != b"flags")
    return left, right, newest


def open_descriptors() -> set[str]:
    """What this process has open."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
        except FileNotFoundError:
            continue
    return found
