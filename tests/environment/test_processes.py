"""What is told of a process."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

from archiver.environment.processes import find_process, start_time


def test_a_process_of_this_host() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        found = find_process(other.pid)
        assert found is not None
        assert found.pid == other.pid
        assert found.name.startswith("python")
        assert abs(datetime.now(UTC) - found.started) < timedelta(seconds=30)


def test_one_that_is_gone() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as other:
        pass
    assert find_process(other.pid) is None


def test_a_name_may_hold_what_separates_the_fields() -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    status = b"7 (a) S (b) 1) S 1 " + b"0 " * 17 + b"%d 0 0\n" % (90 * ticks)
    assert start_time(status, b"cpu 1 2\nbtime 1000\n") == datetime.fromtimestamp(1090, UTC)
