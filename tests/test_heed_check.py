"""The heed writer's check: it passes what is one commit, and notices what is not."""

import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb
import pytest

from tests import heed
from tests.heed import HeedWriter

LEDGER = b"\xff" * 8
"""The key of the record in each database that says what the others are."""

Records = list[tuple[bytes, bytes]]
Earlier = dict[tuple[str, str], Records]
"""Records by the names of environment and database."""


@pytest.fixture
def stopped(heed_writer: Path, tmp_path: Path) -> Path:
    """A directory with both environments after a few hundred commits and an orderly end."""
    with HeedWriter.start(heed_writer, tmp_path, sync=False, nodes=200, index_size=50_000) as live:
        live.wait_for_commits(300)
        live.stop()
    return tmp_path


@pytest.mark.parametrize(
    ("environment", "database"),
    [("vector", "nodes"), ("vector", "hnsw_index"), ("graph", "edges"), ("graph", "nodes_by_type")],
)
@pytest.mark.parametrize("where", [0, 20, -1])
def test_a_changed_byte_in_a_value_is_noticed(
    heed_writer: Path, stopped: Path, environment: str, database: str, where: int
) -> None:
    data = stopped / environment / "data.mdb"
    key, value = _first_record(data.parent, database)
    content = data.read_bytes()
    # Pages that are free now may hold the same value.
    data.write_bytes(content.replace(value, _flipped(value, where)))
    problem = heed.check(heed_writer, stopped).problem
    number = struct.unpack("<Q", key)[0]
    assert problem == f"{environment}: {database}: value of key {number} has a wrong checksum"


def _first_record(directory: Path, database: str) -> tuple[bytes, bytes]:
    return next((key, value) for key, value in _all_records(directory, database) if key != LEDGER)


def _flipped(value: bytes, where: int) -> bytes:
    changed = bytearray(value)
    changed[where] ^= 1
    return bytes(changed)


def _delete(transaction: lmdb.Transaction, database: lmdb._Database) -> None:
    assert transaction.delete(next(iter(transaction.cursor(database)))[0], db=database)


def _move(transaction: lmdb.Transaction, database: lmdb._Database) -> None:
    key, value = next(iter(transaction.cursor(database)))
    assert transaction.delete(key, db=database)
    assert transaction.put(struct.pack("<Q", 1 << 40), value, db=database)


def _drop_ledger(transaction: lmdb.Transaction, database: lmdb._Database) -> None:
    assert transaction.delete(LEDGER, db=database)


def _drop(transaction: lmdb.Transaction, database: lmdb._Database) -> None:
    transaction.drop(database)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_delete, "records with sum"),
        (_move, f"found at key {1 << 40}"),
        (_drop_ledger, "edges: no ledger"),
        (_drop, "databases "),
    ],
)
def test_records_that_are_not_the_writers_are_noticed(
    heed_writer: Path,
    stopped: Path,
    change: Callable[[lmdb.Transaction, lmdb._Database], None],
    problem: str,
) -> None:
    with _changing(stopped / "graph", "edges") as (transaction, edges):
        change(transaction, edges)
    assert problem in (heed.check(heed_writer, stopped).problem or "")


@pytest.fixture
def earlier(heed_writer: Path, stopped: Path) -> Earlier:
    """The records of some databases as they were some commits before what then lies in ``stopped``."""
    found = {
        (environment, database): _all_records(stopped / environment, database)
        for environment, database in (("vector", "nodes"), ("vector", "hnsw_index"), ("graph", "agents"))
    }
    with HeedWriter.start(heed_writer, stopped, sync=False, nodes=200, index_size=50_000) as live:
        live.wait_for_commits(50)
        live.stop()
    return found


@pytest.mark.parametrize(
    ("environment", "database"), [("vector", "nodes"), ("vector", "hnsw_index"), ("graph", "agents")]
)
def test_a_database_of_an_earlier_commit_is_noticed(
    heed_writer: Path,
    stopped: Path,
    earlier: Earlier,
    environment: str,
    database: str,
) -> None:
    """Each database for itself is sound: only the commit counter tells."""
    with _changing(stopped / environment, database) as (transaction, handle):
        transaction.drop(handle, delete=False)
        for key, value in earlier[environment, database]:
            transaction.put(key, value, db=handle)
    assert " of commit " in (heed.check(heed_writer, stopped).problem or "")


