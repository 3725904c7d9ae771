"""What reading and restoring a tree share: paths that no symbolic link can divert, data regions, and hashing holes."""

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from blake3 import blake3

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
NOT_FOLLOWED = os.O_NOFOLLOW | os.O_CLOEXEC
ROOT = b"."
READ_SIZE = 4 * 1024 * 1024
"""Bytes that are read at once: one frame, unless configured otherwise, which then takes them without a copy."""
_SHORTEST_HOLE = 1024 * 1024
_MAX_REGIONS = 16 * 1024
_ZEROS = bytes(1024 * 1024)

Identity = tuple[int, int]
"""(st_dev, st_ino): which file this is, whatever it is called."""
Region = tuple[int, int]
"""(offset, length) in bytes, of a stretch of a file that holds data."""


def identity(status: os.stat_result) -> Identity:
    """Which file ``status`` describes."""
    return status.st_dev, status.st_ino


def sync_directory(path: Path) -> None:
    """Make the names in the directory ``path`` durable."""
    descriptor = os.open(path, DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def join(directory: bytes, name: bytes) -> bytes:
    """The relative path of ``name`` in ``directory``, which is ``.`` for the root."""
    return name if directory == ROOT else directory + b"/" + name


def printable(path: bytes) -> str:
    """``path`` for a person and a terminal: what is not UTF-8 or cannot be printed as escapes."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


class Beneath:
    """A directory held open, whose descendants are reached one path segment at a time without following symlinks.

    So neither a link planted in the tree nor a directory swapped for a link can lead outside, and paths may be longer
    than the kernel's PATH_MAX. The root itself may be a link: it is what the operator named. The directory used last
    stays open, which makes access in path order cheap; at most four descriptors are open. May be used by several
    threads; a block entered by ``directory`` or ``parent`` must not enter another one of the same object. Methods
    raise ``OSError`` as the system calls do: ``NotADirectoryError`` where a symlink is in the way.
    """

    def __init__(self, root: Path) -> None:
        self._root = os.open(root, DIRECTORY)
        self._path = ROOT
        self._directory = self._root
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the root; nothing can be reached afterwards."""
        self._keep(ROOT, self._root)
        os.close(self._root)

    @contextmanager
    def directory(self, path: bytes) -> Iterator[int]:
        """A descriptor of the directory ``path``, valid within the block."""
        with self._lock:
            yield self._reach(path)

    @contextmanager
    def parent(self, path: bytes) -> Iterator[tuple[int, bytes]]:
        """A descriptor of the directory that holds ``path``, valid within the block, and the name of ``path`` in it."""
        directory, _, name = path.rpartition(b"/")
        with self.directory(directory or ROOT) as descriptor:
            yield descriptor, name

    def status(self, path: bytes) -> os.stat_result:
        """What ``path`` is; of a symlink, the link itself."""
        directory, _, name = path.rpartition(b"/")
        with self._lock:
            return os.stat(name, dir_fd=self._reach(directory or ROOT), follow_symlinks=False)

    def target(self, path: bytes) -> bytes:
        """The text of the symlink ``path``."""
        directory, _, name = path.rpartition(b"/")
        with self._lock:
            return os.readlink(name, dir_fd=self._reach(directory or ROOT))

    def open(self, path: bytes, flags: int, mode: int = 0o600) -> int:
        """A new descriptor of ``path``, closed by the caller. A symlink is not followed. A file that is made by it
        gets ``mode``, less the umask."""
        directory, _, name = path.rpartition(b"/")
        with self._lock:
            return os.open(name, flags | NOT_FOLLOWED, mode, dir_fd=self._reach(directory or ROOT))

    def _reach(self, path: bytes) -> int:
        if path != self._path:
            self._keep(path, self._descend(path))
        return self._directory

    def _descend(self, path: bytes) -> int:
        if path == ROOT:
            return self._root
        current, rest = self._root, path
        if self._path != ROOT and path.startswith(self._path + b"/"):
            current, rest = self._directory, path[len(self._path) + 1 :]
        for segment in rest.split(b"/"):
            try:
                following = os.open(segment, DIRECTORY | NOT_FOLLOWED, dir_fd=current)
            finally:
                if current not in (self._root, self._directory):
                    os.close(current)
            current = following
        return current

    def _keep(self, path: bytes, directory: int) -> None:
        if self._directory not in (self._root, directory):
            os.close(self._directory)
        self._path, self._directory = path, directory


def data_regions(descriptor: int, size: int) -> list[Region]:
    """The stretches of the first ``size`` bytes of a file that may hold data; all else are holes, which read as zeros.

    Holes shorter than 1 MiB or than ``size / 16,384`` count as data, so that even a file riddled with holes has few
    regions. A file system that does not tell holes apart gives one region.
    """
    if size == 0:
        return []
    if os.fstat(descriptor).st_blocks * 512 >= size:
        return [(0, size)]
    shortest_hole = max(_SHORTEST_HOLE, size // _MAX_REGIONS)
    regions: list[Region] = []
    start = end = 0
    for data, hole in _stretches(descriptor, size):
        if data - end >= shortest_hole:
            if end > start:
                regions.append((start, end - start))
            start = data
        end = hole
    if end > start:
        regions.append((start, end - start))
    return regions


def _stretches(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    position = 0
    while position < size:
        try:
            data = os.lseek(descriptor, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            if error.errno in (errno.EINVAL, errno.ENOTSUP):
                data = position
            else:
                raise
        if data >= size:
            return
        position = min(size, os.lseek(descriptor, data, os.SEEK_HOLE))
        yield data, position


def read_region(descriptor: int, offset: int, length: int) -> Iterator[bytes]:
    """The bytes of a region in buffers of at most 4 MiB; fewer than ``length`` only where the file ends before."""
    end = offset + length
    while offset < end:
        block = os.pread(descriptor, min(READ_SIZE, end - offset), offset)
        if not block:
            return
        offset += len(block)
        yield block


def advise(descriptor: int, size: int, advice: int) -> None:
    """Tell the system how the first ``size`` bytes of a file will be read (``POSIX_FADV_*``), so that it reads ahead.

    A file system that takes no advice is read all the same.
    """
    with suppress(OSError):
        os.posix_fadvise(descriptor, 0, size, advice)


def hash_zeros(hasher: blake3, count: int) -> None:
    """Feed ``count`` zero bytes to ``hasher``: a hole counts as what it reads as."""
    zeros = memoryview(_ZEROS)
    while count > 0:
        hasher.update(zeros[:count])
        count -= len(zeros)
