"""Who has an environment open, told without disturbing anyone."""

import fcntl
import os
import random
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest

from archiver.environment.lockfile import Reader
from archiver.environment.locks import OWN_NUMBERS, LockState, first_lock, inspect_lock, set_lock
from archiver.environment.reader import registered
from archiver.errors import SourceError
from tests.environment.live import locker, make_environment, pinner, writer
from tests.environment.server import Serve
from tests.environment.table import Table, layout_of, set_mutex_kind, set_slot
from tests.waiting import PATIENCE


def test_no_lock_file(tmp_path: Path) -> None:
    assert inspect_lock(tmp_path) == LockState()


def test_a_lock_file_left_behind(tmp_path: Path) -> None:
    make_environment(tmp_path)
    state = inspect_lock(tmp_path)
    assert (state.present, state.version, state.live, state.holder, state.writable) == (True, 1, False, None, True)
    assert (state.layout, state.glibc, state.numbers, state.stale) == (layout_of(tmp_path), True, (), ())


def test_a_live_process_is_seen_and_stays_seen_until_it_is_killed(serve: Serve, tmp_path: Path) -> None:
    with serve(tmp_path / "live") as server:
        for _ in range(3):
            state = inspect_lock(server.directory)
            assert (state.version, state.live, state.holder) == (server.version, True, server.pid)
            assert (state.layout, state.glibc, state.writable) == (layout_of(server.directory), True, True)
            assert f"pid {server.pid}" in state.holder_text
        server.commit()
        server.kill()
        state = inspect_lock(server.directory)
        assert (state.present, state.version, state.live, state.holder) == (True, server.version, False, None)


def test_nothing_is_changed_by_looking(serve: Serve, tmp_path: Path) -> None:
    with serve(tmp_path / "live") as server:
        before = (server.directory / "lock.mdb").read_bytes()
        readers = server.readers()
        for _ in range(3):
            inspect_lock(server.directory)
        assert (server.directory / "lock.mdb").read_bytes() == before
        assert server.readers() == readers


def test_readers_and_numbers_are_what_the_server_says(tmp_path: Path) -> None:
    with writer(tmp_path) as live:
        state = inspect_lock(tmp_path)
        assert (state.readers, state.numbers, state.stale) == ((Reader(live.pid, None),), (live.pid,), ())
        with writer(tmp_path) as second:
            state = inspect_lock(tmp_path)
            assert {reader.pid for reader in state.readers} == set(state.numbers) == {live.pid, second.pid}
            second.kill()
            # What a killed reader leaves is stale until LMDB looks.
            state = inspect_lock(tmp_path)
            assert state.live
            assert state.numbers == (live.pid,)
            assert state.stale == (Reader(second.pid, None),)
        assert live.ask("check") == 1
        assert inspect_lock(tmp_path).stale == ()


def test_a_killed_server_leaves_a_stale_slot(tmp_path: Path) -> None:
    with writer(tmp_path) as live:
        live.kill()
    state = inspect_lock(tmp_path)
    assert (state.live, state.numbers, state.stale) == (False, (), (Reader(live.pid, None),))


def test_an_archiver_is_shown_as_one(serve: Serve, tmp_path: Path) -> None:
    with serve(tmp_path / "live") as server, pinner(server.directory) as pin:
        state = inspect_lock(server.directory)
        assert isinstance(pin.first, dict)
        assert Reader(pin.first["number"], pin.first["txnid"]) in state.readers
        assert [number for number in state.numbers if number in OWN_NUMBERS] == [pin.first["number"]]
        assert state.stale == ()
        assert state.holder_text == f"a live process (pid {server.pid})"
        server.kill()
        state = inspect_lock(server.directory)
        assert (state.live, state.holder, state.holder_text) == (True, None, "another archiver")
        pin.ask("release")
        pin.kill()
        assert not inspect_lock(server.directory).live


def test_a_pin_of_this_very_process_is_seen_and_survives_the_looking(serve: Serve, tmp_path: Path) -> None:
    with serve(tmp_path / "live") as server, registered(server.directory) as slot:
        for _ in range(3):
            assert slot.number in inspect_lock(server.directory).numbers
        assert server.clear_stale() == 0


def test_many_processes_are_all_seen(tmp_path: Path) -> None:
    """The system names one lock at a time, in no order: two thousand were too many for one call within another."""
    make_environment(tmp_path)
    pids = sorted({1, 2, 3, 7, 100, 101, OWN_NUMBERS[0], OWN_NUMBERS[-1], *range(1000, 3000)})
    descriptors = []
    try:
        for pid in random.Random(5).sample(pids, len(pids)):
            descriptors.append(os.open(tmp_path / "lock.mdb", os.O_RDWR))
            assert set_lock(descriptors[-1], fcntl.F_WRLCK, pid)
        assert inspect_lock(tmp_path).numbers == tuple(pids)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    assert inspect_lock(tmp_path).numbers == ()


