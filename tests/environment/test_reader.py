"""The reader pin beside live servers of both lock versions: they see it, respect it, and are left unharmed by it."""

import gc
import os
import threading
from pathlib import Path

import pytest

from archiver.environment import lockfile
from archiver.environment.lockfile import IDLE
from archiver.environment.locks import OWN_NUMBERS, inspect_lock
from archiver.environment.meta import DATA_FILE, read_meta
from archiver.environment.reader import registered
from archiver.environment.reader_table import LockFileChangedError
from archiver.errors import BusyError, SnapshotChangedError, SourceError
from tests.environment.live import LiveProcess, make_environment, open_descriptors, pinner
from tests.environment.server import Serve, Server, file_size, wait_for_commits
from tests.environment.table import Table, set_slot

STRANGER = 0x7FFFFFF0
"""A number that is nobody's: no process has such a pid, nor does archiver announce it."""
GROWTH = 5_000_000


def first(pin: LiveProcess) -> tuple[int, int]:
    """The number and txnid of a pinner's slot."""
    assert isinstance(pin.first, dict)
    return pin.first["number"], pin.first["txnid"]


def settle(server: Server) -> int:
    """The file's size once its server has pages to use again."""
    wait_for_commits(server, 200)
    return file_size(server)


def test_the_server_sees_the_slot_and_never_takes_it_for_stale(serve: Serve, tmp_path: Path) -> None:
    with serve(tmp_path / "live") as server, pinner(server.directory) as pin:
        number, txnid = first(pin)
        assert number in OWN_NUMBERS
        assert (number, txnid) in server.readers()
        assert txnid == inspect_lock(server.directory).readers[-1].txnid
        # Closing a descriptor of the file is what costs a process its classic locks.
        for command in ("check", "reopen", "check"):
            pin.ask(command)
            assert server.clear_stale() == 0
        server.commit()
        assert (number, txnid) in server.readers()
        pin.ask("release")
        assert number not in dict(server.readers())


def test_after_a_kill_the_server_clears_that_slot_alone(serve: Serve, tmp_path: Path) -> None:
    with serve(tmp_path / "live") as server, pinner(server.directory) as killed, pinner(server.directory) as living:
        killed.kill()
        assert first(killed) in server.readers()
        assert inspect_lock(server.directory).stale == (lockfile.Reader(*first(killed)),)
        assert server.clear_stale() == 1
        assert first(killed) not in server.readers()
        assert first(living) in server.readers()
        assert living.ask("check") is None


def test_pages_are_protected_and_the_file_stops_growing_afterwards(serve: Serve, tmp_path: Path) -> None:
    with serve(tmp_path / "live", busy=True) as server:
        before = settle(server)
        with pinner(server.directory) as pin:
            snapshot = pin.ask("digest")
            wait_for_commits(server, 200)
            assert pin.ask("digest") == snapshot
            assert pin.ask("check") is None
            assert file_size(server) > before + GROWTH
            pin.ask("release")
        after = settle(server)
        wait_for_commits(server, 300)
        assert file_size(server) <= after + GROWTH // 10


def test_a_killed_pin_costs_room_until_it_is_cleared(serve: Serve, tmp_path: Path) -> None:
    with serve(tmp_path / "live", busy=True) as server:
        with pinner(server.directory) as pin:
            pin.kill()
        before = settle(server)
        wait_for_commits(server, 200)
        assert file_size(server) > before + GROWTH
        assert server.clear_stale() == 1
        after = settle(server)
        wait_for_commits(server, 300)
        assert file_size(server) <= after + GROWTH // 10


def test_the_next_archiver_clears_the_slot_of_a_killed_one_and_nobody_elses(serve: Serve, tmp_path: Path) -> None:
    with serve(tmp_path / "live") as server:
        with pinner(server.directory) as killed:
            killed.kill()
        set_slot(server.directory, Table.read(server.directory).used, STRANGER)
        with registered(server.directory) as slot:
            numbers = {number for number, _ in server.readers()}
            assert numbers == {slot.number, STRANGER} | ({server.pid} & numbers)
        assert server.clear_stale() == 1


def test_a_dead_slot_with_this_very_number_is_cleared(serve: Serve, tmp_path: Path) -> None:
    """In a container every run of archiver may have the same pid, so that the number would hide it for ever."""
    with serve(tmp_path / "live") as server:
        number = OWN_NUMBERS[os.getpid() % len(OWN_NUMBERS)]
        before = Table.read(server.directory)
        set_slot(server.directory, before.used + 1, number, txnid=1)
        with registered(server.directory) as slot:
            assert slot.number == number
            assert dict(server.readers())[number] == slot.txnid > 1
            assert [pid for pid, _ in server.readers()].count(number) == 1
        assert number not in dict(server.readers())


def test_slots_are_used_again_and_the_table_grows_only_if_need_be(serve: Serve, tmp_path: Path) -> None:
    with serve(tmp_path / "live") as server:
        before = Table.read(server.directory)
        for _ in range(3):
            with registered(server.directory) as slot:
                taken = Table.read(server.directory)
                assert taken.used == before.used + 1
                assert taken.pids[before.used] == slot.number
            assert Table.read(server.directory).pids[before.used] == 0
        with registered(server.directory), registered(server.directory):
            assert Table.read(server.directory).used == before.used + 2


