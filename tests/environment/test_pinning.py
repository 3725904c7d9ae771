"""That each way to take a snapshot gives a true one, or none; which way is taken when: test_pinning_methods.py."""

import hashlib
import os
import threading
import time
from pathlib import Path

import lmdb
import pytest

from archiver.environment import pinning
from archiver.environment.locks import inspect_lock
from archiver.environment.messages import Declared
from archiver.environment.pinning import PinnedEnvironment, pinned
from archiver.environment.reader import ReaderSlot
from archiver.environment.reader_table import LockFileChangedError
from archiver.errors import ArchiverError, BusyError, FormatError, NotFoundError, SnapshotChangedError, SourceError
from tests.environment.live import make_environment, pinner, read_content, writer
from tests.environment.server import Serve, wait_for_commits
from tests.environment.table import Table, set_mutex_kind, set_slot
from tests.heed import HeedWriter, check
from tests.waiting import PATIENCE


def copy_of(environment: PinnedEnvironment, target: Path) -> Path:
    """A compact copy of the snapshot, confirmed."""
    target.mkdir(parents=True, exist_ok=True)
    with (target / "data.mdb").open("wb") as copy:
        environment.copy_to(copy.fileno())
    environment.confirm()
    return target


def test_locked_beside_a_server_at_full_speed(serve: Serve, tmp_path: Path) -> None:
    with serve(tmp_path / "live", busy=True) as server:
        for attempt in range(5):
            with pinned(server.directory, None) as environment:
                assert environment.method == "locked"
                assert environment.protected_from is not None
                assert environment.meta.txnid >= environment.protected_from
                listed, pages, longest = environment.list_databases()
                wait_for_commits(server, 30)
                copy = copy_of(environment, tmp_path / f"copy{attempt}")
                assert environment.list_databases() == (listed, pages, longest)
                assert (copy / "data.mdb").stat().st_size == pages * environment.meta.page_size
            content = read_content(copy / "data.mdb")
            assert {each.name: each.entries for each in listed if each.name} == {
                name: len(pairs) - 1 for name, pairs in content.items() if name
            }
        assert Table.read(server.directory).pids.count(0) >= 1
        assert server.clear_stale() == 0


def test_what_is_copied_from_heed_is_whole(heed_writer: Path, tmp_path: Path) -> None:
    with HeedWriter.start(heed_writer, tmp_path / "live", only="vector", sync=False, nodes=500) as live:
        for attempt in range(3):
            with pinned(live.directory / "vector", None) as environment:
                live.wait_for_commits(20)
                copy_of(environment, tmp_path / str(attempt) / "vector")
            result = check(heed_writer, tmp_path / str(attempt))
            assert result.problem is None
        assert live.stats().errors == 0


def test_a_released_pin_confirms_nothing(serve: Serve, tmp_path: Path) -> None:
    with serve(tmp_path / "live") as server, pinned(server.directory, None) as environment:
        environment.confirm()
        environment.release()
        with pytest.raises(SnapshotChangedError):
            environment.confirm()
        environment.release()


def test_cold(tmp_path: Path) -> None:
    directory = make_environment(tmp_path / "cold")
    before = (directory / "lock.mdb").read_bytes()
    with pinned(directory, None) as environment:
        assert (environment.method, environment.protected_from) == ("cold", None)
        assert not inspect_lock(directory).live
        copy = copy_of(environment, tmp_path / "copy")
        environment.release()
        environment.confirm()
    assert read_content(copy / "data.mdb") == read_content(directory / "data.mdb")
    assert (directory / "lock.mdb").read_bytes() == before


def test_cold_and_then_somebody_comes(serve: Serve, tmp_path: Path) -> None:
    with serve(tmp_path / "live") as server:
        server.close()
    with pinned(server.directory, None) as environment:
        with serve(tmp_path / "live") as second:
            with pytest.raises(SnapshotChangedError, match=rf"opened by another process .*\(pid {second.pid}\)"):
                environment.confirm()
            second.close()
        with pytest.raises(SnapshotChangedError, match=r"expected transaction \d+ and no process, got \d+$"):
            environment.confirm()


def test_cold_without_a_lock_file_makes_none(tmp_path: Path) -> None:
    directory = make_environment(tmp_path / "cold")
    (directory / "lock.mdb").unlink()
    with pinned(directory, None) as environment:
        copy_of(environment, tmp_path / "copy")
    assert os.listdir(directory) == ["data.mdb"]


