"""Pins: what each method protects, what it leaves beside the data, and what is refused."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import lmdb
import pytest

from archiver.environment.copying import copy_stream
from archiver.environment.databases import Database
from archiver.environment.locks import OWN_NUMBERS
from archiver.environment.messages import Declared
from archiver.environment.pinning import pinned
from archiver.environment.snapshot import pin
from archiver.environment.verification import verify_structure
from archiver.errors import BusyError, NotFoundError, SnapshotChangedError, SourceError
from tests import heed
from tests.environment.live import counters, make_environment, read_content, writer
from tests.environment.traces import nothing_left_behind, pins
from tests.heed import HeedWriter
from tests.waiting import PATIENCE

MIB = 1 << 20


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    with nothing_left_behind():
        yield


def test_cold_copy_equals_the_environment_key_by_key(tmp_path: Path) -> None:
    directory = make_environment(tmp_path / "environment")
    before = datetime.now(UTC)
    with pin(directory, name="vector") as snapshot:
        assert (snapshot.name, snapshot.method, snapshot.map_size) == ("vector", "cold", 1 << 28)
        assert snapshot.origin == snapshot.directory == directory
        assert timedelta(0) <= snapshot.pinned - before < timedelta(seconds=PATIENCE)
        copy = tmp_path / "copy.mdb"
        copy.write_bytes(b"".join(copy_stream(snapshot, MIB)))
        assert snapshot.estimated_copy_size == copy.stat().st_size
        entries = {database.name: database.entries for database in snapshot.databases}
        flags = {database.name: database.flags for database in snapshot.databases}
    verify_structure(copy)
    assert read_content(copy) == read_content(directory / "data.mdb")
    assert entries[None] == len(entries) - 1 + 2
    assert entries[b"plain"] == 200 - 67
    assert entries[b"duplicates"] == 200
    assert list(flags) == sorted(flags, key=lambda name: name or b"")
    assert flags[b"reverse"] == ("reverse_key",)
    assert flags[b"integers"] == ("dupsort", "integerdup", "dupfixed")
    assert flags[b"\xff\xfe not text"] == ()


@pytest.mark.parametrize("declared", [None, "frozen", "external"])
def test_without_a_server_there_is_no_trace_beside_the_data(tmp_path: Path, declared: Declared | None) -> None:
    directory = make_environment(tmp_path / "environment")
    (directory / "lock.mdb").unlink()
    with pin(directory, name="vector", declared=declared) as snapshot:
        assert snapshot.method == (declared or "cold")
        for _ in copy_stream(snapshot, MIB):
            pass
    assert [path.name for path in directory.iterdir()] == ["data.mdb"]


def test_locked_copies_beside_a_busy_writer_are_snapshots(tmp_path: Path) -> None:
    directory = tmp_path / "environment"
    seen = []
    with writer(directory, "busy") as live:
        for attempt in range(4):
            with pin(directory, name="vector") as snapshot:
                assert snapshot.method == "locked"
                # The writer turns its pages over many times before the copy begins.
                target = int(str(live.ask("commit"))) + 50
                while int(str(live.ask("commit"))) < target:
                    pass
                (slot,) = pins(directory)
                assert str(slot.pid) in str(live.ask("readers"))
                copy = tmp_path / f"copy-{attempt}.mdb"
                copy.write_bytes(b"".join(copy_stream(snapshot, MIB)))
            verify_structure(copy)
            left, right, newest = counters(copy)
            assert left == right == newest
            assert left < target
            seen.append(left)
        assert pins(directory) == []
    assert seen == sorted(set(seen))


def test_locked_copies_beside_heed_at_full_speed_are_snapshots(heed_writer: Path, tmp_path: Path) -> None:
    live, seen = tmp_path / "live", []
    with HeedWriter.start(heed_writer, live, only="vector", sync=False) as server:
        for attempt in range(3):
            with pin(live / "vector", name="vector") as snapshot:
                assert snapshot.method == "locked"
                server.wait_for_commits(50)
                (slot,) = [reader for reader in server.readers()["vector"] if reader.pid in OWN_NUMBERS]
                assert slot.txnid is not None
                assert slot.txnid <= snapshot.txnid
                copy = tmp_path / f"copy-{attempt}/vector/data.mdb"
                copy.parent.mkdir(parents=True)
                copy.write_bytes(b"".join(copy_stream(snapshot, MIB)))
            assert all(reader.pid not in OWN_NUMBERS for reader in server.readers()["vector"])
            verify_structure(copy)
            result = heed.check(heed_writer, copy.parents[1])
            assert result.problem is None
            assert result.vector is not None
            seen.append(result.vector.counter)
        stats = server.stats()
        assert (stats.errors, stats.map_full) == (0, 0)
    assert seen == sorted(set(seen))


def test_the_lock_file_of_a_server_stays_as_it_was(heed_writer: Path, tmp_path: Path) -> None:
    directory = tmp_path / "vector"
    with HeedWriter.start(heed_writer, tmp_path, only="vector", paused=True) as server:
        head = (directory / "lock.mdb").read_bytes()[:64]
        with pin(directory, name="vector") as snapshot:
            assert snapshot.method == "locked"
        assert (directory / "lock.mdb").read_bytes()[:8] == head[:8]
        server.kill()
        left = (directory / "lock.mdb").read_bytes()
        with pin(directory, name="vector") as snapshot:
            assert snapshot.method == "cold"
        assert (directory / "lock.mdb").read_bytes() == left


def test_an_early_release_frees_the_reader_slot(tmp_path: Path) -> None:
    directory = tmp_path / "environment"
    with writer(directory), pin(directory, name="vector") as snapshot:
        assert len(pins(directory)) == 1
        snapshot.release()
        assert pins(directory) == []
        with pin(directory, name="vector") as again:
            assert again.method == "locked"


def test_two_backups_may_pin_one_environment(tmp_path: Path) -> None:
    directory = tmp_path / "environment"
    with writer(directory), pin(directory, name="one") as one, pin(directory, name="other") as other:
        assert len({reader.pid for reader in pins(directory)}) == 2
        assert b"".join(copy_stream(one, MIB)) == b"".join(copy_stream(other, MIB))


def test_a_full_reader_table_is_busy(tmp_path: Path) -> None:
    directory = tmp_path / "environment"
    # The writer has read, too, and keeps its slot.
    full = pytest.raises(BusyError, match="all 1 slots of its reader table are taken")
    with writer(directory, max_readers=1), full, pin(directory, name="vector"):
        pass
    with writer(directory, max_readers=2), pin(directory, name="vector") as snapshot:
        assert snapshot.method == "locked"


def test_a_lock_file_of_another_build_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "environment"
    with writer(directory) as live:
        with (directory / "lock.mdb").open("r+b", buffering=0) as lock:
            lock.seek(4)
            lock.write((0x50001).to_bytes(4, sys.byteorder))
        before = (directory / "lock.mdb").read_bytes()
        refused = pytest.raises(SourceError, match=rf"pid {live.pid}\) has it open in an unknown .* got 0x50001")
        with refused, pin(directory, name="vector"):
            pass
        assert (directory / "lock.mdb").read_bytes() == before


def test_what_is_declared_frozen_must_not_be_live(tmp_path: Path) -> None:
    directory = tmp_path / "environment"
    with writer(directory) as live:
        refused = pytest.raises(BusyError, match=rf"is declared frozen, but a live process \(pid {live.pid}\)")
        with refused, pin(directory, name="vector", declared="frozen"):
            pass


@pytest.mark.parametrize("declared", [None, "frozen"])
def test_a_commit_during_an_unlocked_copy_is_noticed(tmp_path: Path, declared: Declared | None) -> None:
    # More than the pipe and LMDB's buffers hold: what was read before the commit would be a true copy.
    directory = make_environment(tmp_path / "environment", entries=4000, value_size=1000)
    with pin(directory, name="vector", declared=declared) as snapshot:
        stream = copy_stream(snapshot, 4096)
        next(stream)
        with writer(directory):
            pass
        with pytest.raises(SnapshotChangedError, match=rf"expected transaction {snapshot.txnid} and no process, got"):
            list(stream)


_OPENS = "import sys, lmdb; e = lmdb.open(sys.argv[1], lib_version=0); print('open', flush=True); sys.stdin.read()"


def test_a_process_that_opens_a_cold_environment_is_noticed_early(tmp_path: Path) -> None:
    directory = make_environment(tmp_path / "environment", entries=4000, value_size=1000)
    with pin(directory, name="vector") as snapshot:
        stream = copy_stream(snapshot, 4096)
        next(stream)
        command = [sys.executable, "-c", _OPENS, str(directory)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == "open\n"
            # It ends in mid-copy, though nothing was written: what is in the pipe is the rest.
            taken = 4096
            with pytest.raises(SnapshotChangedError, match=rf"a live process \(pid {other.pid}\)"):
                snapshot.helper._process.wait(PATIENCE)
                for buffer in stream:
                    taken += len(buffer)
            assert taken < snapshot.estimated_copy_size


def test_a_cold_pin_does_not_keep_a_server_from_starting(heed_writer: Path, tmp_path: Path) -> None:
    with HeedWriter.start(heed_writer, tmp_path, only="vector", paused=True) as server:
        server.stop()
    with (
        pin(tmp_path / "vector", name="vector") as snapshot,
        HeedWriter.start(heed_writer, tmp_path, only="vector") as server,
    ):
        assert snapshot.method == "cold"
        server.wait_for_commits(2)


def test_a_missing_environment_is_not_found(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "missing"):
        with pytest.raises(NotFoundError, match=r"data.mdb does not exist"), pin(directory, name="vector"):
            pass


def test_more_databases_than_are_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = make_environment(tmp_path / "environment")
    monkeypatch.setattr("archiver.environment.library.MAX_DATABASES", 3)
    with pinned(directory, None) as environment, pytest.raises(SourceError, match="more named databases than the 3"):
        environment.list_databases()


def test_an_empty_environment_and_one_with_duplicates_in_its_main_database(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path / "empty"), lib_version=0):
        pass
    # py-lmdb cannot give the main database flags, and knows no reversedup; LMDB's own loader does.
    (tmp_path / "sorted").mkdir()
    header = "VERSION=3\nformat=print\ntype=btree\ndupsort=1\nreversedup=1\nHEADER=END\n"
    dump = header + " key\n 0\n key\n 1\n key\n 2\nDATA=END\n"
    subprocess.run(["mdb_load", str(tmp_path / "sorted")], input=dump, text=True, check=True)
    found: list[Database] = []
    for name in ("empty", "sorted"):
        with pin(tmp_path / name, name="vector") as snapshot:
            copy = tmp_path / f"{name}.mdb"
            copy.write_bytes(b"".join(copy_stream(snapshot, 1000)))
            assert copy.stat().st_size == snapshot.estimated_copy_size
            found += snapshot.databases
        verify_structure(copy)
    assert [(database.name, database.flags, database.entries) for database in found] == [
        (None, (), 0),
        (None, ("dupsort", "reversedup"), 3),
    ]


def test_a_page_size_other_than_this_machines(tmp_path: Path) -> None:
    directory = tmp_path / "environment"
    with lmdb.open(str(directory), lib_version=0):
        pass
    data = directory / "data.mdb"
    pages = []
    for number in range(2):
        page = bytearray(data.read_bytes()[number * 4096 :][:4096]) + bytes(12288)
        page[40:44] = (16384).to_bytes(4, sys.byteorder)
        pages.append(bytes(page))
    data.write_bytes(b"".join(pages))
    make_environment(directory, entries=3000)
    with pin(directory, name="vector") as snapshot:
        assert snapshot.page_size == 16384
        copy = tmp_path / "copy.mdb"
        copy.write_bytes(b"".join(copy_stream(snapshot, MIB)))
    verify_structure(copy)
    assert read_content(copy) == read_content(data)
