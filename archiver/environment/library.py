"""Calls into the lmdb wheel: opening environments, and its exceptions turned into archiver's."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb

from archiver.errors import ArchiverError, FormatError, SourceError

MAX_DATABASES = 10_000
"""The most named databases of one environment that archiver reads: LMDB looks handles up one after the other."""

_LMDB_0_9 = 0
"""The wheel bundles two engines and would pick one by the file's format; only that of LMDB 0.9 is ever wanted."""

_MAP_SIZE_OF_FILE = 0
"""The wheel's default is 10 MiB or the file's size: a live writer would outgrow it between opening and pinning."""


def open_reading(path: Path, *, databases: int) -> lmdb.Environment:
    """Open an environment for reading; ``path`` is its directory, or its data file when that has no directory.

    ``databases`` is how many named databases it may hold. Never with LMDB's own locking, so it creates no file, and
    whoever reads beside a live process protects the snapshot himself (reader.py).
    """
    with translated(path):
        return lmdb.open(
            str(path),
            subdir=path.is_dir(),
            readonly=True,
            create=False,
            lock=False,
            map_size=_MAP_SIZE_OF_FILE,
            max_dbs=min(databases, MAX_DATABASES),
            lib_version=_LMDB_0_9,
        )


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn LMDB's errors about the environment at ``path`` into typed ones; its pipe errors are the caller's."""
    try:
        yield
    except lmdb.Error as error:
        raise _translate(error, path) from error


def _translate(error: lmdb.Error, path: Path) -> ArchiverError:
    match error:
        case lmdb.IncompatibleError():
            return SourceError(
                f"cannot make a compact copy of {path}: LMDB reports MDB_INCOMPATIBLE, so the file holds pages that "
                "are neither in use nor free (leaked)",
                hint="Rebuild it: mdb_dump -a of it into mdb_load of a new directory drops the leaked pages "
                "(mdb_copy without -c copies them; archiver takes no such plain image yet).",
            )
        case lmdb.DbsFullError():
            return SourceError(f"{path} holds more named databases than the {MAX_DATABASES:,} that archiver reads")
        case lmdb.CorruptedError() | lmdb.PageNotFoundError() | lmdb.InvalidError() | lmdb.BadTxnError():
            return FormatError(f"{path} is corrupt: {error}", hint="Restore this environment from a backup.")
        case _:
            return SourceError(f"cannot read {path}: {error}")