def test_records_newer_than_the_ledger_are_noticed(heed_writer: Path, stopped: Path, earlier: Earlier) -> None:
    with _changing(stopped / "vector", "nodes") as (transaction, handle):
        transaction.put(LEDGER, dict(earlier["vector", "nodes"])[LEDGER], db=handle)
    assert ", but the last is " in (heed.check(heed_writer, stopped).problem or "")


@pytest.mark.parametrize(("database", "problem"), [("nodes", "records with sum"), ("hnsw_index", "of commit ")])
def test_one_record_of_an_earlier_commit_is_noticed(
    heed_writer: Path,
    stopped: Path,
    earlier: Earlier,
    database: str,
    problem: str,
) -> None:
    with _changing(stopped / "vector", database) as (transaction, handle):
        now = dict(transaction.cursor(handle))
        before = earlier["vector", database]
        key, value = next((key, value) for key, value in before if key != LEDGER and now.get(key, value) != value)
        transaction.put(key, value, db=handle)
    assert problem in (heed.check(heed_writer, stopped).problem or "")


@contextmanager
def _changing(directory: Path, database: str) -> Iterator[tuple[lmdb.Transaction, lmdb._Database]]:
    with lmdb.open(str(directory), map_size=1 << 30, max_dbs=16, lib_version=0) as environment:
        handle = environment.open_db(database.encode(), create=False)
        with environment.begin(write=True) as transaction:
            yield transaction, handle


def _all_records(directory: Path, database: str) -> Records:
    with (
        lmdb.open(str(directory), readonly=True, lock=False, max_dbs=16, lib_version=0) as environment,
        environment.begin() as transaction,
    ):
        return list(transaction.cursor(environment.open_db(database.encode(), txn=transaction, create=False)))


def test_a_truncated_file_is_noticed(heed_writer: Path, stopped: Path) -> None:
    data = stopped / "vector" / "data.mdb"
    os.truncate(data, data.stat().st_size // 2)
    assert not heed.check(heed_writer, stopped).ok


def test_a_missing_environment_is_noticed(heed_writer: Path, tmp_path: Path) -> None:
    assert heed.check(heed_writer, tmp_path).problem == f"no environment found in {tmp_path}"
    (tmp_path / "vector").mkdir()
    assert not heed.check(heed_writer, tmp_path).ok


def test_a_copy_read_while_it_writes_is_torn_and_noticed(heed_writer: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    (copy / "vector").mkdir(parents=True)
    with HeedWriter.start(heed_writer, tmp_path / "live", only="vector", sync=False) as live:
        live.wait_for_commits(50)
        for _ in range(10):
            _read_slowly(tmp_path / "live" / "vector" / "data.mdb", copy / "vector" / "data.mdb")
            if not heed.check(heed_writer, copy).ok:
                return
    pytest.fail("no torn copy was noticed")


def _read_slowly(source: Path, target: Path) -> None:
    with source.open("rb", buffering=0) as reader, target.open("wb") as written:
        while data := reader.read(1 << 18):
            written.write(data)
            time.sleep(0.002)


def test_a_copy_of_two_moments_is_noticed(heed_writer: Path, tmp_path: Path) -> None:
    data = tmp_path / "live" / "vector" / "data.mdb"
    mixed = tmp_path / "copy" / "vector" / "data.mdb"
    mixed.parent.mkdir(parents=True)
    with HeedWriter.start(heed_writer, tmp_path / "live", only="vector", paused=True) as live:
        before = data.read_bytes()
        for _ in range(50):
            live.commit()
        after = data.read_bytes()
    half = len(after) // 2 // 4096 * 4096
    for content in (before, after):
        mixed.write_bytes(content)
        assert heed.check(heed_writer, mixed.parents[1]).problem is None
    for content in (before[:half] + after[half:], after[:half] + before[half:]):
        mixed.write_bytes(content)
        assert not heed.check(heed_writer, mixed.parents[1]).ok
