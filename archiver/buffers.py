"""Iterables of buffers: the currency of every stage, source and store."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

Buffer = bytes | bytearray | memoryview
"""A run of bytes. A consumer may keep what it receives: no producer reuses a buffer that it has yielded."""


_BEGINNING = 1024 * 1024
"""Bytes of the first buffer of a stream, until it turns out to be longer."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
"""malloc.h."""
_LARGEST_ON_HEAP = 32 * 1024 * 1024
"""The most that glibc takes for M_MMAP_THRESHOLD."""
_KEPT_ON_HEAP = 512 * 1024 * 1024


def filled(size: int, read_into: Callable[[memoryview], int]) -> Iterator[memoryview]:
    """New buffers of ``size`` bytes, each filled by ``read_into``; the last is shorter, never empty.

    ``read_into`` fills what it gets from the start on, and returns how many bytes these were: fewer than it has room
    for only at the end. A stream that ends within a megabyte does not take a whole buffer, and the last buffer takes
    no more memory than its bytes: many short streams may wait at a time. None is held while the next one is filled.
    """
    part = memoryview(bytearray(min(size, _BEGINNING)))
    count = read_into(part)
    if count == len(part) < size:
        beginning, part = part, memoryview(bytearray(size))
        part[:count] = beginning
        count += read_into(part[count:])
    while count == size:
        yield part
        del part
        part = memoryview(bytearray(size))
        count = read_into(part)
    if count:
        yield part if count == len(part) else memoryview(bytes(part[:count]))


def rechunk(buffers: Iterable[Buffer], size: int) -> Iterator[Buffer]:
    """Yield the same bytes in buffers of exactly ``size`` bytes; only the last one may be shorter, never empty.

    A buffer that already has the right size at the right place passes through without a copy.
    """
    pending: list[memoryview] = []
    missing = size
    for buffer in buffers:
        view = memoryview(buffer)
        if pending:
            pending.append(view[:missing])
            view = view[missing:]
            missing -= len(pending[-1])
            if not missing:
                yield _joined(pending)
                missing = size
        while len(view) >= size:
            yield view[:size]
            view = view[size:]
        if view:
            pending.append(view)
            missing -= len(view)
        # Neither is held on to while the next one is waited for.
        del buffer, view
    if pending:
        yield _joined(pending)


def _joined(pending: list[memoryview]) -> bytes:
    """What is ``pending``, which is let go of before the whole is passed on."""
    whole = b"".join(pending)
    pending.clear()
    return whole


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


def tune_heap() -> None:
    """Let all threads allocate from one heap that keeps what was freed, where the C library is glibc; before the first
    of them is started.

    Each thread would get a heap of its own, which keeps what was freed there: some 300 MiB more with 8 workers. And
    glibc gives large buffers back to the system at once, to get fresh pages for the next one, which a virtual machine
    may have to ask its host for: a third of a restore's time in the kernel.
    """
    # Every command imports this module, and few need this.
    import ctypes

    with suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_ON_HEAP)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_ON_HEAP)