def test_a_lock_on_the_whole_file_is_no_pid(tmp_path: Path) -> None:
    make_environment(tmp_path)
    program = (
        "import fcntl, os, sys; fd = os.open(sys.argv[1], os.O_RDWR); fcntl.lockf(fd, fcntl.LOCK_EX)\n"
        "print('locked', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "lock.mdb")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        state = inspect_lock(tmp_path)
        assert (state.live, state.holder, state.numbers) == (True, other.pid, ())


def test_a_process_that_does_not_show_its_pid(tmp_path: Path) -> None:
    make_environment(tmp_path)
    descriptor = os.open(tmp_path / "lock.mdb", os.O_RDWR)
    try:
        assert set_lock(descriptor, fcntl.F_RDLCK, 0)
        state = inspect_lock(tmp_path)
        assert (state.live, state.holder, state.holder_text) == (True, None, "a live process")
    finally:
        os.close(descriptor)
    assert not inspect_lock(tmp_path).live


def test_locks_belong_to_the_open_file(tmp_path: Path) -> None:
    """They meet LMDB's classic ones in both directions, and outlive the closing of other descriptors."""
    lock = make_environment(tmp_path) / "lock.mdb"
    one, two = os.open(lock, os.O_RDWR), os.open(lock, os.O_RDWR)
    try:
        assert set_lock(one, fcntl.F_WRLCK, 7)
        assert not set_lock(two, fcntl.F_WRLCK, 7)
        assert first_lock(one) is None
        lock.read_bytes()
        held = first_lock(two)
        assert held is not None
        assert (held.start, held.length, held.pid) == (7, 1, None)
        assert set_lock(one, fcntl.F_UNLCK, 7)
        assert first_lock(two) is None
        with locker(tmp_path, "shared"):
            assert set_lock(one, fcntl.F_RDLCK, 0)
            assert not set_lock(one, fcntl.F_WRLCK, 0)
        assert set_lock(one, fcntl.F_WRLCK, 0)
    finally:
        os.close(one)
        os.close(two)


def test_the_mutex_of_another_library_is_told(tmp_path: Path) -> None:
    with writer(tmp_path):
        set_mutex_kind(tmp_path, 0)
        state = inspect_lock(tmp_path)
        assert (state.live, state.glibc, state.layout) == (True, False, layout_of(tmp_path))


@pytest.mark.parametrize("content", [b"", b"short", b"not the magic number of LMDB" * 10])
def test_a_lock_file_of_something_else(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "lock.mdb").write_bytes(content)
    state = inspect_lock(tmp_path)
    assert (state.present, state.format_word, state.version, state.live) == (True, None, None, False)
    assert (state.layout, state.glibc, state.readers) == (None, False, ())


def test_an_unknown_format_is_not_looked_into(tmp_path: Path) -> None:
    make_environment(tmp_path)
    set_slot(tmp_path, 0, 7)
    assert Table.read(tmp_path).pids == (7,)
    with (tmp_path / "lock.mdb").open("r+b", buffering=0) as lock:
        os.pwrite(lock.fileno(), (999).to_bytes(4, "little"), 4)
    state = inspect_lock(tmp_path)
    assert (state.version, state.layout, state.glibc, state.readers) == (999, None, False, ())


@pytest.mark.skipif(os.geteuid() != 0, reason="drops privileges")
@pytest.mark.parametrize(("mode", "outcome"), [(0o600, "SourceError"), (0o644, "True False"), (0o666, "True True")])
def test_permissions_decide_on_writable(tmp_path: Path, mode: int, outcome: str) -> None:
    tmp_path.chmod(0o755)
    program = (
        "import os, sys; from pathlib import Path; from archiver.environment.locks import inspect_lock\n"
        "os.chdir(sys.argv[1]); os.setresuid(65534, 65534, 65534)\n"
        "try: state = inspect_lock(Path('.')); print(state.live, state.writable)\n"
        "except Exception as error: print(type(error).__name__, error.hint)"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with writer(tmp_path):
        (tmp_path / "lock.mdb").chmod(mode)
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert done.stdout.startswith(outcome)


@pytest.mark.skipif(os.geteuid() != 0, reason="drops privileges")
@pytest.mark.parametrize("mode", [0o444, 0o666])
def test_a_pipe_in_place_of_the_lock_file_is_not_waited_for(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(0o755)
    os.mkfifo(tmp_path / "lock.mdb")
    (tmp_path / "lock.mdb").chmod(mode)
    program = (
        "import os, sys; from pathlib import Path; from archiver.environment.locks import inspect_lock\n"
        "os.chdir(sys.argv[1]); os.setresuid(65534, 65534, 65534)\n"
        "try: inspect_lock(Path('.'))\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=PATIENCE, cwd=Path(__file__).parents[2]
    )
    assert done.stdout == "SourceError cannot tell whether . is in use: lock.mdb is not a regular file\n"


def test_more_locks_than_anybody_needs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The system takes the longer for a lock, the more there are.
    monkeypatch.setattr("archiver.environment.locks._MOST_LOCKS", 2000)
    make_environment(tmp_path)
    descriptor = os.open(tmp_path / "lock.mdb", os.O_RDWR)
    try:
        for number in range(1000):
            assert set_lock(descriptor, fcntl.F_WRLCK, 2 + 2 * number)
        assert len(inspect_lock(tmp_path).numbers) == 1000
        for number in range(1000, 2001):
            assert set_lock(descriptor, fcntl.F_WRLCK, 2 + 2 * number)
        with pytest.raises(SourceError, match=r"too many locks on lock\.mdb: expected at most 2,000, got more"):
            inspect_lock(tmp_path)
    finally:
        os.close(descriptor)


def test_an_unusable_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SourceError, match=r"cannot tell whether .* is in use"):
        inspect_lock(tmp_path / "file")


def test_a_directory_in_place_of_the_lock_file(tmp_path: Path) -> None:
    (tmp_path / "lock.mdb").mkdir()
    with pytest.raises(SourceError, match=r"cannot tell whether .* is in use"):
        inspect_lock(tmp_path)


def test_lmdb_can_open_while_the_state_is_being_asked_for(tmp_path: Path) -> None:
    make_environment(tmp_path)
    inspect_lock(tmp_path)
    with lmdb.open(str(tmp_path), lib_version=0) as environment:
        assert environment.info()["last_txnid"] > 0
