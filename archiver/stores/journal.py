"""What is open in a store right now, on disk, so that the run after a kill -9 can end it."""

import os
import threading
from pathlib import Path

from archiver.errors import StorageError
from archiver.filesystem import sync_directory


class Journal:
    """A durable set of entries: lines without line breaks, such as the id of a multipart upload.

    The file is a log of lines ``+entry`` and ``-entry``, emptied whenever nothing is open. A line that a crash cut
    off counts as never written. It belongs to one source and one destination, and to the one run at a time that
    holds the source's lock. Without a path (for commands that only read) the entries are kept in memory.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._entries: dict[str, None] | None = {} if path is None else None

    def add(self, entry: str) -> None:
        """Record ``entry``; it is on disk when this returns."""
        if "\n" in entry:
            raise ValueError(f"a journal entry has a line break: {entry!r}")
        with self._lock:
            self._load()[entry] = None
            self._append(f"+{entry}\n", durable=True)

    def remove(self, entry: str) -> None:
        """Forget ``entry``. Not forced to disk: ending a second time what was ended once does no harm."""
        with self._lock:
            entries = self._load()
            if entry not in entries:
                return
            del entries[entry]
            if entries:
                self._append(f"-{entry}\n", durable=False)
            else:
                self._empty()

    def entries(self) -> list[str]:
        """What is open, oldest first."""
        with self._lock:
            return list(self._load())

    def _load(self) -> dict[str, None]:
        if self._entries is None:
            self._entries = _replay(self._path) if self._path is not None else {}
        return self._entries

    def _append(self, line: str, *, durable: bool) -> None:
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            is_new = not self._path.exists()
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                _write_line(descriptor, line.encode())
                if durable:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if is_new:
                sync_directory(self._path.parent)
        except OSError as error:
            raise _journal_error(self._path, error) from error

    def _empty(self) -> None:
        if self._path is None:
            return
        try:
            os.truncate(self._path, 0)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _journal_error(self._path, error) from error


def _write_line(descriptor: int, line: bytes) -> None:
    """Append all of ``line``, or, when the disk is full, nothing: the next one would run into a part of it."""
    size = os.fstat(descriptor).st_size
    written = 0
    try:
        while written < len(line):
            written += os.write(descriptor, line[written:])
    except OSError:
        os.ftruncate(descriptor, size)
        raise


def _replay(path: Path) -> dict[str, None]:
    try:
        log = path.read_bytes()
        complete = log[: log.rfind(b"\n") + 1]
        if len(complete) < len(log):
            # What a crash cut off would otherwise run into the next line.
            os.truncate(path, len(complete))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise _journal_error(path, error) from error
    entries: dict[str, None] = {}
    for line in complete.decode(errors="replace").splitlines():
        if line.startswith("+"):
            entries[line[1:]] = None
        elif line.startswith("-"):
            entries.pop(line[1:], None)
    return entries


def _journal_error(path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"the upload journal {path} cannot be used: {error.strerror}",
        hint="Make the state directory writable for the user who runs archiver.",
    )
