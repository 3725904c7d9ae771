"""Iterables of buffers: the currency of every stage, source and store."""

import ctypes
import mmap
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress

Buffer = bytes | bytearray | memoryview
"""A run of bytes. A consumer may keep what it receives: no producer reuses a buffer that it has yielded."""


_MAPPED = 1024 * 1024
"""From this size on a new buffer is a mapping of its own."""
_M_ARENA_MAX = -8
"""malloc.h."""


def allocate(size: int) -> memoryview:
    """A new writable buffer of ``size`` bytes, all zero; if it is large it takes memory only as far as it is written.

    A ``bytearray`` is written twice: zeroed, then filled. On a virtual machine each first touch of a page is costly as
    well, so huge pages are asked for: 16 MiB then cost less than half of the time beyond what filling them takes.
    """
    if size < _MAPPED:
        return memoryview(bytearray(size))
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    # A kernel that was built without huge pages refuses, and does without.
    with suppress(OSError):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(memory)


def rechunk(buffers: Iterable[Buffer], size: int) -> Iterator[Buffer]:
    """Yield the same bytes in buffers of exactly ``size`` bytes; only the last one may be shorter, never empty.

    A buffer that already has the right size at the right place passes through without a copy.
    """
    pending = memoryview(b"")
    filled = 0
    for buffer in buffers:
        view = memoryview(buffer)
        while view:
            if not filled and len(view) >= size:
                yield view[:size]
                view = view[size:]
                continue
            if not filled:
                pending = allocate(size)
            taken = min(size - filled, len(view))
            pending[filled : filled + taken] = view[:taken]
            filled += taken
            view = view[taken:]
            if filled == size:
                yield pending
                filled = 0
    if filled:
        yield pending[:filled]


def multiples(buffers: Iterable[Buffer], unit: int) -> Iterator[Buffer]:
    """Yield the same bytes in buffers whose sizes are multiples of ``unit``, except the last one's; never empty.

    Only what straddles the end of a buffer is copied, ``unit`` bytes at a time.
    """
    pending = bytearray()
    for buffer in buffers:
        view = memoryview(buffer)
        if pending:
            taken = min(unit - len(pending), len(view))
            pending += view[:taken]
            view = view[taken:]
            if len(pending) < unit:
                continue
            yield pending
            pending = bytearray()
        whole = len(view) - len(view) % unit
        if whole:
            yield view[:whole]
        pending += view[whole:]
    if pending:
        yield pending


def split(buffers: Iterable[Buffer], limit: int) -> Iterator[Iterator[Buffer]]:
    """Cut one stream into consecutive streams of at most ``limit`` bytes each; at least one, empty for no bytes.

    Buffers are not cut: with buffers of equal size that divides ``limit``, every stream but the last has exactly
    ``limit`` bytes. Each inner stream must be used up before the next is taken.
    """
    source = (buffer for buffer in buffers if len(buffer))
    following = next(source, None)

    def piece() -> Iterator[Buffer]:
        nonlocal following
        size = 0
        while following is not None and (size == 0 or size + len(following) <= limit):
            current = following
            size += len(current)
            following = None
            yield current
            following = next(source, None)

    yield piece()
    while following is not None:
        yield piece()


class BufferFile:
    """A buffer as a file to read from, without a copy of it: what ``read`` returns are views."""

    def __init__(self, buffer: Buffer) -> None:
        self._view = memoryview(buffer)
        self._offset = 0

    def read(self, size: int = -1) -> memoryview:
        end = len(self._view) if size < 0 else self._offset + size
        piece = self._view[self._offset : end]
        self._offset += len(piece)
        return piece

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._offset, os.SEEK_END: len(self._view)}[whence]
        self._offset = min(max(start + offset, 0), len(self._view))
        return self._offset

    def tell(self) -> int:
        return self._offset


def share_heap() -> None:
    """Let all threads allocate from one heap, where the C library is glibc; before the first of them is started.

    It would give each its own, and keep in each what was freed there: some 300 MiB more with 8 workers.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
