"""The reader pin when somebody is in its way: it waits a little, takes nothing by force, and mends what LMDB would."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from archiver.environment import reader, reader_table
from archiver.environment.locks import OWN_NUMBERS, inspect_lock
from archiver.environment.reader import registered
from archiver.environment.reader_table import LockFileChangedError
from archiver.errors import BusyError
from tests.environment.live import locker, make_environment, pinner, writer
from tests.environment.server import Serve
from tests.environment.table import Table, layout_of, set_mutex_kind, set_slot
from tests.waiting import PATIENCE

STRANGER = 0x7FFFFFF0


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (reader, reader_table):
        monkeypatch.setattr(module, "PATIENCE", 0.2)


@pytest.fixture
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (reader, reader_table):
        monkeypatch.setattr(module, "PATIENCE", PATIENCE)


@contextmanager
def soon(action: Callable[..., object], *arguments: str) -> Iterator[None]:
    """Does it in a moment, and has done it at the end of the block."""
    timer = threading.Timer(0.2, action, arguments)
    timer.start()
    yield
    timer.join()


def refused(directory: Path, error: type[Exception], match: str) -> None:
    """Registering fails, and leaves neither a slot nor a lock."""
    before = Table.read(directory)
    with pytest.raises(error, match=match), registered(directory):
        pytest.fail("it must not be registered")
    assert Table.read(directory) == before
    assert not set(inspect_lock(directory).numbers) & set(OWN_NUMBERS)


@pytest.mark.usefixtures("_impatient")
def test_a_lock_file_that_is_being_initialised_for_too_long(tmp_path: Path) -> None:
    lock = make_environment(tmp_path) / "lock.mdb"
    before = lock.read_bytes()
    with locker(tmp_path, "exclusive"):
        refused(tmp_path, BusyError, "has been initialising")
        assert lock.read_bytes() == before
    assert not inspect_lock(tmp_path).live


@pytest.mark.usefixtures("_patient")
def test_a_lock_file_that_is_being_initialised_just_now(tmp_path: Path) -> None:
    make_environment(tmp_path)
    with locker(tmp_path, "exclusive") as other, soon(other.ask, "share"), registered(tmp_path) as slot:
        slot.check()


@pytest.mark.usefixtures("_patient")
def test_an_initialisation_that_dies(tmp_path: Path) -> None:
    lock = make_environment(tmp_path) / "lock.mdb"
    before = lock.read_bytes()
    with locker(tmp_path, "exclusive") as other, soon(other.process.kill):
        refused(tmp_path, LockFileChangedError, "no process has")
    assert lock.read_bytes() == before


@pytest.mark.usefixtures("_impatient")
def test_a_process_that_was_stopped_while_it_changed_the_table(serve: Serve, tmp_path: Path) -> None:
    with serve(tmp_path / "live") as server, locker(server.directory, "mutex") as other:
        os.kill(other.pid, signal.SIGSTOP)
        refused(server.directory, BusyError, "cannot lock the reader table .*: another process has held it for")
        os.kill(other.pid, signal.SIGCONT)
        other.ask("unlock")
        with registered(server.directory) as slot:
            assert slot.number in dict(server.readers())


@pytest.mark.usefixtures("_patient")
def test_a_process_that_is_changing_the_table_just_now(serve: Serve, tmp_path: Path) -> None:
    with (
        serve(tmp_path / "live") as server,
        locker(server.directory, "mutex") as other,
        soon(other.ask, "unlock"),
        registered(server.directory) as slot,
    ):
        slot.check()


def test_a_process_that_died_while_it_changed_the_table(serve: Serve, tmp_path: Path) -> None:
    """The system tells of it once only: to us, so that LMDB's recovery is ours to make."""
    with serve(tmp_path / "live") as server:
        with locker(server.directory, "mutex") as other:
            other.kill()
        first_free = Table.read(server.directory).used
        set_slot(server.directory, first_free, STRANGER)
        with registered(server.directory) as slot, pinner(server.directory) as second:
            # LMDB would have freed the dead stranger's slot; nobody else's.
            assert Table.read(server.directory).pids[first_free] == slot.number
            assert inspect_lock(server.directory).stale == ()
            assert second.ask("check") is None
            assert server.clear_stale() == 0
            server.commit()
        assert_usable(server.directory)


def test_an_archiver_that_died_while_it_changed_the_table(serve: Serve, tmp_path: Path) -> None:
    with serve(tmp_path / "live") as server:
        with pinner(server.directory) as dead, locker(server.directory, "mutex") as other:
            other.kill()
            dead.kill()
        # Here LMDB recovers the mutex. It frees the slot on the way, and does not count it.
        assert server.clear_stale() == 0
        assert inspect_lock(server.directory).stale == ()
        assert_usable(server.directory)


def assert_usable(directory: Path) -> None:
    """The mutex can be locked and unlocked by others, and so it can after them."""
    for _ in range(2):
        with locker(directory, "mutex") as other:
            other.ask("unlock")
        with registered(directory) as slot:
            slot.check()


@pytest.mark.usefixtures("_impatient")
def test_a_mutex_that_cannot_be_recovered(tmp_path: Path) -> None:
    """Somebody unlocked it without LMDB's recovery: no process can lock it any more, and we do not wait for it."""
    with writer(tmp_path) as live:
        not_recoverable = 0x7FFFFFFE
        with (tmp_path / "lock.mdb").open("r+b", buffering=0) as lock:
            os.pwrite(lock.fileno(), not_recoverable.to_bytes(4, "little"), layout_of(tmp_path).mutex + 8)
        refused(tmp_path, BusyError, "cannot lock the reader table .* state not recoverable")
        assert live.ask("commit")


@pytest.mark.parametrize("kind", [0, 0x80, 0x10, 0x91])
def test_the_mutex_of_another_library(tmp_path: Path, kind: int) -> None:
    with writer(tmp_path):
        set_mutex_kind(tmp_path, kind)
        refused(tmp_path, LockFileChangedError, "initialised anew")


@pytest.mark.parametrize("size", [0, 7, 30, 64, 127])
def test_a_lock_file_that_is_cut_off(tmp_path: Path, size: int) -> None:
    lock = make_environment(tmp_path) / "lock.mdb"
    with locker(tmp_path, "shared"):
        os.truncate(lock, size)
        before = lock.read_bytes()
        with pytest.raises(LockFileChangedError, match="initialised anew"), registered(tmp_path):
            pytest.fail("it must not be registered")
        assert lock.read_bytes() == before


def test_an_unknown_format(tmp_path: Path) -> None:
    lock = make_environment(tmp_path) / "lock.mdb"
    content = bytearray(lock.read_bytes())
    content[4:8] = (3).to_bytes(4, "little")
    lock.write_bytes(content)
    with locker(tmp_path, "shared"):
        with pytest.raises(LockFileChangedError, match="initialised anew"), registered(tmp_path):
            pytest.fail("it must not be registered")
        assert lock.read_bytes() == content
