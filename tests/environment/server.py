"""One face for both kinds of live server: py-lmdb (lock version 1) and the real heed (version 2)."""

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

import pytest

from tests.environment.live import OWN_PIDS, LiveProcess, writer
from tests.heed import HeedWriter
from tests.waiting import PATIENCE, wait_until

Readers = list[tuple[int, int | None]]
"""The pid and txnid of each slot in use, as the server sees them; None: it reads nothing."""


class Server(Protocol):
    """A live process that has the environment in ``directory`` open and writes to it."""

    directory: Path
    version: int

    @property
    def pid(self) -> int:
        """In its own namespace."""

    def commit(self) -> int: ...
    def readers(self) -> Readers: ...
    def clear_stale(self) -> int: ...
    def close(self) -> None:
        """Let it close the environment and end."""

    def kill(self) -> None: ...


class Serve(Protocol):
    """What the fixture ``serve`` is: starts a server in ``directory``, killed at the end of the block."""

    def __call__(
        self, directory: Path, *, busy: bool = False, max_readers: int = 126, own_pids: bool = False
    ) -> AbstractContextManager[Server]:
        """``busy``: it commits all the time; ``own_pids``: it is pid 1 of a pid namespace."""


class LmdbServer:
    version = 1

    def __init__(self, directory: Path, live: LiveProcess) -> None:
        self.directory = directory
        self._live = live
        self.pid = int(str(live.ask("pid")))
        self.kill = live.kill

    def commit(self) -> int:
        return int(str(self._live.ask("commit")))

    def readers(self) -> Readers:
        lines = str(self._live.ask("readers")).splitlines()
        slots = [line.split() for line in lines if line.strip()[:1].isdigit()]
        return [(int(pid), None if txnid == "-" else int(txnid)) for pid, _, txnid in slots]

    def clear_stale(self) -> int:
        return int(str(self._live.ask("check")))

    def close(self) -> None:
        assert self._live.process.stdin is not None
        self._live.process.stdin.close()
        assert self._live.process.wait(PATIENCE) == 0


class HeedServer:
    version = 2

    def __init__(self, live: HeedWriter) -> None:
        self.directory = live.directory / "vector"
        self._live = live
        self.pid = live.pid
        self.kill = live.kill

    def commit(self) -> int:
        return self._live.commit()

    def readers(self) -> Readers:
        return [(reader.pid, reader.txnid) for reader in self._live.readers()["vector"]]

    def clear_stale(self) -> int:
        return self._live.clear_stale()["vector"]

    def close(self) -> None:
        self._live.stop()


@contextmanager
def serve_lmdb(
    directory: Path, *, busy: bool = False, max_readers: int = 126, own_pids: bool = False
) -> Iterator[Server]:
    with writer(directory, "busy" if busy else "idle", max_readers, own_pids=own_pids) as live:
        yield LmdbServer(directory, live)


def heed_server(binary: Path, tmp_path: Path) -> Serve:
    @contextmanager
    def serve_heed(
        directory: Path, *, busy: bool = False, max_readers: int = 126, own_pids: bool = False
    ) -> Iterator[Server]:
        command = _in_own_namespace(binary, tmp_path) if own_pids else binary
        with HeedWriter.start(
            command,
            directory,
            only="vector",
            paused=not busy,
            sync=False,
            index_size=50_000,
            nodes=500,
            max_readers=max_readers,
        ) as live:
            yield HeedServer(live)

    return serve_heed


def _in_own_namespace(binary: Path, tmp_path: Path) -> Path:
    script = tmp_path / "heed_writer_as_pid_1"
    script.write_text(f'#!/bin/sh\nexec {" ".join(OWN_PIDS)} {binary} "$@"\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return script


def wait_for_commits(server: Server, number: int) -> None:
    """Return after so many more commits of a busy server."""
    wanted = server.commit() + number
    wait_until(lambda: server.commit() >= wanted)


def file_size(server: Server) -> int:
    return (server.directory / "data.mdb").stat().st_size


def require_namespaces() -> None:
    """Skip a test where pid namespaces may not be made; fail it under CI."""
    if shutil.which(OWN_PIDS[0]) is None or subprocess.run([*OWN_PIDS, "true"], capture_output=True).returncode:
        assert not os.environ.get("CI"), "unshare is not permitted"
        pytest.skip("unshare is not permitted here")
