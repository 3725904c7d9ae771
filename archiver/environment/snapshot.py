"""A snapshot as the rest of archiver sees it: pinned and copied by a helper process of its own (helper.py)."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import IO, Self, cast

import msgspec

import archiver
from archiver.config import PinLimits
from archiver.environment.databases import Database
from archiver.environment.locks import OWN_NUMBERS, inspect_lock
from archiver.environment.messages import (
    COPY,
    Copied,
    Declared,
    Failed,
    Method,
    Pinned,
    PinRequest,
    Reply,
    decode_reply,
    encode,
)
from archiver.environment.meta import DATA_FILE, Meta, read_meta
from archiver.environment.reader import registered
from archiver.errors import ArchiverError, FormatError, SnapshotChangedError, SourceError
from archiver.parallel import uninterrupted

COMMAND = (sys.executable, "-P", "-m", "archiver.environment.helper")
_DEFAULT_LIMITS = PinLimits()
_PATIENCE = 10
"""Seconds that a helper may take to end once it is not needed any more."""


class Snapshot(msgspec.Struct, eq=False):
    """One environment as of transaction ``txnid``; sizes are bytes. Can be copied once (copying.py)."""

    name: str
    directory: Path
    method: Method
    pinned: datetime
    meta: Meta
    databases: tuple[Database, ...]
    used_pages: int
    """The two meta pages and the pages of all databases: what a compact copy holds."""
    origin: Path
    """The environment itself; not ``directory`` where that is a copy which a command made."""
    helper: "Helper"

    @property
    def txnid(self) -> int:
        return self.meta.txnid

    @property
    def page_size(self) -> int:
        return self.meta.page_size

    @property
    def map_size(self) -> int:
        return self.meta.map_size

    @property
    def last_page(self) -> int:
        return self.meta.last_page

    @property
    def estimated_copy_size(self) -> int:
        """Bytes of a compact copy, for progress; what the copy really has is known at its end."""
        return self.used_pages * self.page_size

    def begin_copy(self) -> FileIO:
        """Let the helper write a compact copy; the pipe to read it from, which ``release`` closes."""
        return self.helper.begin_copy()

    def finish_copy(self) -> None:
        """Call when the copy's pipe has ended: raises unless it was complete and that of this very snapshot.

        ``SnapshotChangedError`` and ``PinGivenUpError`` mean that another attempt is worth while.
        """
        self.helper.finish_copy(self)

    def check(self) -> None:
        """Raise what ended the pin of a snapshot that still waits to be copied; costs microseconds."""
        self.helper.check(self)

    def release(self) -> None:
        """Give the snapshot up, so that the server may reuse its pages; it cannot be copied afterwards."""
        self.helper.close()


class Helper:
    """A helper process, started and idle: pins at most one environment. A context manager that ends it."""

    def __init__(self) -> None:
        with uninterrupted():
            read_end, write_end = os.pipe()
            self._copy = os.fdopen(read_end, "rb", buffering=0)
            try:
                self._process = _start(write_end)
            except OSError as error:
                self._copy.close()
                raise SourceError(
                    f"cannot start a helper process with {COMMAND[0]}: {str(error.strerror).lower()}",
                    hint="Let the user that runs archiver execute that program, and raise its limits of processes "
                    "and memory if they are reached.",
                ) from error
            finally:
                os.close(write_end)
        self._waiting = False
        self._directory: Path | None = None
        self._requests = cast(IO[bytes], self._process.stdin)
        self._replies = cast(IO[bytes], self._process.stdout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def pin(
        self,
        directory: Path,
        *,
        name: str,
        limits: PinLimits = _DEFAULT_LIMITS,
        declared: Declared | None = None,
        max_size: int | None = None,
    ) -> Snapshot:
        """Pin the environment in ``directory`` until the snapshot is released.

        ``max_size`` is the map size in bytes that its server opens it with, if known.

        Raises ``NotFoundError`` without a data.mdb, ``FormatError`` when it is corrupt or truncated, ``BusyError`` when
        the reader table is full or too little headroom is left, and ``SourceError`` when no safe way to read it
        exists; the message says why.
        """
        self._directory = directory
        headroom = limits.headroom / 100
        self._ask(encode(PinRequest(os.fsencode(directory), declared, headroom, limits.seconds, max_size)))
        reply = self._reply()
        if not isinstance(reply, Pinned):
            raise self._error(reply, directory)
        self._waiting = True
        return Snapshot(
            name=name,
            directory=directory,
            method=reply.method,
            pinned=reply.pinned,
            meta=reply.meta,
            databases=reply.databases,
            used_pages=reply.used_pages,
            origin=directory,
            helper=self,
        )

    def begin_copy(self) -> FileIO:
        """Let it write the copy, once; returns the pipe to read that from, which ``close`` closes."""
        if not self._waiting:
            raise AssertionError("a snapshot can be copied once, and not after it was released")
        self._waiting = False
        self._ask(COPY)
        return self._copy

    def finish_copy(self, snapshot: Snapshot) -> None:
        """Its verdict on the copy, once the pipe has ended."""
        reply = self._reply()
        if isinstance(reply, Copied):
            return
        error = self._error(reply, snapshot.directory)
        if reply is None and _disturbed(snapshot):
            raise SnapshotChangedError(
                f"{snapshot.directory} was opened by another process while it was copied without locks",
                hint="Run the backup again.",
            ) from error
        if isinstance(error, FormatError) and _has_fixed_duplicates(snapshot):
            error.hint = (
                f"{error.hint} Or it is sound: it has a database with DUPFIXED, and the LMDB in the package lmdb "
                "crashes on some of these. If mdb_copy -c of LMDB's own tools copies it, it is; archiver cannot back it"
                " up yet."
            )
        raise error

    def check(self, snapshot: Snapshot) -> None:
        """Raise its last word, or what its death means, when it has ended though it has a pin and no copy to make."""
        if not self._waiting:
            return
        poller = select.poll()
        poller.register(self._replies, select.POLLIN)
        if poller.poll(0):
            raise self._error(self._reply(), snapshot.directory)

    def close(self) -> None:
        """End the process, whatever it is doing; it frees its reader slot. May be repeated."""
        self._waiting = False
        for pipe in (self._copy, self._requests, self._replies):
            # What a dead process did not read is still in the buffer.
            with suppress(BrokenPipeError):
                pipe.close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.returncode < 0 and self._directory is not None:
            _clear_slots(self._directory)
            self._directory = None

    def _ask(self, line: bytes) -> None:
        # It may have ended, and its last word says why.
        with suppress(BrokenPipeError):
            self._requests.write(line)
            self._requests.flush()

    def _reply(self) -> Reply | None:
        """The next reply; None when the process has ended without one, or in the middle of it."""
        line = self._replies.readline()
        return decode_reply(line) if line.endswith(b"\n") else None

    def _error(self, reply: Reply | None, directory: Path) -> ArchiverError:
        return reply.error if isinstance(reply, Failed) else _death(self._process.wait(), directory)


def _start(write_end: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [*COMMAND, str(write_end)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[write_end],
        # Ctrl-C is for the parent, which ends its helpers in good order.
        process_group=0,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(_module_path())},
    )


def _module_path() -> list[str]:
    """This very archiver first, then what the user has set for the modules that it needs."""
    users = os.environ.get("PYTHONPATH")
    return [str(Path(archiver.__file__).parents[1]), *([users] if users else [])]


@contextmanager
def pin(
    directory: Path,
    *,
    name: str,
    limits: PinLimits = _DEFAULT_LIMITS,
    declared: Declared | None = None,
    max_size: int | None = None,
) -> Iterator[Snapshot]:
    """Pin the environment in ``directory`` for the block, or until it is released; arguments as of ``Helper.pin``."""
    with ExitStack() as resources:
        # An interrupt must not fall between a helper's start and its clean-up.
        with uninterrupted():
            helper = resources.enter_context(Helper())
        yield helper.pin(directory, name=name, limits=limits, declared=declared, max_size=max_size)


def _clear_slots(directory: Path) -> None:
    """Free what a helper that was killed has left in the reader table; the server would not, and its file would grow.

    To register is enough: it clears the slots of dead archivers.
    """
    with suppress(ArchiverError), registered(directory):
        pass


def _has_fixed_duplicates(snapshot: Snapshot) -> bool:
    """Whether ``snapshot`` holds what makes LMDB's compact copy read beyond a page: duplicates of one size that fill a
    tree of their own (tests/environment/test_copying.py)."""
    return any("dupfixed" in database.flags for database in snapshot.databases)


def _disturbed(snapshot: Snapshot) -> bool:
    """Whether a server that wrote beside an unprotected snapshot explains that LMDB crashed on it."""
    state = inspect_lock(snapshot.directory)
    # A pin that held until the crash has left its slot behind, one that had left its server has not.
    if any(reader.pid in OWN_NUMBERS for reader in state.readers):
        return False
    return state.live or read_meta(snapshot.directory / DATA_FILE).txnid != snapshot.txnid


def _death(status: int, directory: Path) -> ArchiverError:
    """What the end of a helper without a last word means."""
    if -status in (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE):
        return FormatError(
            f"{directory} is corrupt, or its disk cannot be read: LMDB was ended by {signal.Signals(-status).name}",
            hint="Look for disk errors in the system's log, and restore this environment from a backup.",
        )
    ended = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    return SourceError(
        f"the process that read {directory} {ended}",
        hint="See whether the system's log says that it ran out of memory, and run the backup again.",
    )
