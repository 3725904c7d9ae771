"""What doctor is told of an environment."""

import os
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest

from archiver.config import PinLimits
from archiver.environment import inspection
from archiver.environment.freelist import reusable_pages
from archiver.environment.inspection import FileAccess, inspect
from archiver.environment.locks import OWN_NUMBERS, inspect_lock
from archiver.errors import BusyError, FormatError, NotFoundError
from tests.environment.live import HERE, make_environment, writer
from tests.environment.states import PINNING, READING, leak_a_page, make_plain_environment, reader_process
from tests.heed import HeedWriter


def test_a_closed_environment(tmp_path: Path) -> None:
    make_environment(tmp_path)
    report = inspect(tmp_path)
    assert (report.way, report.lock.live, report.readers, report.processes) == ("cold", False, (), ())
    assert report.file_size == (report.meta.last_page + 1) * report.meta.page_size
    assert report.pages is not None
    assert report.pages.free > 0
    assert report.pages.held == 0
    assert report.pages.used + report.pages.free + report.meta.free_list.pages == report.meta.last_page + 1
    assert report.copy_size == report.pages.used * report.meta.page_size
    assert report.fullness == report.file_size / (1 << 28)
    assert report.pages.room.beyond == (1 << 28) - report.file_size


def test_the_servers_map_may_be_smaller_than_the_file_says(tmp_path: Path) -> None:
    make_environment(tmp_path)
    report = inspect(tmp_path, max_size=1 << 20)
    assert report.pages is not None
    assert report.pages.room.map_size == 1 << 20


def test_a_live_one_is_left_as_it_was(tmp_path: Path) -> None:
    with writer(tmp_path) as live:
        before = inspect_lock(tmp_path)
        report = inspect(tmp_path)
        assert (report.way, report.lock.holder) == ("locked", live.pid)
        assert [process.pid for process in report.processes] == [live.pid]
        assert inspect_lock(tmp_path) == before


def test_a_live_heed_server(heed_writer: Path, tmp_path: Path) -> None:
    with HeedWriter.start(heed_writer, tmp_path, only="vector") as live:
        report = inspect(tmp_path / "vector")
        assert live.stats().errors == 0
    assert (report.way, report.lock.version, report.leaked_pages) == ("locked", 2, 0)
    assert report.reader_slots == 126
    assert [(process.pid, process.name) for process in report.processes] == [(live.pid, "heed_writer")]


def test_a_reader_that_lives_and_then_does_not(heed_writer: Path, tmp_path: Path) -> None:
    with HeedWriter.start(heed_writer, tmp_path, only="vector", paused=True) as live:
        with reader_process(PINNING, tmp_path / "vector"):
            for _ in range(7):
                live.commit()
            report = inspect(tmp_path / "vector")
            (reader,) = report.readers
            assert (reader.state, reader.behind) == ("archiver", 7)
            assert reader.number in OWN_NUMBERS
            assert report.pages is not None
            # 7 times the index of 200,000 bytes.
            assert 7 * 40 < report.pages.held <= report.pages.free
            assert report.pages.room.reusable == (report.pages.free - report.pages.held) * report.meta.page_size
        live.commit()
        # That of a dead one is no longer there once archiver has pinned again.
        found = inspect(tmp_path / "vector", declared="external").readers
        assert [(reader.state, reader.behind) for reader in found] == [("stale", 8)]


def test_the_owner_of_a_reader(tmp_path: Path) -> None:
    make_environment(tmp_path)
    with reader_process(READING, tmp_path) as other:
        (reader,) = inspect(tmp_path).readers
    assert (reader.number, reader.state, reader.behind) == (other.pid, "live", 0)
    assert reader.process is not None
    assert reader.process.pid == other.pid


def test_one_that_cannot_be_read_safely_has_the_reason(tmp_path: Path) -> None:
    with writer(tmp_path) as live:
        report = inspect(tmp_path, declared="frozen")
    assert isinstance(report.way, BusyError)
    assert f"pid {live.pid}" in report.way.message
    assert report.leaked_pages is None
    assert report.pages is not None, "nobody has committed meanwhile: they can be counted without a pin"


def test_too_little_headroom(heed_writer: Path, tmp_path: Path) -> None:
    with HeedWriter.start(heed_writer, tmp_path, only="vector", paused=True, map_size=16 << 20) as live:
        report = inspect(tmp_path / "vector", limits=PinLimits(headroom=90))
        assert live.readers() == {"vector": []}
    assert isinstance(report.way, BusyError)
    assert "can still be written to" in report.way.message


def test_an_external_one_is_not_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(inspection, "pin")
    with writer(tmp_path):
        report = inspect(tmp_path, declared="external")
    assert report.way == "external"
    assert report.pages is not None


def test_pages_that_change_while_they_are_counted_are_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_environment(tmp_path)
    real = reusable_pages

    def count_beside_a_fast_writer(path: Path, *rest: object) -> int:
        with lmdb.open(str(tmp_path), map_size=1 << 28, lib_version=0) as environment:
            for number in range(2):
                with environment.begin(write=True) as transaction:
                    transaction.put(b"counter", bytes([number]))
        return real(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(inspection, "reusable_pages", count_beside_a_fast_writer)
    report = inspect(tmp_path, declared="external")
    assert report.pages is None
    assert report.copy_size == report.meta.size


def test_leaked_pages(tmp_path: Path) -> None:
    make_plain_environment(tmp_path)
    assert inspect(tmp_path).leaked_pages == 0
    leak_a_page(tmp_path)
    assert inspect(tmp_path).leaked_pages == 1


def test_leaks_beside_duplicates_cannot_be_told(tmp_path: Path) -> None:
    make_environment(tmp_path)
    assert inspect(tmp_path).leaked_pages is None


def test_a_server_in_a_container_is_shown_by_its_pid_here(tmp_path: Path) -> None:
    command = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, str(HERE / "writer.py"), str(tmp_path)]
    with subprocess.Popen([*command, "idle", "126"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as outer:
        assert outer.stdout is not None
        if outer.stdout.readline() != '"ready"\n':
            if os.environ.get("CI"):
                pytest.fail("unshare is not permitted")
            pytest.skip("unshare is not permitted")
        report = inspect(tmp_path, declared="external")
        outer.kill()
    assert report.lock.numbers == (1,)
    (process,) = report.processes
    assert process.pid > 1
    assert process.name.startswith("python")
    assert report.elsewhere == ()


def test_none_and_a_corrupt_one(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        inspect(tmp_path)
    (tmp_path / "data.mdb").touch()
    with pytest.raises(FormatError):
        inspect(tmp_path)


@pytest.mark.parametrize(
    ("access", "expected"),
    [
        (FileAccess(1000, 1000, 0o600), True),
        (FileAccess(1000, 1000, 0o400), False),
        (FileAccess(0, 0, 0o600), False),
        (FileAccess(0, 0, 0o644), False),
        (FileAccess(0, 0, 0o666), True),
        (FileAccess(0, 1000, 0o660), True),
        (FileAccess(0, 1000, 0o606), False),
        (FileAccess(0, 5, 0o660), False),
    ],
)
def test_who_may_write(access: FileAccess, expected: bool) -> None:
    assert access.may_write(1000, 1000) is expected
    assert access.may_write(0, 0)
