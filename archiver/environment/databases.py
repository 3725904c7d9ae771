"""The databases of an environment, as one transaction sees them."""

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import lmdb
import msgspec

from archiver.environment.library import translated
from archiver.environment.meta import PAGE_HEADER, TREE_SIZE, Tree, parse_tree
from archiver.errors import FormatError

Flag = Literal["reverse_key", "dupsort", "integerkey", "integerdup", "dupfixed", "reversedup"]

_FLAGS: dict[int, Flag] = {
    0x02: "reverse_key",
    0x04: "dupsort",
    0x08: "integerkey",
    0x20: "integerdup",
    0x10: "dupfixed",
    0x40: "reversedup",
}
_REVERSE_KEY, _DUPSORT, _INTEGER_KEY = 0x02, 0x04, 0x08
_SEARCHED = 8 << 20
"""The bytes of leaf pages that are searched for the longest value: 0.4 s at most when they are in memory."""


class Database(msgspec.Struct, frozen=True):
    """One database; ``name`` None is the main one, whose entries include one for each named database."""

    name: bytes | None
    flags: tuple[Flag, ...]
    entries: int
    """Key-value pairs; every duplicate counts."""


def list_databases(
    environment: lmdb.Environment, transaction: "lmdb.Transaction[memoryview]", main: Tree, path: Path
) -> tuple[tuple[Database, ...], int]:
    """The main database and every named one by name, and the pages of all their trees; else as ``find_trees``."""
    return summary(find_trees(environment, transaction, main, path))


def summary(trees: Mapping[bytes | None, Tree]) -> tuple[tuple[Database, ...], int]:
    """The databases of ``trees``, sorted by name, and the pages of all."""
    databases = sorted(
        (_database(name, tree) for name, tree in trees.items()), key=lambda database: database.name or b""
    )
    return tuple(databases), sum(tree.pages for tree in trees.values())


def find_trees(
    environment: lmdb.Environment, transaction: "lmdb.Transaction[memoryview]", main: Tree, path: Path
) -> dict[bytes | None, Tree]:
    """The trees of the main database, under None, and of every named one, as ``transaction`` sees them.

    ``main`` is the main tree of the same commit. A name is a key of the main database, which may hold ordinary
    records too: only LMDB can tell, by opening it. Its own listing (``Environment.dbs``) tries every key and silently
    leaves out what exceeds max_dbs; here, values of another size are not tried and an excess is an error.

    Raises ``FormatError`` for a main tree that leads to a record twice: it could go on for ever.
    """
    found: dict[bytes | None, Tree] = {None: main}
    if main.flags & _DUPSORT:
        return found
    with translated(path), transaction.cursor() as cursor:
        for key, value in _records(cursor, main, path):
            # LMDB reads names as C strings: a key with a NUL would open the database of a shorter name.
            if len(value) != TREE_SIZE or 0 in key:
                continue
            try:
                environment.open_db(key, txn=transaction, create=False)
            except lmdb.IncompatibleError:
                continue
            found[key] = parse_tree(value)
    return found


def longest_value(
    environment: lmdb.Environment,
    transaction: "lmdb.Transaction[memoryview]",
    trees: Mapping[bytes | None, Tree],
    page_size: int,
    path: Path,
) -> int:
    """How many pages in a row the longest value in ``trees``, which ``find_trees`` has found, takes.

    Exact, but for a database of more than 8 MiB of keys and short values: to look at each record would take too long
    beside a server, so the values in pages of their own are taken to be of one length, as the records of a large table
    mostly are. Reads no page of such a value. Raises ``FormatError`` for a tree that leads to a record twice.
    """
    longest = 0
    for name, tree in trees.items():
        # Only the values in overflow pages take pages in a row, and those of a DUPSORT database are never that long.
        if not tree.overflow_pages or tree.flags & _DUPSORT:
            continue
        if tree.leaf_pages * page_size > _SEARCHED:
            longest = max(longest, -(-tree.overflow_pages // max(1, tree.entries)))
            continue
        with translated(path):
            database = None if name is None else environment.open_db(name, txn=transaction, create=False)
            with transaction.cursor(database) as cursor:
                size = max((len(value) for _, value in _records(cursor, tree, path)), default=0)
        longest = max(longest, -(-(PAGE_HEADER + size) // page_size))
    return longest


def _records(cursor: "lmdb.Cursor[memoryview]", tree: Tree, path: Path) -> Iterator[tuple[bytes, memoryview]]:
    """The records of a database without duplicates, in the order of their keys: a page can be met once only."""
    order = _order(tree.flags)
    previous = None
    for view, value in cursor:
        key = bytes(view)
        place = order(key)
        if previous is not None and not previous < place:
            raise FormatError(f"{path} is corrupt: the keys of a database are out of order")
        previous = place
        yield key, value


def _order(flags: int) -> Callable[[bytes], Any]:
    """What LMDB compares of the keys of a database with ``flags``."""
    if flags & _INTEGER_KEY:
        return lambda key: int.from_bytes(key, sys.byteorder)
    if flags & _REVERSE_KEY:
        return lambda key: key[::-1]
    return bytes


def _database(name: bytes | None, tree: Tree) -> Database:
    flags = tuple(flag for bit, flag in _FLAGS.items() if tree.flags & bit)
    return Database(name, flags, tree.entries)
