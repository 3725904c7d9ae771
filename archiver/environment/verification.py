"""Proof that a data.mdb is whole: its structure, and that it holds the databases that it must."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lmdb.verify

from archiver.environment.databases import Database, list_databases
from archiver.environment.freelist import check_not_truncated
from archiver.environment.library import open_reading, translated
from archiver.environment.meta import read_meta
from archiver.errors import IntegrityError

_SHOWN_PROBLEMS = 3
_DUPSORT = 0x04
_NO_PAGE = 2**64 - 1
_lmdb_verify: Any = lmdb.verify
"""The module has no annotations."""


def verify_structure(data: Path) -> None:
    """Walk every page of the data file ``data``; raises ``IntegrityError`` with the first problems.

    Nobody may be writing to it. About 230 MB/s; memory is 2 bytes for each page of the file. LMDB itself notices next
    to nothing when it opens a file: one that was cut in half opens and reports its full entry count.
    """
    read_meta(data)
    try:
        with data.open("rb") as file:
            problems = _Verifier(file, os.fstat(file.fileno()).st_size).verify()
    except lmdb.verify.VerifyError as error:
        raise IntegrityError(f"{data} is corrupt: {error}") from error
    if problems:
        more = f" (and {len(problems) - _SHOWN_PROBLEMS} more)" if len(problems) > _SHOWN_PROBLEMS else ""
        raise IntegrityError(f"{data} is corrupt: {'; '.join(problems[:_SHOWN_PROBLEMS])}{more}")


def count_entries(data: Path) -> tuple[Database, ...]:
    """The databases of the data file ``data``, which no process has open; makes no lock file."""
    meta = read_meta(data)
    check_not_truncated(data, meta)
    with (
        open_reading(data, databases=meta.main.entries) as environment,
        translated(data),
        environment.begin(buffers=True) as transaction,
    ):
        return list_databases(environment, transaction, meta.main, data)[0]


def check_databases(data: Path, databases: Sequence[Database], expected: Sequence[Database]) -> None:
    """Raise ``IntegrityError`` unless the ``databases`` of ``data`` are the ``expected`` ones; names, flags and entries
    count."""
    found = {database.name: database for database in databases}
    for database in expected:
        actual = found.pop(database.name, None)
        if actual is None:
            raise IntegrityError(f"{data} lacks {_title(database)}")
        if actual.entries != database.entries:
            raise IntegrityError(
                f"{_title(database)} of {data}: expected {database.entries} entries, got {actual.entries}"
            )
        if actual.flags != database.flags:
            raise IntegrityError(
                f"{_title(database)} of {data}: expected flags {_words(database)}, got {_words(actual)}"
            )
    if found:
        raise IntegrityError(f"{data} holds {_title(next(iter(found.values())))}, which it should not")


def _title(database: Database) -> str:
    return (
        "the main database" if database.name is None else f"database {database.name.decode(errors='backslashreplace')}"
    )


def _words(database: Database) -> str:
    return " ".join(database.flags) or "none"


class _Verifier(_lmdb_verify._Verifier):  # type: ignore[misc]  # noqa: SLF001 - the public function has the flaw
    """py-lmdb's verifier, without its two false alarms, either of which would refuse the restore of a sound backup.

    It expects of a large value exactly the overflow pages that its size needs. But LMDB writes a value that shrinks
    within one transaction into the pages that it has (mdb.c, ``mdb_cursor_put``: "Is the ov page large enough?"), so
    more pages than needed are sound; what counts is what the first of them says.

    It expects a DUPSORT database to count no more branch and leaf pages than it has. But deleting a key whose
    duplicates fill a tree of their own leaves that tree's pages in the counters, which LMDB never reads to allocate.

    tests/environment/test_verification.py shows both alarms, and fails when py-lmdb no longer has them.
    """

    def _verify_tree(self, name: Any, db: Any, *arguments: Any, **options: Any) -> Any:
        if db.flags & _DUPSORT and db.root == _NO_PAGE:
            db.branch_pages = db.leaf_pages = 0
        return super()._verify_tree(name, db, *arguments, **options)

    def _check_counts(self, name: Any, db: Any, ctx: Any) -> None:
        if db.flags & _DUPSORT:
            db.branch_pages = min(db.branch_pages, ctx["branch"] + ctx["dup_branch"])
            db.leaf_pages = min(db.leaf_pages, ctx["leaf"] + ctx["dup_leaf"])
        super()._check_counts(name, db, ctx)

    def _bigdata(self, ctx: Any, pgno: int, i: int, buf: bytes, doff: int, dsize: int, want_bytes: bool) -> Any:
        room = self._room(buf, doff)
        data = super()._bigdata(ctx, pgno, i, buf, doff, max(dsize, room), want_bytes)
        return data if data is None else data[:dsize]

    def _room(self, buf: bytes, doff: int) -> int:
        """The bytes of data that the overflow pages of a node have room for; 0 when its pointer is nonsense."""
        number = int.from_bytes(buf[doff : doff + 8], sys.byteorder)
        first = self.read_page(number) if 2 <= number < self.next_pgno else None
        return 0 if first is None else self._pg_pages(first, 0) * self.psize - self.hdrsz
