"""A reader pin while servers come and go: every start succeeds, and the snapshot stays what it was."""

import random
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import lmdb
import pytest

from archiver.environment.locks import inspect_lock
from archiver.environment.reader import registered
from archiver.environment.reader_table import LockFileChangedError
from archiver.errors import SnapshotChangedError
from tests.environment.live import LiveProcess, locker, make_environment, pinner, writer
from tests.environment.server import Serve, require_namespaces, serve_lmdb, wait_for_commits
from tests.environment.table import Table
from tests.heed import HeedError, HeedWriter
from tests.waiting import wait_until


def number_of(pin: LiveProcess) -> int:
    assert isinstance(pin.first, dict)
    return int(pin.first["number"])


@pytest.mark.parametrize("seed", range(2))
def test_the_server_ends_and_starts_at_any_moment(serve: Serve, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    with ExitStack() as pins:
        with serve(tmp_path / "live", busy=True) as server:
            wait_for_commits(server, 50)
            pin = pins.enter_context(pinner(server.directory))
            snapshot = pin.ask("digest")
            server.kill()
        for end in ("close", "kill", "kill", "close", "kill"):
            with serve(tmp_path / "live", busy=True) as server:
                time.sleep(chance.random() / 10)
                server.close() if end == "close" else server.kill()
            assert pin.ask("check") is None
        with serve(tmp_path / "live", busy=True) as server:
            assert number_of(pin) in dict(server.readers())
            assert pin.ask("digest") == snapshot
            assert pin.ask("check") is None
            assert server.clear_stale() <= 1


def test_servers_start_while_pins_come_and_go(serve: Serve, tmp_path: Path) -> None:
    """A pin that begins in the moment of a start, or of an end, keeps nobody from starting."""
    directory = tmp_path / "live"
    with serve(directory) as server:
        environment = server.directory
    done = threading.Event()
    pins = 0

    def pin_all_the_time() -> None:
        nonlocal pins
        while not done.is_set():
            with suppress(LockFileChangedError), registered(environment) as slot:
                slot.check()
                pins += 1

    thread = threading.Thread(target=pin_all_the_time)
    thread.start()
    try:
        for number in range(20):
            with serve(directory, busy=True) as server:
                server.commit()
                server.close() if number % 2 else server.kill()
    finally:
        done.set()
        thread.join()
    assert pins > 20
    assert not inspect_lock(environment).live


@pytest.mark.parametrize("busy", [True, False])
def test_two_containers_with_the_same_pid(serve: Serve, tmp_path: Path, busy: bool) -> None:
    require_namespaces()
    with ExitStack() as pins:
        with serve(tmp_path / "live", busy=busy, own_pids=True) as server:
            server.commit()
            pin = pins.enter_context(pinner(server.directory, own_pids=True))
            assert isinstance(pin.first, dict)
            assert server.pid == pin.first["pid"] == 1
            snapshot = pin.ask("digest")
            server.commit()
            assert server.clear_stale() == 0
            # LMDB frees every slot of its own pid when it closes.
            server.close()
        for end in ("close", "kill"):
            with serve(tmp_path / "live", busy=busy, own_pids=True) as server:
                assert number_of(pin) in dict(server.readers())
                assert server.commit() > 1
                assert server.clear_stale() == 0
                server.close() if end == "close" else server.kill()
            assert number_of(pin) in [reader.pid for reader in inspect_lock(server.directory).readers]
            assert pin.ask("check") is None
        assert pin.ask("digest") == snapshot


def test_a_server_with_the_same_pid_that_comes_later(tmp_path: Path) -> None:
    """LMDB locks the byte of its pid when it first reads, and fails to read when that is another's."""
    require_namespaces()
    make_environment(tmp_path)
    with locker(tmp_path, "shared") as other, pinner(tmp_path, own_pids=True) as pin:
        other.kill()
        with serve_lmdb(tmp_path, own_pids=True) as server:
            assert isinstance(pin.first, dict)
            assert server.pid == pin.first["pid"] == 1
            assert {pid for pid, _ in server.readers()} == {1, number_of(pin)}
            server.close()
        assert pin.ask("check") is None


def test_a_pin_of_a_container_that_is_gone_is_seen_to_be_gone(serve: Serve, tmp_path: Path) -> None:
    require_namespaces()
    with serve(tmp_path / "live", own_pids=True) as server:
        with pinner(server.directory, own_pids=True) as pin:
            state = inspect_lock(server.directory)
            assert number_of(pin) in state.numbers
            assert state.stale == ()
            assert server.clear_stale() == 0
            pin.kill()
            # That was its ``unshare``, which the system then lets it follow.
            wait_until(lambda: inspect_lock(server.directory).stale)
        assert server.clear_stale() == 1


def test_a_lock_file_that_was_replaced_is_noticed(serve: Serve, tmp_path: Path) -> None:
    with serve(tmp_path / "live") as server, registered(server.directory) as slot:
        (server.directory / "lock.mdb").unlink()
        with pytest.raises(SnapshotChangedError, match="was lost") as caught:
            slot.check()
        assert "Never delete lock.mdb" in str(caught.value.hint)
        with serve(tmp_path / "live") as second:
            with pytest.raises(SnapshotChangedError, match="was lost"):
                slot.check()
            slot.release()
            assert slot.number not in dict(second.readers())


def test_beside_heed_the_other_version_is_refused_as_without_us(heed_writer: Path, tmp_path: Path) -> None:
    with HeedWriter.start(heed_writer, tmp_path, only="vector", paused=True) as live:
        word = Table.read(tmp_path / "vector").word
        with registered(tmp_path / "vector") as slot:
            for _ in range(2):
                with pytest.raises(lmdb.VersionMismatchError):
                    lmdb.open(str(tmp_path / "vector"), lib_version=0)
                assert Table.read(tmp_path / "vector").word == word
                # Once more after heed has ended: the table is still one of version 2, with our slot.
                live.kill()
            slot.check()
            slot.leave()
            with writer(tmp_path / "vector"):
                assert Table.read(tmp_path / "vector").word != word


def test_beside_py_lmdb_heed_is_refused_as_without_us(heed_writer: Path, tmp_path: Path) -> None:
    with writer(tmp_path / "vector") as live:
        word = Table.read(tmp_path / "vector").word
        with registered(tmp_path / "vector") as slot:
            for _ in range(2):
                with (
                    pytest.raises(HeedError, match="MDB_VERSION_MISMATCH"),
                    HeedWriter.start(heed_writer, tmp_path, only="vector"),
                ):
                    pytest.fail("it must not start")
                assert Table.read(tmp_path / "vector").word == word
                live.kill()
            slot.check()
            slot.leave()
            with HeedWriter.start(heed_writer, tmp_path, only="vector"):
                assert Table.read(tmp_path / "vector").word != word