@pytest.mark.parametrize("declared", ["frozen", "external"])
def test_declared(tmp_path: Path, declared: Declared) -> None:
    directory = make_environment(tmp_path / "snapshot")
    with pinned(directory, declared) as environment:
        assert (environment.method, environment.protected_from) == (declared, None)
        copy = copy_of(environment, tmp_path / "copy")
    assert read_content(copy / "data.mdb") == read_content(directory / "data.mdb")


@pytest.mark.parametrize("declared", ["frozen", "external"])
def test_declared_and_yet_live(serve: Serve, tmp_path: Path, declared: Declared) -> None:
    with serve(tmp_path / "live") as server:
        error = refusal(server.directory, BusyError, declared)
        assert error.message.endswith(f"it is declared {declared}, but a live process (pid {server.pid}) has it open")


def refusal(directory: Path, expected: type[ArchiverError], declared: Declared | None = None) -> ArchiverError:
    """The error by which a pin is refused; no slot or lock of it is left."""
    before = inspect_lock(directory)
    with pytest.raises(expected) as caught, pinned(directory, declared):
        pytest.fail("it must not be pinned")
    assert inspect_lock(directory) == before
    return caught.value


def test_refused_with_a_real_lock_file_of_another_library(tmp_path: Path) -> None:
    with writer(tmp_path) as live:
        set_mutex_kind(tmp_path, 0x80)
        assert f"pid {live.pid}) has it open, and it does not run on glibc" in refusal(tmp_path, SourceError).message


def test_refused_with_a_full_table(serve: Serve, tmp_path: Path) -> None:
    with serve(tmp_path / "live", max_readers=1) as server:
        if not server.readers():
            set_slot(server.directory, 0, 0x7FFFFFF0)
        assert "all 1 slots" in refusal(server.directory, BusyError).message


def test_no_environment(tmp_path: Path) -> None:
    refusal(tmp_path, NotFoundError)
    (tmp_path / "data.mdb").write_bytes(b"")
    assert "empty" in refusal(tmp_path, FormatError).message


def test_an_environment_older_than_its_lock_file(tmp_path: Path) -> None:
    """A data.mdb that was put in place under a live server: nothing protects what is in it."""
    old = (make_environment(tmp_path / "old") / "data.mdb").read_bytes()
    with writer(tmp_path / "live") as live:
        for _ in range(30):
            live.ask("commit")
        (tmp_path / "live" / "data.mdb").unlink()
        (tmp_path / "live" / "data.mdb").write_bytes(old)
        refusal(tmp_path / "live", SnapshotChangedError)


def test_a_server_that_ends_while_it_is_being_pinned(serve: Serve, tmp_path: Path) -> None:
    """The state is looked at again, and then it is cold."""
    with serve(tmp_path / "live") as server:
        state = inspect_lock(server.directory)
        server.close()
    looks = [state, state]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pinning, "inspect_lock", lambda directory: looks.pop() if looks else inspect_lock(directory))
        with pinned(server.directory, None) as environment:
            assert environment.method == "cold"
    assert not looks


def test_a_lock_file_that_keeps_changing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def changed(directory: Path) -> None:
        raise LockFileChangedError("once more")

    monkeypatch.setattr(pinning, "registered", changed)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with writer(tmp_path):
        assert "kept changing" in refusal(tmp_path, BusyError).message


