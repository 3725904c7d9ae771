"""Iterables of buffers: the currency of every stage, source and store."""

import io
import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Buffer = bytes | bytearray | memoryview
"""A run of bytes. A consumer may keep what it receives: no producer reuses a buffer that it has yielded."""


def rechunk(buffers: Iterable[Buffer], size: int) -> Iterator[Buffer]:
    """Yield the same bytes in buffers of exactly ``size`` bytes; only the last one may be shorter, never empty.

    A buffer that already has the right size at the right place passes through without a copy.
    """
    pending = bytearray()
    for buffer in buffers:
        view = memoryview(buffer)
        if pending:
            taken = min(size - len(pending), len(view))
            pending += view[:taken]
            view = view[taken:]
            if len(pending) == size:
                yield pending
                pending = bytearray()
        while len(view) >= size:
            yield view[:size]
            view = view[size:]
        if len(view):
            pending += view
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


class BufferFile(io.RawIOBase):
    """A buffer as a file to read from, without a copy of it."""

    def __init__(self, buffer: Buffer) -> None:
        self._view = memoryview(buffer)
        self._offset = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, target: "WriteableBuffer") -> int:
        wanted = memoryview(target)
        piece = self._view[self._offset : self._offset + len(wanted)]
        wanted[: len(piece)] = piece
        self._offset += len(piece)
        return len(piece)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._offset, os.SEEK_END: len(self._view)}[whence]
        self._offset = min(max(start + offset, 0), len(self._view))
        return self._offset
