"""The free list of a commit, read from the file without LMDB: which pages are free, and which may be reused.

The free list is a B-tree of native u64 txnid -> u64 count and that many u64 page numbers (LMDB's mdb.c,
``mdb_freelist_save``); all its entries are free pages of the commit. A sound file may be shorter than its last page
says: pages that a transaction took at the end of the file and gave back are in the free list and were never written.
So only a page that is missing *and* not free proves that a file was cut, and LMDB must not be let loose on such a
file: touching a mapped page beyond its end kills the process with SIGBUS.

A file may also be made to keep its reader busy, with counts of any size over a few pages on the disk. So no page of the
list is visited twice, and what is read in one piece is short.

Every function here needs a ``meta`` that is protected from later commits: its own commit or an older one is pinned, or
no writer is live.
"""

import operator
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from archiver.environment.meta import NO_PAGE, PAGE_HEADER, Meta, opened
from archiver.errors import FormatError

_BRANCH, _LEAF, _OVERFLOW = 0x01, 0x02, 0x04
_BIG_DATA = 0x01
_PAGE = struct.Struct("=QHHHH")
_NODE = struct.Struct("=HHHH")
_KEYED_NODE = struct.Struct("=HHHHQ")
_NUMBER = struct.Struct("=Q")
_AFTER_ALL = 2**64
"""Greater than every txnid."""
_NUMBERS_AT_ONCE = 8192


def check_not_truncated(path: Path, meta: Meta) -> None:
    """Raise ``FormatError`` when a page that ``meta`` uses lies beyond the end of ``path``."""
    with opened(path) as descriptor:
        size = os.fstat(descriptor).st_size
        present = size // meta.page_size
        if present > meta.last_page:
            return
        free = sum(page >= present for page in _FreeList(descriptor, path, meta).pages())
        in_use = meta.last_page + 1 - present - free
        if in_use > 0:
            raise _truncated(path, meta, size, in_use)


def reusable_pages(path: Path, meta: Meta, before: int) -> int:
    """How many of the free pages of ``meta`` may be reused while ``before`` is the oldest transaction that is pinned.

    Those that earlier transactions have freed (LMDB's ``mdb_page_alloc``). Reads the part of the list that is as old,
    and of each entry only its length: 16 ms for 10,000 entries of a few pages, 40 ms for as many long ones. Raises
    ``FormatError`` when the list is corrupt.
    """
    with opened(path) as descriptor:
        return _FreeList(descriptor, path, meta).count(before)