def test_the_first_free_slot_is_taken(serve: Serve, tmp_path: Path) -> None:
    with serve(tmp_path / "live") as server:
        free = Table.read(server.directory).used
        set_slot(server.directory, free + 2, STRANGER)
        set_slot(server.directory, free, STRANGER)
        with registered(server.directory) as slot:
            table = Table.read(server.directory)
            assert table.pids[free:] == (STRANGER, slot.number, STRANGER)
            assert table.used == free + 3


def test_a_full_table_is_refused_and_left_as_it_is(serve: Serve, tmp_path: Path) -> None:
    with serve(tmp_path / "live", max_readers=3) as server:
        for index in range(Table.read(server.directory).used, 3):
            set_slot(server.directory, index, STRANGER)
        before = Table.read(server.directory)
        with pytest.raises(BusyError, match="all 3 slots") as caught, registered(server.directory):
            pytest.fail("there was no slot")
        assert "max_readers" in str(caught.value.hint)
        assert Table.read(server.directory) == before
        state = inspect_lock(server.directory)
        assert not set(state.numbers) & set(OWN_NUMBERS)
        server.clear_stale()
        with registered(server.directory) as slot:
            slot.check()


def test_two_pins_have_different_numbers(serve: Serve, tmp_path: Path) -> None:
    with (
        serve(tmp_path / "live") as server,
        registered(server.directory) as one,
        registered(server.directory) as two,
        pinner(server.directory) as three,
        pinner(server.directory) as four,
    ):
        numbers = {one.number, two.number, first(three)[0], first(four)[0]}
        assert len(numbers) == 4
        assert numbers <= {number for number, _ in server.readers()}
        assert numbers <= set(inspect_lock(server.directory).numbers)
        one.release()
        two.check()
        assert server.clear_stale() == 0


def test_the_slot_shows_the_last_commit_and_stays_there(serve: Serve, tmp_path: Path) -> None:
    with serve(tmp_path / "live") as server, registered(server.directory) as early:
        assert early.txnid == early.committed
        server.commit()
        with registered(server.directory) as late:
            assert late.txnid == late.committed == early.txnid + 1 == early.committed


def test_many_pins_under_full_speed_show_a_recent_commit(serve: Serve, tmp_path: Path) -> None:
    with serve(tmp_path / "live", busy=True) as server:
        for _ in range(100):
            before = read_meta(server.directory / DATA_FILE).txnid
            with registered(server.directory) as slot:
                # A commit is in its meta page a moment before it is announced.
                assert IDLE > slot.committed >= slot.txnid >= before - 1
                slot.check()
        assert not set(OWN_NUMBERS) & {number for number, _ in server.readers()}


def test_threads_take_and_free_slots_at_once(serve: Serve, tmp_path: Path) -> None:
    with serve(tmp_path / "live") as server:
        used = Table.read(server.directory).used
        numbers: list[set[int]] = [set() for _ in range(4)]
        problems: list[BaseException] = []

        def work(mine: set[int]) -> None:
            try:
                for _ in range(25):
                    with registered(server.directory) as slot:
                        mine.add(slot.number)
                        slot.check()
            except BaseException as error:  # noqa: BLE001 - shown below
                problems.append(error)

        threads = [threading.Thread(target=work, args=(mine,)) for mine in numbers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not problems
        assert Table.read(server.directory).used <= used + 4
        assert server.clear_stale() == 0
        assert {number for number, _ in server.readers()} <= {server.pid}


def test_nothing_is_left_open(serve: Serve, tmp_path: Path) -> None:
    with serve(tmp_path / "live") as server:
        gc.collect()
        before = open_descriptors()
        with registered(server.directory) as slot:
            slot.release()
            slot.release()
        del slot
        gc.collect()
        assert open_descriptors() == before


def test_without_a_live_process_nothing_is_touched(tmp_path: Path) -> None:
    lock = make_environment(tmp_path) / "lock.mdb"
    before = lock.read_bytes()
    with pytest.raises(LockFileChangedError, match="no process has"), registered(tmp_path):
        pytest.fail("nobody is there")
    assert lock.read_bytes() == before
    assert not inspect_lock(tmp_path).live


def test_without_a_lock_file(tmp_path: Path) -> None:
    with pytest.raises(LockFileChangedError, match="does not exist"), registered(tmp_path):
        pytest.fail("there is none")


def test_a_lock_file_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "lock.mdb").mkdir()
    with pytest.raises(SourceError, match="cannot register as a reader") as caught, registered(tmp_path):
        pytest.fail("it is a directory")
    assert "read-write" in str(caught.value.hint)


def test_a_slot_that_somebody_cleared_is_noticed(serve: Serve, tmp_path: Path) -> None:
    with serve(tmp_path / "live") as server, registered(server.directory) as slot:
        index = Table.read(server.directory).pids.index(slot.number)
        set_slot(server.directory, index, 0)
        with pytest.raises(SnapshotChangedError, match="was lost"):
            slot.check()
        set_slot(server.directory, index, slot.number, txnid=IDLE)
        with pytest.raises(SnapshotChangedError, match="was lost"):
            slot.check()
        set_slot(server.directory, index, STRANGER, txnid=7)
        slot.release()
        # By then it was another reader's.
        assert (STRANGER, 7) in server.readers()
