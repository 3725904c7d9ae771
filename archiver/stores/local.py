"""The store in a directory: ``file:///path``."""

import errno
import os
import secrets
import stat
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from archiver.buffers import Buffer
from archiver.errors import AlreadyExistsError, NotFoundError, StorageError
from archiver.filesystem import sync_directory
from archiver.stores.abandonment import Abandonment, Generations
from archiver.stores.base import StoredObject
from archiver.stores.journal import Journal
from archiver.stores.keys import check_directory, check_key, check_prefix, is_segment
from archiver.stores.limits import NO_LIMITS, Limits, limiter, stretches
from archiver.stores.local_errors import lookup_error, storage_error
from archiver.stores.plain import PlainStore
from archiver.stores.ranges import READ_SIZE, check_range, range_end

# No key may hold a '~', so no key can ever be mistaken for a temporary file, nor the other way round.
_TEMPORARY_START = ".~"
_TEMPORARY_END = ".partial"
_EARLIEST, _LATEST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


class LocalStore(PlainStore):
    """Implements Store in the directory ``root``, which ``create`` makes when it is missing.

    A key is written to a temporary file beside its final place, forced to disk, and linked to its name, which fails
    when the name exists; so a key is there as a whole or not at all, also after a power cut. Files are 0600,
    directories 0700. Symbolic links below ``root`` are not followed, and what is not a key is not listed.
    """

    def __init__(self, root: Path, journal: Journal, *, url: str | None = None, limits: Limits = NO_LIMITS) -> None:
        self.url = root.as_uri() if url is None else url
        self._root = root
        self._journal = journal
        self._lock = threading.Lock()
        self._durable: set[Path] = set()
        self._upload = limiter(limits.upload)
        self._download = limiter(limits.download)
        self._work = Generations()

    def clock(self) -> datetime:
        return datetime.now(UTC)

    def create(self, key: str, body: Iterable[Buffer]) -> StoredObject:
        check_key(key)
        work = self._work.current()
        path = self._root / key
        temporary = path.with_name(f"{_TEMPORARY_START}{secrets.token_hex(8)}{_TEMPORARY_END}")
        try:
            self._make_directory(path.parent)
        except OSError as error:
            raise storage_error(path.parent, error) from error
        entry = str(temporary.relative_to(self._root))
        self._journal.add(entry)
        try:
            size = self._write(temporary, body, work)
            modified = self._publish(temporary, path)
        except BaseException:
            with suppress(OSError, StorageError):
                temporary.unlink(missing_ok=True)
                self._journal.remove(entry)
            raise
        self._journal.remove(entry)
        return StoredObject(key, size, modified)

    def read(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        check_key(key)
        check_range(start, length)
        return self._read(key, start, length, self._work.current())

    def stat(self, key: str) -> StoredObject:
        check_key(key)
        path = self._root / key
        try:
            status = path.lstat()
        except OSError as error:
            raise lookup_error(path, error) from error
        if not stat.S_ISREG(status.st_mode):
            raise NotFoundError(f"{path} is not a regular file")
        return StoredObject(key, status.st_size, _modified(status))

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        check_prefix(prefix)
        self._check_root()
        above = prefix[: prefix.rfind("/") + 1]
        return self._walk(above, prefix)

    def list_names(self, prefix: str = "") -> Iterator[str]:
        check_directory(prefix)
        self._check_root()
        # A directory in which nothing was completed is no name: S3 would not list it either.
        return iter(
            sorted(
                name.rstrip("/")
                for name in self._names(prefix)
                if not name.endswith("/") or any(True for _ in self._walk(prefix + name, prefix))
            )
        )

    def copy(self, source: str, key: str) -> StoredObject:
        # Not a hard link: that would have the age of its source, and expire with it.
        check_key(key)
        self.stat(source)
        return self.create(key, self.read(source))

    def delete(self, key: str) -> None:
        # Directories stay: another thread may be about to create a key in one.
        path = self._root / self.stat(key).key
        try:
            path.unlink()
            sync_directory(path.parent)
        except OSError as error:
            raise lookup_error(path, error) from error

    def recover(self) -> int:
        removed = 0
        for entry in self._journal.entries():
            path = self._root / entry
            if not _is_temporary(path.name) or ".." in path.parts:
                raise StorageError(f"the upload journal names {path}, which is not a temporary file of archiver")
            try:
                path.unlink()
                removed += 1
            except (FileNotFoundError, NotADirectoryError):
                pass
            except OSError as error:
                raise storage_error(path, error) from error
            self._journal.remove(entry)
        return removed

    def abandon(self) -> None:
        self._work.abandon()

    def close(self) -> None:
        """Nothing is held open."""

    def _make_directory(self, directory: Path) -> None:
        """Make ``directory`` and what it lies in, durably.

        One inside the root that exists already is forced to disk too, once: another thread may have made it a moment
        ago.
        """
        with self._lock:
            if directory in self._durable:
                return
        inside = self._root in directory.parents
        if inside or not directory.is_dir():
            self._make_directory(directory.parent)
            with suppress(FileExistsError):
                directory.mkdir(0o700)
            if inside and directory.is_symlink():
                raise OSError(errno.ENOTDIR, "it is a symbolic link, which is not followed")
            sync_directory(directory.parent)
        with self._lock:
            self._durable.add(directory)

    def _write(self, path: Path, body: Iterable[Buffer], work: Abandonment) -> int:
        size = 0
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise storage_error(path, error) from error
        try:
            # What the body raises passes through as it is: only our own calls are translated.
            for buffer in body:
                size += len(buffer)
                for piece in stretches(buffer, self._upload):
                    work.check(str(path))
                    try:
                        _write_all(descriptor, piece)
                    except OSError as error:
                        raise storage_error(path, error) from error
            try:
                os.fsync(descriptor)
            except OSError as error:
                raise storage_error(path, error) from error
        finally:
            os.close(descriptor)
        return size

    def _publish(self, temporary: Path, path: Path) -> datetime:
        try:
            os.link(temporary, path, follow_symlinks=False)
        except FileExistsError:
            raise AlreadyExistsError(f"{path} exists already") from None
        except OSError as error:
            raise storage_error(path, error) from error
        try:
            status = temporary.stat()
            temporary.unlink()
            sync_directory(path.parent)
        except BaseException as error:
            path.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise storage_error(path, error) from error
            raise
        return _modified(status)

    def _read(self, key: str, start: int, length: int | None, work: Abandonment) -> Iterator[bytes]:
        path = self._root / key
        try:
            # A FIFO at this place must not block the open.
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise lookup_error(path, error) from error
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise NotFoundError(f"{path} is not a regular file")
            end = range_end(str(path), status.st_size, start, length)
            while start < end:
                size = min(READ_SIZE if self._download is None else self._download.stretch, end - start)
                work.check(str(path))
                if self._download is not None:
                    self._download.take(size)
                try:
                    buffer = os.pread(descriptor, size, start)
                except OSError as error:
                    raise storage_error(path, error) from error
                if not buffer:
                    raise StorageError(f"{path} ended early: expected {end} bytes, got {start}")
                start += len(buffer)
                yield buffer
        finally:
            os.close(descriptor)

    def _check_root(self) -> None:
        if not self._root.is_dir():
            raise NotFoundError(
                f"destination directory {self._root} does not exist",
                hint="Check the path, and that its filesystem is mounted.",
            )

    def _walk(self, directory: str, prefix: str) -> Iterator[StoredObject]:
        """Every key below ``directory`` (empty, or ending with ``/``) that starts with ``prefix``, in order."""
        for name in self._names(directory):
            key = directory + name
            if not name.endswith("/"):
                if key.startswith(prefix):
                    with suppress(NotFoundError):
                        yield self.stat(key)
            elif key.startswith(prefix) or prefix.startswith(key):
                yield from self._walk(key, prefix)

    def _names(self, directory: str) -> Sequence[str]:
        """What lies in ``directory``, in the order of the keys' bytes; the names of directories end with ``/``."""
        names = []
        try:
            with os.scandir(self._root / directory) as entries:
                for entry in entries:
                    if not is_segment(entry.name):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        names.append(f"{entry.name}/")
                    elif entry.is_file(follow_symlinks=False):
                        names.append(entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise storage_error(self._root / directory, error) from error
        return sorted(names)


def _is_temporary(name: str) -> bool:
    return name.startswith(_TEMPORARY_START) and name.endswith(_TEMPORARY_END)


def _modified(status: os.stat_result) -> datetime:
    try:
        return datetime.fromtimestamp(status.st_mtime, UTC)
    except (OverflowError, ValueError):
        # Some file systems hold times of years that a datetime cannot.
        return _LATEST if status.st_mtime > 0 else _EARLIEST


def _write_all(descriptor: int, view: memoryview) -> None:
    while view:
        view = view[os.write(descriptor, view) :]
