"""The two meta pages of ``data.mdb``: what an environment's newest commit is, read without LMDB.

The layout is that of LMDB 0.9 (data version 1) on 64-bit machines, in the machine's byte order (LMDB's mdb.c,
``MDB_page``, ``MDB_meta``, ``MDB_db``)::

    offset  type     field
    0       u64      page number: 0 or 1
    10      u16      page flags, 0x08 = meta
    16      u32      magic 0xBEEFC0DE
    20      u32      data version
    32      u64      map size in bytes
    40      48 bytes tree of the free list; its first u32 is the page size
    88      48 bytes tree of the main database
    136     u64      last page in use
    144     u64      txnid of the commit

Commit N is written to page N & 1. LMDB 1.0 (data version 3) has longer page headers, checksums and encryption. The
lmdb wheel can open it, but nothing here could tell its meta pages, free list or lock file apart safely, and no server
that archiver is for writes it: it is recognised and refused.
"""

import os
import stat
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from archiver.buffers import Buffer
from archiver.errors import FormatError, NotFoundError, SourceError

DATA_FILE = "data.mdb"
PAGE_HEADER = 16
NO_PAGE = 2**64 - 1
"""The root of an empty tree."""

_MAGIC = 0xBEEFC0DE
_DATA_VERSION = 1
_META_FLAG = 0x08
_LONGEST_PAGE = 0x8000
_META_STRUCT = struct.Struct("=QHHIIIQQ48s48sQQ")
_TREE_STRUCT = struct.Struct("=IHHQQQQQ")
META_SIZE = _META_STRUCT.size
TREE_SIZE = _TREE_STRUCT.size

_OTHER_LAYOUTS = {
    12: "it was written by a 32-bit LMDB",
    24: "it is in the format of LMDB 1.0 (data version 3)",
}
_FOREIGN_HINT = "Dump it with that LMDB's mdb_dump and load it with mdb_load of a 64-bit LMDB 0.9 on this machine."


class Tree(msgspec.Struct, frozen=True):
    """A database's B-tree (``MDB_db``): its flags, pages and entries; ``root`` is ``NO_PAGE`` when it is empty."""

    leaf_key_size: int
    """Of fixed-size leaves; in the free list's tree it is the environment's page size instead."""
    flags: int
    depth: int
    branch_pages: int
    leaf_pages: int
    overflow_pages: int
    entries: int
    root: int

    @property
    def pages(self) -> int:
        """The pages that this tree occupies."""
        return self.branch_pages + self.leaf_pages + self.overflow_pages


class Meta(msgspec.Struct, frozen=True):
    """One commit of an environment. Sizes are bytes; ``last_page`` is the highest page number that it has used."""

    page_size: int
    map_size: int
    last_page: int
    txnid: int
    free_list: Tree
    main: Tree

    @property
    def size(self) -> int:
        """The bytes up to the end of the last page; the file may be shorter by free pages (see freelist.py)."""
        return (self.last_page + 1) * self.page_size


def parse_tree(record: Buffer) -> Tree:
    """The 48 bytes that LMDB keeps of a database, in a meta page or as a value of the main database."""
    return Tree(*_TREE_STRUCT.unpack(record))


