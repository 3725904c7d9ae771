"""What a pin costs a live server is bounded: it is refused, given up or left before the server is in trouble."""

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from archiver.config import PinLimits
from archiver.environment.copying import copy_stream
from archiver.environment.locks import inspect_lock
from archiver.environment.snapshot import pin
from archiver.errors import BusyError, PinGivenUpError, SnapshotChangedError
from tests import heed
from tests.environment.traces import nothing_left_behind, pins
from tests.heed import HeedWriter
from tests.waiting import wait_until

MIB = 1 << 20
MAP_SIZE = 192 * MIB


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    with nothing_left_behind():
        yield


def test_without_headroom_nothing_is_pinned(heed_writer: Path, tmp_path: Path) -> None:
    directory = tmp_path / "vector"
    refused = pytest.raises(BusyError, match=r"^cannot pin .*vector: only [\d.]+ % of its map of 192 MiB")
    with (
        HeedWriter.start(heed_writer, tmp_path, only="vector", nodes=12_000, map_size=MAP_SIZE),
        refused as error,
        pin(directory, name="vector", limits=PinLimits(headroom=90)),
    ):
        pass
    assert type(error.value) is BusyError
    assert "max_db_size" in (error.value.hint or "")


@pytest.mark.parametrize("copying", [True, False])
def test_a_stalled_backup_gives_way_before_the_map_is_full(heed_writer: Path, tmp_path: Path, copying: bool) -> None:
    directory = tmp_path / "vector"
    with HeedWriter.start(
        heed_writer, tmp_path, only="vector", sync=False, nodes=6000, map_size=MAP_SIZE, index_size=MIB
    ) as server:
        with pin(directory, name="vector") as snapshot:
            stream = copy_stream(snapshot, 64 * 1024)
            if copying:
                next(stream)
            else:
                snapshot.check()
            # Nobody takes anything meanwhile.
            wait_until(lambda: not pins(directory))
            with pytest.raises(PinGivenUpError, match=r"^gave up the pin on .*: only [\d.]+ % of its map of 192 MiB"):
                if copying:
                    list(stream)
                # The slot is free a moment before the helper process has said why.
                wait_until(lambda: snapshot.check() is not None)  # type: ignore[func-returns-value]
        server.wait_for_commits(300)
        assert server.stats().errors == 0
        used = (directory / "data.mdb").stat().st_size
        assert used < MAP_SIZE
        # What the pin had kept is used again: the file does not grow on.
        server.wait_for_commits(100)
        assert (directory / "data.mdb").stat().st_size <= used + 8 * MIB
        assert server.stop().map_full == 0


def test_the_server_never_meets_a_full_map_from_its_first_commit_under_a_pin_on(
    heed_writer: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "vector"
    with HeedWriter.start(
        heed_writer, tmp_path, only="vector", sync=False, paused=True, nodes=6000, map_size=MAP_SIZE, index_size=MIB
    ) as server:
        with pin(directory, name="vector") as snapshot:
            stream = copy_stream(snapshot, 64 * 1024)
            next(stream)
            server.stats()
            server.resume()
            wait_until(lambda: not pins(directory))
            with pytest.raises(PinGivenUpError):
                list(stream)
        stats = server.stop()
        assert (stats.map_full, stats.errors) == (0, 0)
        assert stats.commits > 50


def test_a_pin_that_is_held_too_long_is_given_up(heed_writer: Path, tmp_path: Path) -> None:
    directory = tmp_path / "vector"
    with HeedWriter.start(heed_writer, tmp_path, only="vector", paused=True, nodes=6000):
        began = time.monotonic()
        with (
            pytest.raises(PinGivenUpError, match="held for longer than 1 s") as given_up,
            pin(directory, name="vector", limits=PinLimits(seconds=1)) as snapshot,
        ):
            stream = copy_stream(snapshot, 64 * 1024)
            next(stream)
            wait_until(lambda: not pins(directory))
            list(stream)
        assert time.monotonic() - began > 1
        assert "pin.seconds" in (given_up.value.hint or "")


def test_a_copy_in_time_is_not_given_up_afterwards(heed_writer: Path, tmp_path: Path) -> None:
    with HeedWriter.start(heed_writer, tmp_path, only="vector", paused=True):
        # A busy machine may not copy it in a second.
        for seconds in (1, 4, 16, 64):
            with (
                suppress(PinGivenUpError),
                pin(tmp_path / "vector", name="x", limits=PinLimits(seconds=seconds)) as snapshot,
            ):
                stream = copy_stream(snapshot, snapshot.estimated_copy_size - 4096)
                next(stream)
                time.sleep(seconds + 0.5)
                assert len(b"".join(stream)) == 4096
                return
    pytest.fail("every copy was given up")


@pytest.mark.usefixtures("faithful")
@pytest.mark.parametrize("orderly", [True, False])
def test_a_server_that_restarts_under_a_pin_respects_it(heed_writer: Path, tmp_path: Path, orderly: bool) -> None:
    live, copy = tmp_path / "live", tmp_path / "copy/vector/data.mdb"
    copy.parent.mkdir(parents=True)
    with HeedWriter.start(heed_writer, live, only="vector", sync=False, nodes=6000) as server:
        server.wait_for_commits(20)
        with pin(live / "vector", name="vector") as snapshot:
            stream = copy_stream(snapshot, 64 * 1024)
            first = next(stream)
            _ = server.stop() if orderly else server.kill()  # type: ignore[func-returns-value]
            with HeedWriter.start(heed_writer, live, only="vector", sync=False, nodes=6000) as again:
                again.wait_for_commits(50)
                copy.write_bytes(bytes(first) + b"".join(stream))
                assert again.stats().errors == 0
    assert heed.check(heed_writer, tmp_path / "copy").problem is None


def test_a_pin_leaves_when_its_server_has_gone_and_counts_while_nobody_writes(
    heed_writer: Path, tmp_path: Path
) -> None:
    live, copy = tmp_path / "live", tmp_path / "copy/vector/data.mdb"
    copy.parent.mkdir(parents=True)
    with HeedWriter.start(heed_writer, live, only="vector", sync=False, nodes=6000) as server:
        server.wait_for_commits(20)
        with pin(live / "vector", name="vector") as snapshot:
            stream = copy_stream(snapshot, 64 * 1024)
            first = next(stream)
            server.wait_for_commits(20)
            began = time.monotonic()
            server.stop()
            wait_until(lambda: not inspect_lock(live / "vector").live)
            assert time.monotonic() - began > 0.5
            assert snapshot.method == "locked"
            copy.write_bytes(bytes(first) + b"".join(stream))
    assert heed.check(heed_writer, tmp_path / "copy").problem is None


def test_a_server_that_comes_after_the_pin_has_left_makes_the_copy_worthless(heed_writer: Path, tmp_path: Path) -> None:
    with (
        HeedWriter.start(heed_writer, tmp_path, only="vector", paused=True, nodes=6000) as server,
        pin(tmp_path / "vector", name="vector") as snapshot,
    ):
        stream = copy_stream(snapshot, 64 * 1024)
        next(stream)
        server.stop()
        wait_until(lambda: not inspect_lock(tmp_path / "vector").live)
        with (
            HeedWriter.start(heed_writer, tmp_path, only="vector", nodes=6000) as again,
            pytest.raises(SnapshotChangedError, match="was opened by another process"),
        ):
            # LMDB may even crash on the pages that are in use again, which is no damage then.
            again.wait_for_commits(2)
            list(stream)