@pytest.mark.parametrize("times", [3, 10_000])
def test_a_meta_page_that_may_be_half_overwritten_is_not_believed(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """Once the next transaction is announced, the one after it may be writing to the page that was read; and one that
    is not announced itself may be taken back."""
    looks = 0
    monkeypatch.setattr("archiver.environment.pinning._PATIENCE", 0.5 if times > 100 else PATIENCE)

    def committed(slot: ReaderSlot) -> int:
        nonlocal looks
        looks += 1
        return slot.txnid + (looks <= times)

    monkeypatch.setattr(ReaderSlot, "committed", property(committed))
    with serve(tmp_path / "live") as server:
        if times > 100:
            assert "no commit of its server was seen to be complete" in refusal(server.directory, BusyError).message
            return
        with pinned(server.directory, None) as environment:
            assert environment.meta.txnid == environment.protected_from
        assert looks == times + 1


def test_a_commit_that_its_server_was_killed_before_announcing_stands(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lock file says so until somebody writes: an idle server must not be without backups as long."""
    monkeypatch.setattr("archiver.environment.pinning._PATIENCE", 0.3)
    monkeypatch.setattr(ReaderSlot, "committed", property(lambda slot: slot.txnid - 1))
    with serve(tmp_path / "live") as server:
        began = time.monotonic()
        with pinned(server.directory, None) as environment:
            assert environment.meta.txnid == environment.protected_from
        assert time.monotonic() - began > 0.3


def test_beside_another_archiver_after_the_server_has_ended(serve: Serve, tmp_path: Path) -> None:
    """Its slot protects it, and ours protects us when a server starts again."""
    with serve(tmp_path / "live", busy=True) as server, pinner(server.directory):
        server.kill()
        with pinned(server.directory, None) as environment:
            assert environment.method == "locked"
            first = digest(environment, tmp_path / "first")
            with serve(tmp_path / "live", busy=True) as second:
                wait_for_commits(second, 50)
                assert digest(environment, tmp_path / "second") == first


def test_when_the_server_has_gone_the_pin_can_step_aside(serve: Serve, tmp_path: Path) -> None:
    with serve(tmp_path / "live") as server, pinned(server.directory, None) as environment:
        alone = [environment.alone]
        server.commit()
        server.close()
        alone.append(environment.alone)
        assert alone == [False, True]
        first = digest(environment, tmp_path / "first")
        environment.leave()
        assert not inspect_lock(server.directory).live
        assert digest(environment, tmp_path / "second") == first
        # The table is initialised anew, and may be by a library of another lock version.
        with serve(tmp_path / "live") as second, pytest.raises(SnapshotChangedError, match=f"pid {second.pid}"):
            environment.confirm()
        with pytest.raises(SnapshotChangedError, match="and no process"):
            environment.confirm()


def test_after_stepping_aside_even_a_commit_that_was_killed_half_way_counts(serve: Serve, tmp_path: Path) -> None:
    """It has written pages, which may be the snapshot's, and no meta page."""
    with serve(tmp_path / "live") as server, pinned(server.directory, None) as environment:
        server.commit()
        server.kill()
        environment.leave()
        environment.confirm()
        with (server.directory / "data.mdb").open("r+b") as data:
            data.seek(-1, os.SEEK_END)
            data.write(b"x")
        with pytest.raises(SnapshotChangedError, match="opened by another process"):
            environment.confirm()


def test_the_pin_only_steps_aside_if_it_has_held(serve: Serve, tmp_path: Path) -> None:
    with serve(tmp_path / "live") as server, pinned(server.directory, None) as environment:
        set_slot(server.directory, Table.read(server.directory).used - 1, 0)
        server.kill()
        with pytest.raises(SnapshotChangedError, match="was lost"):
            environment.leave()


def test_the_oldest_reader_is_known(serve: Serve, tmp_path: Path) -> None:
    with serve(tmp_path / "live") as server, pinner(server.directory) as older:
        assert isinstance(older.first, dict)
        server.commit()
        with pinned(server.directory, None) as environment:
            assert environment.oldest_reader == older.first["txnid"] == environment.meta.txnid - 1
            older.ask("release")
            assert environment.oldest_reader == environment.meta.txnid


def digest(environment: PinnedEnvironment, target: Path) -> str:
    content = read_content(copy_of(environment, target) / "data.mdb")
    return hashlib.sha256(repr(content).encode()).hexdigest()


def test_a_snapshot_can_be_released_from_another_thread(serve: Serve, tmp_path: Path) -> None:
    with serve(tmp_path / "live") as server, pinned(server.directory, None) as environment:
        thread = threading.Thread(target=environment.release)
        thread.start()
        thread.join()
        assert {number for number, _ in server.readers()} <= {server.pid}


def test_more_databases_than_expected_are_an_error_and_no_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pinning, "_SPARE_DATABASES", 0)
    with lmdb.open(str(tmp_path), max_dbs=3, lib_version=0) as environment:
        environment.open_db(b"one")
    with pinned(tmp_path, None) as found:
        assert [each.name for each in found.list_databases()[0] if each.name] == [b"one"]