def parse_meta(page: Buffer, path: Path, number: int) -> Meta:
    """Meta page ``number`` (0 or 1) from its first ``META_SIZE`` bytes or more; ``path`` is for messages.

    Raises ``FormatError`` for anything that LMDB 0.9 on this machine would not accept as a meta page.
    """
    if len(page) < META_SIZE:
        raise FormatError(f"{path} is truncated: expected {META_SIZE} bytes of meta page {number}, got {len(page)}")
    _, _, flags, _, magic, version, _, map_size, free_list, main, last_page, txnid = _META_STRUCT.unpack_from(page)
    if magic != _MAGIC:
        raise _not_a_meta_page(page, path, number)
    if version != _DATA_VERSION:
        raise FormatError(
            f"{path} has LMDB data version {version}, expected {_DATA_VERSION}",
            hint="archiver reads the format of LMDB 0.9, which heed uses too.",
        )
    free_tree = parse_tree(free_list)
    page_size = free_tree.leaf_key_size
    if not flags & _META_FLAG or page_size & (page_size - 1) or not 256 <= page_size <= _LONGEST_PAGE or last_page < 1:
        raise FormatError(
            f"meta page {number} of {path} is corrupt: flags {flags:#x}, page size {page_size}, last page {last_page}"
        )
    return Meta(page_size, map_size, last_page, txnid, free_tree, parse_tree(main))


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A descriptor of ``data.mdb`` for the block, to read from; the system's errors there become ``SourceError``.

    Raises ``NotFoundError`` when there is no such file, and ``FormatError`` when it is no regular one.
    """
    try:
        # In the place of the file, a pipe that nobody writes to or a device could keep the opening waiting for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError(
            f"no LMDB environment at {path.parent}: {path.name} does not exist",
            hint="Check the path, and that the volume it lies on is mounted.",
        ) from None
    except OSError as error:
        raise SourceError(
            f"cannot open {path}: {str(error.strerror).lower()}", hint=opening_hint(error, path)
        ) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise FormatError(f"{path} is not a regular file")
        yield descriptor
    except OSError as error:
        raise SourceError(f"cannot read {path}: {str(error.strerror).lower()}") from error
    finally:
        os.close(descriptor)


def opening_hint(error: OSError, path: Path) -> str | None:
    """What to do when a server's file at ``path`` cannot be opened because of ``error``, if that can be told."""
    if not isinstance(error, PermissionError):
        return None
    try:
        owner = path.stat().st_uid
    except OSError:
        # Its directory is closed to us, too.
        return "Run archiver as the server's user or as root."
    return f"Run archiver as the server's user (uid {owner}) or as root." if owner else "Run archiver as root."


def read_metas(path: Path) -> tuple[Meta, Meta]:
    """Both meta pages of ``data.mdb``; ``FormatError`` unless they are valid, as LMDB demands, and as of ``opened``."""
    with opened(path) as descriptor:
        return _read_both(descriptor, path)


def newest(metas: tuple[Meta, Meta]) -> Meta:
    """The commit that LMDB would open."""
    return metas[1] if metas[0].txnid < metas[1].txnid else metas[0]


def read_meta(path: Path) -> Meta:
    """The newest commit of ``data.mdb`` at ``path``; errors as of ``read_metas``."""
    return newest(read_metas(path))


def _read_both(descriptor: int, path: Path) -> tuple[Meta, Meta]:
    if os.fstat(descriptor).st_size == 0:
        raise FormatError(f"{path} is empty (0 bytes)")
    first = parse_meta(os.pread(descriptor, META_SIZE, 0), path, 0)
    second = parse_meta(os.pread(descriptor, META_SIZE, first.page_size), path, 1)
    if first.page_size != second.page_size:
        raise FormatError(
            f"the meta pages of {path} disagree on the page size: {first.page_size} and {second.page_size}"
        )
    return first, second


def _not_a_meta_page(page: Buffer, path: Path, number: int) -> FormatError:
    head = bytes(page[:64])
    magic = _MAGIC.to_bytes(4, sys.byteorder)
    if head[PAGE_HEADER : PAGE_HEADER + 4] == magic[::-1]:
        return FormatError(
            f"cannot read {path}: it was written on a machine of the other byte order", hint=_FOREIGN_HINT
        )
    for offset, reason in _OTHER_LAYOUTS.items():
        if head[offset : offset + 4] == magic:
            return FormatError(f"cannot read {path}: {reason}", hint=_FOREIGN_HINT)
    if number == 1:
        return FormatError(f"meta page 1 of {path} is corrupt: LMDB's magic number is missing")
    return FormatError(f"{path} is not an LMDB data file: LMDB's magic number is missing at byte {PAGE_HEADER}")
