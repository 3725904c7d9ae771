"""A copy of an environment that a configured command makes: for lock files that archiver itself must not touch.

The command, such as the ``mdb_copy -c DIRECTORY`` that belongs to the server, writes a ``data.mdb`` to its standard
output. archiver receives that through a pipe rather than giving the command a file: when archiver is killed, or may
not signal the command (``sudo``), the command meets a broken pipe and ends, instead of holding the server's pages on;
a full disk is our own error, with its cause; and a copy is not taken for complete while a background process of the
command may still write to it.
"""

import fcntl
import os
import selectors
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import IO, cast

from archiver.environment.meta import DATA_FILE
from archiver.environment.sessions import signal_session
from archiver.errors import FormatError, PinGivenUpError, SourceError
from archiver.filesystem import printable
from archiver.parallel import uninterrupted

_PREFIX = "external-"
_TICK = 0.05
"""Seconds between two questions whether to give way."""
_RESERVE = 0.05
"""The part of the workspace's disk that a copy leaves free: a server may write to that disk, too."""
_GRACE = 10.0
"""Seconds that a command has for its own clean-up after SIGTERM."""
_BLOCK_SIZE = 1 << 20
_MESSAGES_KEPT = 4096
_LONGEST_QUOTE = 300
_FOREIGN = ("MDB_VERSION_MISMATCH", "-30794")
"""What LMDB's tools say of a lock file that another LMDB has made."""
_TO_OUTPUT = "Let it write the copy to its standard output, as mdb_copy -c DIRECTORY does."
_MORE_ROOM = "Make room for a whole copy there, or set state_directory in archiver.toml to a larger disk."


@contextmanager
def external_copy(
    command: Sequence[str], original: Path, workspace: Path, *, seconds: int, give_way: Callable[[], str | None]
) -> Iterator[Path]:
    """The directory that holds what ``command`` wrote as ``data.mdb``, for the block; it is removed at its end.

    The directory lies in ``workspace`` and only this user can read it. ``original`` is the environment, for messages;
    of the command they have only the program, because arguments may be secrets. That the copy is one of an environment
    is not checked here. ``give_way`` is asked every 50 ms for a reason to stop.

    Raises ``PinGivenUpError`` when there is such a reason or the command takes longer than ``seconds``, and
    ``SourceError`` when it cannot be started, fails or writes nothing, or when it leaves less than a twentieth of the
    disk of ``workspace`` free. Whichever way the block is left, no process of the command's session that archiver may
    signal is left; one that made a session of its own (a daemon) is.
    """
    what = title(command, original)
    with _private_directory(workspace) as directory:
        _make_copy(command, directory / DATA_FILE, _Watch(what, workspace, seconds, give_way), what)
        yield directory


def title(command: Sequence[str], original: Path) -> str:
    """``command``, which is to copy the environment ``original``, in the words of a message."""
    return f"{printable(os.fsencode(command[0]))!r}, the external command for {original},"


def no_copy(error: FormatError, copy: Path, command: Sequence[str], original: Path) -> FormatError:
    """``error``, met in the directory ``copy`` that is private and soon gone, in words that help the operator."""
    reason = error.message.replace(str(copy / DATA_FILE), "its output").replace(str(copy), "its output")
    return FormatError(f"{title(command, original)} did not write an LMDB copy: {reason}", hint=_TO_OUTPUT)


def remove_leftovers(workspace: Path) -> None:
    """Delete the copies of runs that were killed; to be called while no other run uses ``workspace``."""
    for directory in list(workspace.glob(f"{_PREFIX}*")):
        try:
            shutil.rmtree(directory)
        except OSError as error:
            raise SourceError(
                f"cannot remove {directory}, an unencrypted copy that an earlier run left: {_reason(error)}",
                hint="Remove it by hand.",
            ) from error


class _Watch:
    """Called all the time: raises ``PinGivenUpError`` or ``SourceError`` once there is a reason to end the command."""

    def __init__(self, what: str, workspace: Path, seconds: int, give_way: Callable[[], str | None]) -> None:
        self._what = what
        self._workspace = workspace
        self._seconds = seconds
        self._give_way = give_way
        self._deadline = time.monotonic() + seconds
        self._next_question = 0.0

    def __call__(self) -> None:
        now = time.monotonic()
        if now < self._next_question:
            return
        self._next_question = now + _TICK
        if reason := self._give_way():
            raise PinGivenUpError(f"{self._what} was ended: {reason}")
        if now >= self._deadline:
            raise PinGivenUpError(
                f"{self._what} was ended: expected a copy within {self._seconds} seconds",
                hint="Raise seconds in the table pin of archiver.toml if the server can bear a longer copy.",
            )
        with _storing(self._workspace, self._what):
            disk = os.statvfs(self._workspace)
        if disk.f_bavail < _RESERVE * disk.f_blocks:
            raise SourceError(
                f"{self._what} was ended: less than {_RESERVE * 100:g} % of the disk of {self._workspace} is left free",
                hint=_MORE_ROOM,
            )


