"""Proof of a data file: what passes, and which damage is found."""

import os
import random
import struct
from pathlib import Path
from typing import Any

import lmdb
import lmdb.verify
import pytest

from archiver.environment.copying import copy_stream
from archiver.environment.databases import Database
from archiver.environment.snapshot import pin
from archiver.environment.verification import check_databases, count_entries, verify_structure
from archiver.errors import IntegrityError
from tests.environment.live import make_environment

PAGE = 4096


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_environment(tmp_path / "environment", entries=1000) / "data.mdb"


def test_a_sound_file_passes_and_no_lock_file_is_made(data: Path) -> None:
    (data.parent / "lock.mdb").unlink()
    verify_structure(data)
    check_databases(data, count_entries(data), count_entries(data))
    assert [path.name for path in data.parent.iterdir()] == ["data.mdb"]


def test_a_cut_file_is_refused_though_lmdb_opens_it(data: Path) -> None:
    entries = count_entries(data)
    os.truncate(data, data.stat().st_size // 2 // PAGE * PAGE)
    with lmdb.open(str(data), subdir=False, readonly=True, lock=False, lib_version=0) as environment:
        assert environment.stat()["entries"] == entries[0].entries
    with pytest.raises(IntegrityError, match=r"is corrupt: .*beyond EOF.* more"):
        verify_structure(data)
    with pytest.raises(IntegrityError, match="is truncated"):
        count_entries(data)


def test_damage_to_any_structure_is_found(data: Path) -> None:
    with pin(data.parent, name="x") as snapshot:
        copy = b"".join(copy_stream(snapshot, 1 << 20))
    chance = random.Random(1)
    for page in chance.sample(range(2, len(copy) // PAGE), 60):
        broken = bytearray(copy)
        # The page number, the type, or the number of entries or overflow pages.
        broken[page * PAGE + chance.choice((0, 1, 10, 12))] ^= 0x05
        data.write_bytes(broken)
        with pytest.raises(IntegrityError, match="is corrupt"):
            verify_structure(data)


def test_a_value_that_shrank_within_one_transaction_is_sound(tmp_path: Path) -> None:
    with (
        lmdb.open(str(tmp_path), map_size=1 << 24, lib_version=0) as environment,
        environment.begin(write=True) as transaction,
    ):
        transaction.put(b"key", b"v" * 10_000)
        transaction.put(b"key", b"v" * 3000)
        transaction.put(b"other", b"v" * 10_000)
    data = tmp_path / "data.mdb"
    assert "OVPAGES" in lmdb.verify.verify(str(data))[0]  # type: ignore[no-untyped-call]
    verify_structure(data)
    with pin(tmp_path, name="x") as snapshot:
        copy = tmp_path / "copy.mdb"
        copy.write_bytes(b"".join(copy_stream(snapshot, 1 << 20)))
    verify_structure(copy)
    content = bytearray(copy.read_bytes())
    overflow = next(start for start in range(2 * PAGE, len(content), PAGE) if content[start + 10] == 4)
    content[overflow + 12 : overflow + 16] = struct.pack("=I", 1 << 31)
    copy.write_bytes(content)
    with pytest.raises(IntegrityError, match="out of range"):
        verify_structure(copy)


def test_no_lmdb_file(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"something else" * 1000)
    with pytest.raises(IntegrityError, match="not an LMDB data file"):
        verify_structure(tmp_path / "data.mdb")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({b"plain": Database(b"plain", (), 1)}, r"database plain of .*: expected 1 entries, got 666"),
        ({b"plain": Database(b"plain", ("dupsort",), 666)}, r"database plain of .*: expected flags dupsort, got none"),
        ({b"plain": None}, r"holds database plain, which it should not"),
        ({b"more": Database(b"more", (), 0)}, r"lacks database more"),
        ({b"\xff\n": Database(b"\xff\n", (), 0)}, r"lacks database \\xff"),
        ({None: Database(None, (), 0)}, r"the main database of .*: expected 0 entries, got 9"),
    ],
)
def test_databases_that_are_not_as_recorded(
    data: Path, change: dict[bytes | None, Database | None], message: str
) -> None:
    recorded: dict[bytes | None, Database | None] = {database.name: database for database in count_entries(data)}
    recorded |= change
    with pytest.raises(IntegrityError, match=message):
        check_databases(data, count_entries(data), [database for database in recorded.values() if database is not None])


@pytest.mark.parametrize(("keys", "alarm"), [((b"a", b"b"), "leaf pages"), ((b"a",), "nonzero counters")])
def test_a_deleted_tree_of_duplicates_is_sound(tmp_path: Path, keys: tuple[bytes, ...], alarm: str) -> None:
    with lmdb.open(str(tmp_path), map_size=1 << 26, max_dbs=1, lib_version=0) as environment:
        database = environment.open_db(b"n", dupsort=True)
        with environment.begin(write=True, db=database) as transaction:
            for key in keys:
                for number in range(2000):
                    transaction.put(key, b"%08d" % number)
        with environment.begin(write=True, db=database) as transaction:
            transaction.delete(b"a")
    data = tmp_path / "data.mdb"
    verify: Any = lmdb.verify.verify
    assert any(alarm in problem for problem in verify(str(data))), "py-lmdb has mended its alarm"
    verify_structure(data)
