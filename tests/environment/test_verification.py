"""Proof of a data file: what passes, and which damage is found."""

import os
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import lmdb.verify
import pytest
from blake3 import blake3

from archiver.environment.copying import copy_stream
from archiver.environment.databases import Database
from archiver.environment.snapshot import pin
from archiver.environment.verification import check_databases, copy_again, count_entries, verify_structure
from archiver.errors import IntegrityError, SourceError
from tests.environment.live import make_environment
from tests.heed import HeedWriter

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


def shrunk(directory: Path) -> None:
    """Values that have more pages than they need, and holes where larger ones were."""
    with lmdb.open(str(directory), map_size=1 << 26, lib_version=0) as environment:
        for size in (30_000, 3000, 9000, 100):
            with environment.begin(write=True) as transaction:
                for number in range(50):
                    transaction.put(b"%d" % number, b"v" * (size * 2))
                    transaction.put(b"%d" % number, b"v" * size)


def duplicates(directory: Path) -> None:
    """Trees of duplicates, some deleted, and databases without an entry."""
    chance = random.Random(4)
    with lmdb.open(str(directory), map_size=1 << 27, max_dbs=20, lib_version=0) as environment:
        for index, (dupsort, reverse) in enumerate([(False, False), (True, False), (True, True), (False, True)]):
            environment.open_db(b"empty%d" % index, dupsort=dupsort, reverse_key=reverse)
            database = environment.open_db(b"%d" % index, dupsort=dupsort, reverse_key=reverse)
            for _ in range(4):
                with environment.begin(write=True, db=database) as transaction:
                    for _ in range(3000):
                        transaction.put(b"%03d" % chance.randrange(30), struct.pack("=Q", chance.getrandbits(40)))
                    transaction.delete(b"%03d" % chance.randrange(30))


def nothing(directory: Path) -> None:
    """An environment that nobody has written to yet but to make it."""
    with (
        lmdb.open(str(directory), map_size=1 << 24, lib_version=0) as environment,
        environment.begin(write=True) as one,
    ):
        one.put(b"key", b"value")
        one.delete(b"key")


def usual(directory: Path) -> None:
    make_environment(directory, entries=3000)


def written_over(directory: Path) -> None:
    """Random writes and deletions, so that no page lies in order."""
    chance = random.Random(9)
    with lmdb.open(str(directory), map_size=1 << 27, lib_version=0) as environment:
        for _ in range(40):
            with environment.begin(write=True) as transaction:
                for _ in range(200):
                    transaction.put(
                        b"%05d" % chance.randrange(5000), chance.randbytes(chance.choice((1, 90, 1800, 9000)))
                    )
                    transaction.delete(b"%05d" % chance.randrange(5000))


def compact(directory: Path) -> bytes:
    with pin(directory, name="x") as snapshot:
        return b"".join(copy_stream(snapshot, 1 << 20))


@pytest.mark.parametrize("make", [usual, shrunk, duplicates, nothing, written_over])
def test_a_compact_copy_of_a_compact_copy_is_the_same(tmp_path: Path, make: Callable[[Path], None]) -> None:
    (tmp_path / "original").mkdir()
    (tmp_path / "restored").mkdir()
    make(tmp_path / "original")
    data = tmp_path / "restored" / "data.mdb"
    data.write_bytes(compact(tmp_path / "original"))
    assert copy_again(data) == (blake3(data.read_bytes()).hexdigest(), count_entries(data))
    assert os.listdir(data.parent) == ["data.mdb"]


def test_what_heed_wrote_is_the_same_as_well(tmp_path: Path, heed_writer: Path) -> None:
    (tmp_path / "restored").mkdir()
    data = tmp_path / "restored" / "data.mdb"
    with HeedWriter.start(heed_writer, tmp_path / "live", sync=False, nodes=200, index_size=50_000) as server:
        server.wait_for_commits(30)
        for name in ("graph", "vector"):
            data.write_bytes(compact(tmp_path / "live" / name))
            assert copy_again(data)[0] == blake3(data.read_bytes()).hexdigest()


def test_some_damage_is_refused_or_shows_in_the_copy_and_some_only_in_a_look_at_every_page(data: Path) -> None:
    """LMDB copies a leaf page as it is, however many entries its head says that it has."""
    content = compact(data.parent)
    chance = random.Random(1)
    outcomes = set()
    for page in chance.sample(range(2, len(content) // PAGE), 25):
        broken = bytearray(content)
        broken[page * PAGE + chance.choice((0, 1, 10, 12))] ^= 0x05
        data.write_bytes(broken)
        try:
            same = copy_again(data)[0] == blake3(broken).hexdigest()
        except (IntegrityError, SourceError):
            outcomes.add("refused")
        else:
            outcomes.add("same" if same else "another")
    assert outcomes == {"refused", "another", "same"}