class _FreeList:
    """Walks the free list's tree, once; ``FormatError`` for whatever is not as LMDB writes it."""

    def __init__(self, descriptor: int, path: Path, meta: Meta) -> None:
        self._descriptor = descriptor
        self._path = path
        self._meta = meta
        self._size = os.fstat(descriptor).st_size
        self._visited: set[int] = set()

    def pages(self) -> Iterator[int]:
        """The number of every free page, in no particular order; bounded memory."""
        for page, offset in self._entries(_AFTER_ALL):
            start, count = self._list(page, offset)
            yield from self._numbers(start, count)

    def count(self, before: int) -> int:
        """How many pages the entries of transactions before ``before`` hold."""
        total = sum(self._list(page, offset)[1] for page, offset in self._entries(before))
        if total >= self._meta.last_page:
            raise self._corrupt()
        return total

    def _entries(self, before: int) -> Iterator[tuple[bytes, int]]:
        """The leaf page and the offset in it of each entry whose txnid is less than ``before``."""
        waiting = [] if self._meta.free_list.root == NO_PAGE else [self._meta.free_list.root]
        while waiting:
            page = self._read(waiting.pop(), 1, self._meta.page_size)
            _, _, flags, lower, _ = _PAGE.unpack_from(page)
            if flags & (_BRANCH | _LEAF) not in (_BRANCH, _LEAF):
                raise self._corrupt()
            for offset in self._nodes(page, lower, before, is_branch=bool(flags & _BRANCH)):
                if flags & _BRANCH:
                    waiting.append(self._child(page, offset))
                else:
                    yield page, offset

    def _nodes(self, page: bytes, lower: int, before: int, *, is_branch: bool) -> Iterator[int]:
        """The offset of each node of a page that leads to entries of transactions before ``before``."""
        if not PAGE_HEADER <= lower <= len(page):
            raise self._corrupt()
        previous = -1
        for index, offset in enumerate(struct.unpack_from(f"={(lower - PAGE_HEADER) // 2}H", page, PAGE_HEADER)):
            # The first child of a branch page holds all that is less than the second key; its own key may be empty.
            if index or not is_branch:
                key = self._key(page, offset)
                if key <= previous:
                    raise self._corrupt()
                if key >= before:
                    return
                previous = key
            yield offset

    def _key(self, page: bytes, offset: int) -> int:
        if not PAGE_HEADER <= offset <= len(page) - _KEYED_NODE.size:
            raise self._corrupt()
        _, _, _, key_size, key = _KEYED_NODE.unpack_from(page, offset)
        if key_size != _NUMBER.size:
            raise self._corrupt()
        return int(key)

    def _child(self, page: bytes, offset: int) -> int:
        if not PAGE_HEADER <= offset <= len(page) - _NODE.size:
            raise self._corrupt()
        low, middle, high, _ = _NODE.unpack_from(page, offset)
        return int(low | middle << 16 | high << 32)

    def _list(self, page: bytes, offset: int) -> tuple[int, int]:
        """Where in the file the page numbers of the entry at ``offset`` of a leaf page begin, and how many they are."""
        low, high, flags, _, _ = _KEYED_NODE.unpack_from(page, offset)
        size = low | high << 16
        if size % _NUMBER.size or not size:
            raise self._corrupt()
        start = offset + _KEYED_NODE.size
        if start + (_NUMBER.size if flags & _BIG_DATA else size) > len(page):
            raise self._corrupt()
        (first_word,) = _NUMBER.unpack_from(page, start)
        if flags & _BIG_DATA:
            pages = -(-(PAGE_HEADER + size) // self._meta.page_size)
            page, start = self._read(first_word, pages, PAGE_HEADER + _NUMBER.size), PAGE_HEADER
            if not _PAGE.unpack_from(page)[2] & _OVERFLOW:
                raise self._corrupt()
            (first_word,) = _NUMBER.unpack_from(page, start)
        if first_word >= size // _NUMBER.size:
            raise self._corrupt()
        position: int = _PAGE.unpack_from(page)[0] * self._meta.page_size + start + _NUMBER.size
        return position, first_word

    def _numbers(self, position: int, count: int) -> Iterator[int]:
        """The ``count`` page numbers from byte ``position`` on, which descend."""
        above = self._meta.last_page + 1
        while count:
            length = min(count, _NUMBERS_AT_ONCE)
            numbers = struct.unpack(f"={length}Q", self._bytes(position, length * _NUMBER.size))
            if not (above > numbers[0] and numbers[-1] >= 2 and all(map(operator.gt, numbers, numbers[1:]))):
                raise self._corrupt()
            yield from numbers
            above, position, count = numbers[-1], position + length * _NUMBER.size, count - length

    def _read(self, number: int, pages: int, size: int) -> bytes:
        """The first ``size`` bytes of the ``pages`` pages from page ``number`` on, which belong together."""
        if number in self._visited or not 2 <= number <= self._meta.last_page + 1 - pages:
            raise self._corrupt()
        self._visited.add(number)
        data = self._bytes(number * self._meta.page_size, size)
        if _PAGE.unpack_from(data)[0] != number:
            raise self._corrupt()
        return data

    def _bytes(self, position: int, size: int) -> bytes:
        # A position that the file does not reach may be one that the system cannot express.
        data = os.pread(self._descriptor, size, position) if position + size <= self._size else b""
        if len(data) < size:
            raise _truncated(self._path, self._meta, self._size, -(-size // self._meta.page_size))
        return data

    def _corrupt(self) -> FormatError:
        return FormatError(f"the free list of {self._path} is corrupt", hint="Restore this environment from a backup.")


def _truncated(path: Path, meta: Meta, size: int, in_use: int) -> FormatError:
    return FormatError(
        f"{path} is truncated: expected up to {meta.size} bytes, got {size}, and {in_use} missing pages are in use"
    )
