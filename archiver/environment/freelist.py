"""The free list of a commit, read from the file without LMDB, and the test for a truncated ``data.mdb`` that needs it.

The free list is a B-tree of native u64 txnid -> u64 count and that many u64 page numbers (LMDB's mdb.c,
``mdb_freelist_save``); all its entries are free pages of the commit. A sound file may be shorter than its last page
says: pages that a transaction took at the end of the file and gave back are in the free list and were never written.
So only a page that is missing *and* not free proves that a file was cut, and LMDB must not be let loose on such a
file: touching a mapped page beyond its end kills the process with SIGBUS.
"""

import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from archiver.environment.meta import NO_PAGE, PAGE_HEADER, Meta
from archiver.errors import FormatError

_BRANCH, _LEAF = 0x01, 0x02
_BIG_DATA = 0x01
_PAGE = struct.Struct("=QHHHH")
_NODE = struct.Struct("=HHHH")
_ENTRY_KEY = 8
_ORDER = sys.byteorder


def check_not_truncated(path: Path, meta: Meta) -> None:
    """Raise ``FormatError`` when a page that ``meta`` uses lies beyond the end of ``path``.

    ``meta`` must be protected from later commits (pinned, or no writer is live) while this runs.
    """
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        present = size // meta.page_size
        if present > meta.last_page:
            return
        free = sum(page >= present for page in _FreeList(file.fileno(), path, meta).pages())
        in_use = meta.last_page + 1 - present - free
        if in_use > 0:
            raise _truncated(path, meta, size, in_use)


class _FreeList:
    """Walks the free list's tree; ``FormatError`` for whatever is not as LMDB writes it."""

    def __init__(self, descriptor: int, path: Path, meta: Meta) -> None:
        self._descriptor = descriptor
        self._path = path
        self._meta = meta
        self._unread = meta.free_list.branch_pages + meta.free_list.leaf_pages

    def pages(self) -> Iterator[int]:
        """The number of every free page, in no particular order; bounded memory."""
        waiting = [] if self._meta.free_list.root == NO_PAGE else [self._meta.free_list.root]
        while waiting:
            page = self._read(waiting.pop(), 1)
            self._unread -= 1
            _, _, flags, lower, _ = _PAGE.unpack_from(page)
            # A tree that leads back to itself would be walked for ever.
            if self._unread < 0 or flags & (_BRANCH | _LEAF) not in (_BRANCH, _LEAF):
                raise self._corrupt()
            for index in range((lower - PAGE_HEADER) // 2):
                offset = int.from_bytes(page[PAGE_HEADER + 2 * index :][:2], _ORDER)
                if flags & _BRANCH:
                    waiting.append(self._child(page, offset))
                else:
                    yield from self._entry(page, offset)

    def _child(self, page: bytes, offset: int) -> int:
        low, middle, high, _ = self._node(page, offset)
        return low | middle << 16 | high << 32

    def _entry(self, page: bytes, offset: int) -> tuple[int, ...]:
        low, high, flags, key_size = self._node(page, offset)
        size = low | high << 16
        start = offset + _NODE.size + key_size
        if key_size != _ENTRY_KEY or size < 8 or size % 8:
            raise self._corrupt()
        data = page[start : start + size]
        if flags & _BIG_DATA:
            number = int.from_bytes(page[start : start + 8], _ORDER)
            length = -(-(PAGE_HEADER + size) // self._meta.page_size)
            data = self._read(number, length)[PAGE_HEADER : PAGE_HEADER + size]
        if len(data) != size:
            raise self._corrupt()
        count, *numbers = struct.unpack(f"={size // 8}Q", data)
        if count > len(numbers):
            raise self._corrupt()
        return tuple(numbers[:count])

    def _node(self, page: bytes, offset: int) -> tuple[int, int, int, int]:
        if not PAGE_HEADER <= offset <= len(page) - _NODE.size:
            raise self._corrupt()
        low, high, flags, key_size = _NODE.unpack_from(page, offset)
        return low, high, flags, key_size

    def _read(self, number: int, count: int) -> bytes:
        size = self._meta.page_size
        if not 2 <= number <= self._meta.last_page:
            raise self._corrupt()
        page = os.pread(self._descriptor, count * size, number * size)
        if len(page) < count * size:
            raise _truncated(self._path, self._meta, os.fstat(self._descriptor).st_size, count)
        if _PAGE.unpack_from(page)[0] != number:
            raise self._corrupt()
        return page

    def _corrupt(self) -> FormatError:
        return FormatError(f"the free list of {self._path} is corrupt", hint="Restore this environment from a backup.")


def _truncated(path: Path, meta: Meta, size: int, in_use: int) -> FormatError:
    return FormatError(
        f"{path} is truncated: expected up to {meta.size} bytes, got {size}, and {in_use} missing pages are in use",
        hint="The copy was cut off, for example by a full disk: use another copy of this file.",
    )
