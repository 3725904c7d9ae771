"""What an attack on the pin found, and what a test must go on to find: harm to the server, or a torn copy."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from archiver.environment.copying import copy_stream
from archiver.environment.locks import inspect_lock
from archiver.environment.snapshot import Helper, pin
from archiver.errors import ArchiverError, SnapshotChangedError, SourceError
from tests import heed
from tests.environment.traces import alive, nothing_left_behind, pins
from tests.heed import HeedWriter
from tests.waiting import PATIENCE, wait_until

KIB = 1 << 10


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    with nothing_left_behind():
        yield


def compact_copy(directory: Path, to: Path) -> None:
    with pin(directory, name="vector") as snapshot, to.open("wb") as file:
        file.writelines(copy_stream(snapshot, 1024 * KIB))


def put_in_place(copy: Path, data: Path) -> None:
    """As ``mv`` would."""
    os.replace(shutil.copy(copy, copy.with_suffix(".new")), data)


def write_over(copy: Path, data: Path) -> None:
    """As ``rsync --inplace`` or ``dd conv=notrunc`` would: the file that the pin has open gets other content."""
    with data.open("r+b") as file:
        file.write(copy.read_bytes())


@pytest.mark.usefixtures("faithful")
@pytest.mark.parametrize("restore", [put_in_place, write_over])
@pytest.mark.parametrize("pins_held", [1, 2])
def test_a_restore_by_hand_under_a_pin_is_noticed_and_the_server_begins_at_the_right_commit(
    heed_writer: Path, tmp_path: Path, restore: object, pins_held: int
) -> None:
    """A server that joins a lock file of the old data takes its last txnid for the new one's: with an even one it would
    begin at the copy's other meta page, which is empty."""
    directory, copy = tmp_path / "vector", tmp_path / "copy.mdb"
    with HeedWriter.start(heed_writer, tmp_path, only="vector", paused=True, nodes=500) as server:
        compact_copy(directory, copy)
        wanted = server.commit()
        while inspect_newest(directory) % 2:
            wanted = server.commit()
        with Helper() as first, Helper() as second:
            snapshots = [helper.pin(directory, name="vector") for helper in (first, second)[:pins_held]]
            server.stop()
            assert callable(restore)
            restore(copy, directory / "data.mdb")
            # Not because the server has gone: for that it would wait much longer.
            wait_until(lambda: not inspect_lock(directory).live)
            with HeedWriter.start(heed_writer, tmp_path, only="vector", paused=True, nodes=500) as again:
                assert 2 < again.counter_at_start <= wanted
            for snapshot in snapshots:
                with pytest.raises(
                    SnapshotChangedError, match=r"was replaced while it was pinned|was opened by another"
                ):
                    list(copy_stream(snapshot, 64 * KIB))
    assert heed.check(heed_writer, tmp_path).problem is None


def inspect_newest(directory: Path) -> int:
    with pin(directory, name="vector") as snapshot:
        return snapshot.txnid


def test_two_pins_do_not_keep_each_other_from_leaving(heed_writer: Path, tmp_path: Path) -> None:
    directory = tmp_path / "vector"
    with (
        HeedWriter.start(heed_writer, tmp_path, only="vector", paused=True, nodes=500) as server,
        pin(directory, name="vector") as one,
        pin(directory, name="vector") as other,
    ):
        server.stop()
        wait_until(lambda: not inspect_lock(directory).live)
        assert all(sum(map(len, copy_stream(snapshot, 64 * KIB))) for snapshot in (one, other))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_the_slot_of_a_helper_that_was_killed_is_freed_by_its_parent(
    heed_writer: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """LMDB does not look for dead readers by itself: the file would grow until its map is full."""
    directory = tmp_path / "vector"
    with HeedWriter.start(heed_writer, tmp_path, only="vector", rate=50, nodes=500) as server:
        with Helper() as helper:
            snapshot = helper.pin(directory, name="vector")
            os.kill(helper._process.pid, number)
            wait_until(lambda: not alive(helper._process.pid))
            with pytest.raises(ArchiverError):
                snapshot.check()
        assert not pins(directory)
        assert server.readers()["vector"] == []


def test_a_helper_that_was_stopped_is_ended_and_its_slot_freed(
    heed_writer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("archiver.environment.snapshot._PATIENCE", 0.2)
    directory = tmp_path / "vector"
    with HeedWriter.start(heed_writer, tmp_path, only="vector", paused=True, nodes=500):
        with Helper() as helper:
            helper.pin(directory, name="vector")
            os.kill(helper._process.pid, signal.SIGSTOP)
        assert not pins(directory)


def test_what_is_no_file_is_an_error_and_not_a_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "data.mdb")
    with pytest.raises((ArchiverError), match="is not a regular file"), pin(tmp_path, name="vector"):
        pass


def test_a_helper_that_waits_for_its_request_ends_on_a_signal() -> None:
    with Helper() as helper:
        helper._process.terminate()
        helper._process.wait(PATIENCE)
        with pytest.raises(SourceError):
            helper.pin(Path("/nonexistent"), name="x")
