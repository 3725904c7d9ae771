"""The databases of an environment, as one transaction sees them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import lmdb

from archiver.environment.library import translated
from archiver.environment.meta import TREE_SIZE, Tree, parse_tree

Flag = Literal["reverse_key", "dupsort", "integerkey", "integerdup", "dupfixed", "reversedup"]

_FLAGS: dict[int, Flag] = {
    0x02: "reverse_key",
    0x04: "dupsort",
    0x08: "integerkey",
    0x20: "integerdup",
    0x10: "dupfixed",
    0x40: "reversedup",
}
_DUPSORT = 0x04


@dataclass(frozen=True, slots=True)
class Database:
    """One database; ``name`` None is the main one, whose entries include one for each named database."""

    name: bytes | None
    flags: tuple[Flag, ...]
    entries: int
    """Key-value pairs; every duplicate counts."""


def list_databases(
    environment: lmdb.Environment, transaction: "lmdb.Transaction[memoryview]", main: Tree, path: Path
) -> tuple[tuple[Database, ...], int]:
    """The main database and every named one by name, as ``transaction`` sees them, and the pages of all their trees.

    ``main`` is the main tree of the same commit. A name is a key of the main database, which may hold ordinary
    records too: only LMDB can tell, by opening it. Its own listing (``Environment.dbs``) tries every key and silently
    leaves out what exceeds max_dbs; here, values of another size are not tried and an excess is an error.
    """
    found = [_database(None, main)]
    pages = main.pages
    if main.flags & _DUPSORT:
        return tuple(found), pages
    with translated(path), transaction.cursor() as cursor:
        for key, value in cursor:
            # LMDB reads names as C strings: a key with a NUL would open the database of a shorter name.
            if len(value) != TREE_SIZE or 0 in key:
                continue
            name = bytes(key)
            try:
                environment.open_db(name, txn=transaction, create=False)
            except lmdb.IncompatibleError:
                continue
            tree = parse_tree(value)
            pages += tree.pages
            found.append(_database(name, tree))
    return tuple(sorted(found, key=lambda database: database.name or b"")), pages


def _database(name: bytes | None, tree: Tree) -> Database:
    flags = tuple(flag for bit, flag in _FLAGS.items() if tree.flags & bit)
    return Database(name, flags, tree.entries)
