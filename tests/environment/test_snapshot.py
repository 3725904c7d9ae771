"""Pins: which method is chosen, what it protects, what it costs the live process, and what is refused."""

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import lmdb
import pytest

from archiver.environment.copying import copy_stream
from archiver.environment.databases import Database
from archiver.environment.locks import LockState
from archiver.environment.snapshot import SnapshotChangedError, choose_method, pin
from archiver.environment.verification import verify_structure
from archiver.errors import BusyError, NotFoundError, SourceError
from tests.environment.live import counters, heed_holder, make_environment, read_content, writer

V1, V2 = 0x10001, 0x2C2F6002
MIB = 1 << 20


@pytest.mark.parametrize(
    ("state", "method"),
    [
        (LockState(), "cold"),
        (LockState(present=True, format_word=V1, writable=True), "cold"),
        (LockState(present=True, format_word=V2), "cold"),
        (LockState(present=True), "cold"),
        (LockState(present=True, format_word=V1, live=True, holder=1, writable=True), "locked"),
    ],
)
def test_method_by_lock_state(state: LockState, method: str) -> None:
    assert choose_method(state, Path("/data")) == method


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (LockState(True, V2, True, 42, True), r"pid 42\) has it open in the lock format of heed"),
        (LockState(True, V1, True, 42, False), r"lock.mdb cannot be written to"),
        (LockState(True, 0x10003, True, None, True), r"a live process has it open in an unknown .* got 0x10003"),
        (LockState(True, None, True, None, True), r"unknown lock format: expected version 1, got none"),
    ],
)
def test_a_live_process_that_a_reader_could_not_be_safe_beside_is_refused(state: LockState, reason: str) -> None:
    with pytest.raises(SourceError, match=reason) as refusal:
        choose_method(state, Path("/data"))
    assert refusal.value.hint


def test_cold_copy_equals_the_environment_key_by_key(tmp_path: Path) -> None:
    directory = make_environment(tmp_path / "environment")
    before = datetime.now(UTC)
    with pin(directory, name="vector") as snapshot:
        assert (snapshot.name, snapshot.method, snapshot.map_size) == ("vector", "cold", 1 << 28)
        assert timedelta(0) <= snapshot.pinned - before < timedelta(minutes=1)
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


def test_cold_leaves_no_trace_beside_the_data(tmp_path: Path) -> None:
    directory = make_environment(tmp_path / "environment")
    (directory / "lock.mdb").unlink()
    with pin(directory, name="vector") as snapshot:
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
                assert str(os.getpid()) in str(live.ask("readers"))
                # The writer turns its pages over many times before the copy begins.
                target = int(str(live.ask("commit"))) + 50
                while int(str(live.ask("commit"))) < target:
                    pass
                copy = tmp_path / f"copy-{attempt}.mdb"
                copy.write_bytes(b"".join(copy_stream(snapshot, MIB)))
            verify_structure(copy)
            left, right, newest = counters(copy)
            assert left == right == newest
            assert left < target
            seen.append(left)
        assert str(os.getpid()) not in str(live.ask("readers"))
    assert seen == sorted(set(seen))


def test_an_early_release_frees_the_reader_slot(tmp_path: Path) -> None:
    directory = tmp_path / "environment"
    with writer(directory) as live, pin(directory, name="vector") as snapshot:
        assert str(os.getpid()) in str(live.ask("readers"))
        snapshot.release()
        assert str(os.getpid()) not in str(live.ask("readers"))
        with pin(directory, name="vector") as again:
            assert again.method == "locked"


def test_a_reader_killed_while_it_pins_does_not_block_the_writer(tmp_path: Path) -> None:
    directory = tmp_path / "environment"
    program = (
        "import sys, time; from pathlib import Path; from archiver.environment.snapshot import pin\n"
        "with pin(Path(sys.argv[1]), name='x'): print('pinned', flush=True); time.sleep(60)"
    )
    with writer(directory) as live:
        command = [sys.executable, "-c", program, str(directory)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
            assert reader.stdout is not None
            assert reader.stdout.readline() == "pinned\n"
            assert live.ask("check") == 0
            reader.send_signal(signal.SIGKILL)
        assert int(str(live.ask("commit"))) > 1
        assert live.ask("check") == 1
        assert str(reader.pid) not in str(live.ask("readers"))
        with pin(directory, name="vector") as snapshot:
            assert snapshot.method == "locked"


def test_a_full_reader_table_is_busy(tmp_path: Path) -> None:
    directory = tmp_path / "environment"
    # The writer has read, too, and keeps its slot.
    full = pytest.raises(BusyError, match="reader table is full")
    with writer(directory, max_readers=1), full, pin(directory, name="vector"):
        pass
    with writer(directory, max_readers=2), pin(directory, name="vector") as snapshot:
        assert snapshot.method == "locked"


def test_a_live_process_with_heeds_lock_format_is_refused_and_left_alone(tmp_path: Path) -> None:
    directory = make_environment(tmp_path / "environment")
    with heed_holder(directory) as live:
        lock = (directory / "lock.mdb").read_bytes()
        refused = pytest.raises(SourceError, match=rf"pid {live.pid}\) has it open in the lock format of heed")
        with refused, pin(directory, name="vector"):
            pass
        assert (directory / "lock.mdb").read_bytes() == lock
        live.kill()
        with pin(directory, name="vector") as snapshot:
            assert snapshot.method == "cold"
        assert (directory / "lock.mdb").read_bytes() == lock


def test_a_lock_file_of_another_build_is_a_version_mismatch(tmp_path: Path) -> None:
    directory = tmp_path / "environment"
    with writer(directory):
        with (directory / "lock.mdb").open("r+b", buffering=0) as lock:
            lock.seek(4)
            lock.write((0x50001).to_bytes(4, sys.byteorder))
        refused = pytest.raises(SourceError, match="lock file has a format that this LMDB does not speak")
        with refused, pin(directory, name="vector"):
            pass


def test_a_commit_during_a_cold_copy_is_noticed(tmp_path: Path) -> None:
    directory = make_environment(tmp_path / "environment")
    with pin(directory, name="vector") as snapshot:
        stream = copy_stream(snapshot, 4096)
        next(stream)
        with writer(directory):
            pass
        with pytest.raises(SnapshotChangedError, match=rf"expected transaction {snapshot.txnid} and no process, got"):
            list(stream)


def test_a_process_that_opens_a_cold_environment_is_noticed(tmp_path: Path) -> None:
    directory = tmp_path / "environment"
    with writer(directory):
        pass
    program = "import sys, lmdb; e = lmdb.open(sys.argv[1], lib_version=0); print('open', flush=True); sys.stdin.read()"
    with pin(directory, name="vector") as snapshot:
        assert snapshot.method == "cold"
        command = [sys.executable, "-c", program, str(directory)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == "open\n"
            with pytest.raises(SnapshotChangedError, match=rf"a live process \(pid {other.pid}\)"):
                snapshot.confirm()


def test_a_cold_pin_does_not_keep_a_server_from_starting(tmp_path: Path) -> None:
    directory = make_environment(tmp_path / "environment")
    with pin(directory, name="vector"), heed_holder(directory) as live:
        assert live.process.poll() is None


def test_a_missing_environment_is_not_found(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "missing"):
        with pytest.raises(NotFoundError, match=r"data.mdb does not exist"), pin(directory, name="vector"):
            pass


def test_more_databases_than_are_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = make_environment(tmp_path / "environment")
    monkeypatch.setattr("archiver.environment.library.MAX_DATABASES", 3)
    with pytest.raises(SourceError, match="more named databases than the 3"), pin(directory, name="vector"):
        pass


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
