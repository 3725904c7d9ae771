"""The heed writer itself: to us it is what Ucotron would be."""

import os
import platform
import struct
import time
from pathlib import Path

import lmdb
import pytest

from tests import heed
from tests.environment.live import writer as version_1_writer
from tests.heed import HeedWriter, Reader

SLOT_SIZE = 64


def test_it_commits_and_continues_after_an_orderly_end(heed_writer: Path, tmp_path: Path) -> None:
    with HeedWriter.start(heed_writer, tmp_path) as live:
        live.wait_for_commits(20)
        last = live.stop()
    assert last.vector_file_bytes == (tmp_path / "vector" / "data.mdb").stat().st_size
    first = heed.check(heed_writer, tmp_path)
    assert first.problem is None
    assert first.vector is not None
    assert first.graph is not None
    assert first.vector.counter == first.graph.counter == first.graph.vector_counter == last.counter
    assert 1000 < first.vector.entries <= 2001
    with HeedWriter.start(heed_writer, tmp_path, paused=True) as live:
        assert live.counter_at_start == last.counter + 1


@pytest.mark.parametrize("sync", [True, False])
def test_it_continues_after_a_kill(heed_writer: Path, tmp_path: Path, sync: bool) -> None:
    counter = 0
    for _ in range(3):
        with HeedWriter.start(heed_writer, tmp_path, sync=sync, nodes=200) as live:
            assert live.counter_at_start > counter
            live.wait_for_commits(20)
            live.kill()
        result = heed.check(heed_writer, tmp_path)
        assert result.problem is None
        assert result.vector is not None
        assert result.graph is not None
        assert result.vector.counter >= live.counter_at_start + 20
        # The kill may come between the two commits of a round.
        assert result.vector.counter - result.graph.counter in range(4)
        assert result.graph.vector_counter in (result.vector.counter, result.vector.counter - 1)
        counter = result.vector.counter


def test_it_does_what_it_is_told(heed_writer: Path, tmp_path: Path) -> None:
    with HeedWriter.start(heed_writer, tmp_path, rate=50, nodes=100, index_size=1000) as live:
        live.stats()
        began = time.monotonic()
        time.sleep(1)
        stats = live.stats()
        assert 0 < stats.commits <= 50 * (time.monotonic() - began) + 10
        assert 0 < stats.p50_us <= stats.p99_us <= stats.max_us
        counter = live.pause()
        time.sleep(0.1)
        assert live.commit() == counter + 1
        live.set_rate(0)
        assert live.commit() == counter + 2
        live.resume()
        live.wait_for_commits(100)
        assert live.stats().errors == 0


def test_one_environment_alone(heed_writer: Path, tmp_path: Path) -> None:
    with HeedWriter.start(heed_writer, tmp_path, only="graph", paused=True) as live:
        stats = live.stats()
    assert not (tmp_path / "vector").exists()
    assert stats.vector_file_bytes is None
    assert stats.graph_file_bytes == (tmp_path / "graph" / "data.mdb").stat().st_size
    result = heed.check(heed_writer, tmp_path)
    assert result.ok
    assert result.vector is None
    assert result.graph is not None
    assert result.graph.counter == stats.counter == live.counter_at_start


def test_a_full_map_is_counted_and_survived(heed_writer: Path, tmp_path: Path) -> None:
    with HeedWriter.start(heed_writer, tmp_path, nodes=100, index_size=2_000_000, map_size=1 << 20) as live:
        windows: list[heed.Stats] = []
        while sum(window.map_full for window in windows) < 2:
            windows.append(live.stats())
        windows.append(live.stop())
    assert all(window.map_full == window.errors for window in windows)
    assert not any(window.commits for window in windows)
    with HeedWriter.start(heed_writer, tmp_path, nodes=100, index_size=2_000_000) as live:
        live.wait_for_commits(5)
        assert live.stop().errors == 0
    assert heed.check(heed_writer, tmp_path).problem is None


def test_the_reader_table_is_listed_and_cleared(heed_writer: Path, tmp_path: Path) -> None:
    lock = tmp_path / "vector" / "lock.mdb"
    with HeedWriter.start(heed_writer, tmp_path, paused=True, max_readers=7) as live:
        assert live.readers() == {"vector": [], "graph": []}
        first_slot = lock.stat().st_size - 7 * SLOT_SIZE
        with lock.open("r+b") as table:
            # A process that is gone: no pid is so high, and nobody holds its lock.
            _write_at(table.fileno(), first_slot, struct.pack("=QI4xQ", 12, 0x7FFFFFF0, 34))
            _write_at(table.fileno(), first_slot + 3 * SLOT_SIZE, struct.pack("=qI4xQ", -1, 0x7FFFFFF1, 35))
            _write_at(table.fileno(), 16, struct.pack("=I", 4))
        slots = [Reader(pid=0x7FFFFFF0, thread=34, txnid=12), Reader(pid=0x7FFFFFF1, thread=35, txnid=None)]
        assert live.readers() == {"vector": slots, "graph": []}
        assert live.clear_stale() == {"vector": 2, "graph": 0}
        assert live.readers() == {"vector": [], "graph": []}


def _write_at(descriptor: int, offset: int, content: bytes) -> None:
    assert os.pwrite(descriptor, content, offset) == len(content)


def test_the_lock_file_is_heeds(heed_writer: Path, tmp_path: Path) -> None:
    with HeedWriter.start(heed_writer, tmp_path, paused=True):
        magic, word = struct.unpack("=II", (tmp_path / "vector" / "lock.mdb").read_bytes()[:8])
    assert magic == 0xBEEFC0DE
    assert word & 0xFFF == 2
    if platform.machine() == "x86_64":
        assert word == 0x2C2F6002


def test_beside_it_lock_version_1_is_refused(heed_writer: Path, tmp_path: Path) -> None:
    directory = tmp_path / "vector"
    with HeedWriter.start(heed_writer, tmp_path, only="vector", paused=True) as live:
        with pytest.raises(lmdb.VersionMismatchError):
            lmdb.open(str(directory), lib_version=0)
        with pytest.raises(lmdb.VersionMismatchError):
            lmdb.open(str(directory), lib_version=0, readonly=True)
        assert live.commit() == live.counter_at_start + 1
    with version_1_writer(directory) as after:
        assert isinstance(after.ask("commit"), int)


def test_beside_lock_version_1_it_is_refused(heed_writer: Path, tmp_path: Path) -> None:
    with version_1_writer(tmp_path / "vector") as live:
        with (
            pytest.raises(heed.HeedError, match="MDB_VERSION_MISMATCH"),
            HeedWriter.start(heed_writer, tmp_path, only="vector"),
        ):
            pytest.fail("it started")
        assert isinstance(live.ask("commit"), int)
    with HeedWriter.start(heed_writer, tmp_path, only="vector", paused=True) as after:
        assert after.commit() == after.counter_at_start + 1


def test_without_cargo_it_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("ARCHIVER_CACHE", str(tmp_path / "cache"))
    assert heed.main() == 1
    assert "needs cargo 1.80 or newer" in capfd.readouterr().err
