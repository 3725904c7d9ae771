"""Large files past the page cache: straight to the disk, and the pages of other services stay in memory.

Writing 4 GiB through the page cache took 7 to 10 seconds of processor time here, past it one. And what a restore writes
nobody reads soon, but the page cache would give up for it what a server beside it reads all the time.
"""

import errno
import mmap
import os
import threading

_ALIGNMENT = max(4096, mmap.PAGESIZE)
"""What the offset, the length and the memory of a direct write are multiples of: of the blocks of all usual disks, and
of whole pages, see ``DirectFile``."""
_WORTHWHILE = 256 * 1024
"""Bytes from which on a direct write is one: each waits for the disk, and small ones would mostly wait."""
_BUFFER = 4 * 1024 * 1024
_UNSUPPORTED = (errno.EINVAL, errno.EOPNOTSUPP)
"""How file systems without direct writes answer, at once or to the first write."""

_local = threading.local()


class DirectFile:
    """Writes whole pages of the new file of ``size`` bytes that is open as ``descriptor``, by a descriptor of its own.

    May be used from several threads, and beside writes to ``descriptor`` as long as no page is written in both ways.
    open(2) advises against both ways in one file for their speed, and against overlapping regions; apart from these,
    Linux keeps them coherent: before and after a direct write the cached pages that it covers are written back and
    dropped, so whoever reads the file later, through the page cache or a map, finds what was written.

    Like all writes it is durable once its file system has been synced: the disk may hold it in its own cache, and the
    file's blocks are entered in the journal. The file system that knows no direct writes is asked once for each file.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        self._usual = descriptor
        self._size = size
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._refused = False

    def write(self, view: memoryview, offset: int) -> int:
        """Write the first bytes of ``view``, which is whole pages as of ``whole_pages``, at ``offset``; returns how
        many these were: all, or fewer where the file system takes no direct writes. Raises ``OSError``."""
        descriptor = self._opened() if len(view) else None
        if descriptor is None:
            return 0
        written = 0
        while written < len(view):
            count = min(len(view) - written, _BUFFER)
            aligned = _buffer()[:count]
            aligned[:] = view[written : written + count]
            try:
                written += os.pwrite(descriptor, aligned, offset + written)
            except OSError as error:
                if error.errno not in _UNSUPPORTED:
                    raise
                self._refused = True
                break
        return written

    def close(self) -> None:
        """To be called when no thread writes any more."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _opened(self) -> int | None:
        with self._lock:
            if self._descriptor is None and not self._refused:
                self._descriptor = self._open()
                self._refused = self._descriptor is None
            return None if self._refused else self._descriptor

    def _open(self) -> int | None:
        # Writes that make a file longer exclude each other; those within it may go on at the same time.
        os.ftruncate(self._usual, self._size)
        try:
            # By the descriptor, not by the name: so it is the same file, whatever lies at the name by now.
            return os.open(f"/proc/self/fd/{self._usual}", os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)
        except OSError:
            return None


def whole_pages(offset: int, length: int) -> tuple[int, int]:
    """Of ``length`` bytes at ``offset`` of a file, the start and end of those in whole pages that are worth a direct
    write; (0, 0): none."""
    start = -offset % _ALIGNMENT
    end = length - (offset + length) % _ALIGNMENT
    return (start, end) if end - start >= _WORTHWHILE else (0, 0)


def _buffer() -> memoryview:
    """This thread's memory for direct writes, which begins with a page."""
    buffer: memoryview | None = getattr(_local, "buffer", None)
    if buffer is None:
        # Shared, as is Python's default: open(2) forbids a direct write of private memory while the process forks.
        buffer = _local.buffer = memoryview(mmap.mmap(-1, _BUFFER))
    return buffer
