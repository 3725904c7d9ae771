"""What is told of a process."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from archiver.environment.processes import find_process, lock_owners, owners, start_time
from tests.environment.live import writer
from tests.waiting import PATIENCE


def test_a_process_of_this_host() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        found = find_process(other.pid)
        assert found is not None
        assert found.pid == other.pid
        assert found.name.startswith("python")
        assert abs(datetime.now(UTC) - found.started) < timedelta(seconds=PATIENCE)


def test_one_that_is_gone() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as other:
        pass
    assert find_process(other.pid) is None


LOCKS = """\
1: POSIX  ADVISORY  READ 11 {file} 0 0
2: POSIX  ADVISORY  WRITE 12 {file} 12 12
2: -> POSIX  ADVISORY  WRITE 13 {file} 12 12
3: OFDLCK ADVISORY  WRITE -1 {file} 1090519040 1090519040
4: FLOCK  ADVISORY  WRITE 14 {file} 0 EOF
5: POSIX  ADVISORY  READ 15 {other} 0 0
6: FLOCK  ADVISORY  WRITE 16 <none>:0 0 EOF
"""


def test_the_owners_of_locks_on_a_file(tmp_path: Path) -> None:
    status = tmp_path.stat()
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    text = LOCKS.format(file=f"{device}:{status.st_ino}", other=f"{device}:{status.st_ino}1")
    assert owners(text, status) == {11, 12}


def test_the_owners_of_locks_where_none_can_be_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with writer(tmp_path) as live:
        assert lock_owners(tmp_path / "lock.mdb") == {live.pid}
        assert lock_owners(tmp_path / "no such file") == set()
        monkeypatch.setattr(os, "getpid", lambda: 1)
        assert lock_owners(tmp_path / "lock.mdb") == set(), "/proc is that of another pid namespace"


def test_a_name_may_hold_what_separates_the_fields() -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    status = b"7 (a) S (b) 1) S 1 " + b"0 " * 17 + b"%d 0 0\n" % (90 * ticks)
    assert start_time(status, b"cpu 1 2\nbtime 1000\n") == datetime.fromtimestamp(1090, UTC)
