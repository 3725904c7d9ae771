"""Two environments compared key by key: the proof that a restore gave back what was there."""

from itertools import zip_longest
from pathlib import Path

from archiver.environment.databases import list_databases
from archiver.environment.library import open_reading
from archiver.environment.meta import DATA_FILE, read_meta
from archiver.errors import IntegrityError


def compare_environments(one: Path, other: Path) -> dict[str, int]:
    """Raise ``IntegrityError`` unless both have the same databases, with the same flags, keys and values, in order.

    Returns the entries of each named database. No process may be writing to either of them.
    """
    expected = read_meta(one / DATA_FILE).main.entries + 1
    with (
        open_reading(one, databases=expected) as left,
        open_reading(other, databases=expected) as right,
        left.begin(buffers=True) as left_transaction,
        right.begin(buffers=True) as right_transaction,
    ):
        databases, _ = list_databases(left, left_transaction, read_meta(one / DATA_FILE).main, one)
        found, _ = list_databases(right, right_transaction, read_meta(other / DATA_FILE).main, other)
        if databases != found:
            raise IntegrityError(f"the databases of {other} differ from those of {one}")
        for database in databases:
            if database.name is None:
                continue
            left_cursor = left_transaction.cursor(left.open_db(database.name, txn=left_transaction, create=False))
            right_cursor = right_transaction.cursor(right.open_db(database.name, txn=right_transaction, create=False))
            for pair in zip_longest(left_cursor, right_cursor):
                if pair[0] != pair[1]:
                    raise IntegrityError(f"database {database.name!r} of {other} differs from that of {one}")
    return {database.name.decode("utf-8", "replace"): database.entries for database in databases if database.name}