@contextmanager
def _private_directory(workspace: Path) -> Iterator[Path]:
    try:
        directory = tempfile.TemporaryDirectory(prefix=_PREFIX, dir=workspace)
    except OSError as error:
        raise SourceError(
            f"cannot make a directory for an external copy in {workspace}: {_reason(error)}",
            hint="Set state_directory in archiver.toml to a directory that this user may write.",
        ) from error
    with directory as path:
        yield Path(path)


def _make_copy(command: Sequence[str], data: Path, watch: Callable[[], None], what: str) -> None:
    with _running(command, what) as process:
        messages = bytearray()
        with _storing(data.parent.parent, what):
            descriptor = os.open(data, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with closing(_output(process, messages, watch)) as blocks:
                for block in blocks:
                    with _storing(data.parent.parent, what):
                        _write(descriptor, block)
        finally:
            os.close(descriptor)
    said = _last_line(messages)
    if process.returncode != 0:
        raise SourceError(
            f"{what} failed: expected exit status 0, got {_outcome(process.returncode)}{said}", hint=_remedy(said)
        )
    if data.stat().st_size == 0:
        raise SourceError(f"{what} wrote nothing to its standard output, expected a copy{said}", hint=_TO_OUTPUT)


@contextmanager
def _storing(workspace: Path, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SourceError(
            f"{what} was ended: cannot write its copy to {workspace}: {_reason(error)}",
            hint=_MORE_ROOM,
        ) from error


@contextmanager
def _running(command: Sequence[str], what: str) -> Iterator[subprocess.Popen[bytes]]:
    """The started command. At the end of the block it is ended with all that it started, and has a return code."""
    process: subprocess.Popen[bytes] | None = None
    try:
        with uninterrupted():
            process = _start(command, what)
        yield process
    finally:
        if process is not None:
            _end(process)


def _start(command: Sequence[str], what: str) -> subprocess.Popen[bytes]:
    """In a session of its own: Ctrl-C reaches it through us alone, and nothing can wait for a password at the terminal.

    ``ValueError`` is what a text that no argument can hold raises; neither it nor ``OSError`` may be quoted whole,
    and no traceback may show the command.
    """
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
    except OSError as error:
        reason = _reason(error)
    except ValueError:
        reason = "an argument has a character that cannot be passed on"
    raise SourceError(f"{what} cannot be started: {reason}", hint="Give the program by its absolute path.")


def _output(process: subprocess.Popen[bytes], messages: bytearray, watch: Callable[[], None]) -> Generator[memoryview]:
    """What the command writes until it has ended, in blocks that are good until the next one is asked for.

    ``messages`` takes the end of what it writes to stderr. A background process may hold stderr open for ever, so
    only stdout must have come to its end.
    """
    output, errors = _pipes(process)
    # Fails when the user's allowance of pipe buffers is used up: the default size is slower, not wrong.
    with suppress(OSError):
        fcntl.fcntl(output, fcntl.F_SETPIPE_SZ, _BLOCK_SIZE)
    buffer = memoryview(bytearray(_BLOCK_SIZE))
    copying, status = True, None
    with selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        selector.register(errors, selectors.EVENT_READ)
        while copying or status is None:
            watch()
            # Before the pipes are read: what the command wrote last is in them by now.
            status = _exit_status(process)
            for key, _ in selector.select(_TICK):
                block = buffer[: os.readv(key.fd, [buffer])]
                if not block:
                    selector.unregister(key.fileobj)
                    copying = copying and key.fd != output.fileno()
                elif key.fd == output.fileno():
                    yield block
                else:
                    messages += block
                    del messages[:-_MESSAGES_KEPT]
            if status:
                # It failed: what its children may still write is no copy.
                return


def _write(descriptor: int, block: memoryview) -> None:
    while block:
        block = block[os.write(descriptor, block) :]


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the command's whole session, politely first, and reap the command.

    It is reaped last: until then its pid, which is the number of the session, cannot become that of somebody else.
    Another user's process cannot be signalled, but it meets a broken pipe. That of its messages stays until the end,
    or a clean-up that says something would be cut short by it.
    """
    output, errors = _pipes(process)
    output.close()
    try:
        signal_session(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + _GRACE
        while _exit_status(process) is None and time.monotonic() < deadline:
            time.sleep(_TICK)
    finally:
        signal_session(process.pid, signal.SIGKILL)
        errors.close()
        process.wait()


def _exit_status(process: subprocess.Popen[bytes]) -> int | None:
    """Its exit status or the signal that ended it, None while it runs. Does not reap it, unlike ``poll``."""
    result = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    return None if result is None else result.si_status


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    """Its standard output and error, which are pipes: ``Popen`` cannot tell that in its types."""
    return cast(IO[bytes], process.stdout), cast(IO[bytes], process.stderr)


def _outcome(return_code: int) -> str:
    return str(return_code) if return_code >= 0 else f"signal {-return_code}"


def _last_line(messages: bytearray) -> str:
    lines = [line for line in messages.splitlines() if line.strip()]
    return f": {printable(bytes(lines[-1].strip()))[:_LONGEST_QUOTE]}" if lines else ""


def _remedy(said: str) -> str:
    if any(word in said for word in _FOREIGN):
        return "Use the mdb_copy of the server's own LMDB, which this program's is not; see docs/HOT-BACKUP.md."
    return "Run it by hand, as the user that runs archiver."


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
