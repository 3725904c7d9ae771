"""A server that starts, stops or crashes at any moment of a backup: it always starts, and no backup is torn."""

import subprocess
import time
from pathlib import Path
from random import Random

import pytest

from tests.hot.harness import Site, make_site, report
from tests.operations.scene import finish

FAILED_OR_BUSY = (1, 6)
SERVER = {"nodes": 3000, "sync": False, "map_size": 4 << 30}
ROUNDS = [4, pytest.param(60, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]


def count_sound(site: Site, process: "subprocess.Popen[bytes]", earlier: int) -> int:
    """The backups that there are when ``process`` has ended, ``earlier`` ones included: it made one that is whole, or
    failed with a typed error and left none."""
    backup = site.judge(finish(process))
    assert backup.torn is None
    assert backup.made or backup.done.code in FAILED_OR_BUSY, backup.done
    assert "Traceback" not in backup.done.errors
    assert len(site.scene.backups()) == earlier + backup.made
    return earlier + backup.made


def seconds_of_a_backup(site: Site) -> float:
    began = time.monotonic()
    done = finish(site.begin())
    assert done.code == 0, done
    return time.monotonic() - began


@pytest.mark.parametrize("rounds", ROUNDS)
def test_the_server_restarts_at_any_moment_of_a_backup(heed_writer: Path, tmp_path: Path, rounds: int) -> None:
    chance = Random(rounds)
    with make_site(tmp_path / "site", heed_writer) as site:
        with site.server(**SERVER):
            seconds, made = seconds_of_a_backup(site), 1
        for _ in range(rounds):
            with site.server(**SERVER) as first:
                process = site.begin()
                time.sleep(chance.random() * seconds)
                if chance.random() < 0.5:
                    first.kill()
                else:
                    assert first.stop().errors == 0
            time.sleep(chance.choice([0, 0.2]) * chance.random())
            with site.server(**SERVER) as second:
                made = count_sound(site, process, made)
                second.wait_for_commits(10)
                assert second.stats().errors == 0
                assert all(not slots for slots in second.readers().values())
    assert made > 1, "no backup was made while the server restarted"
    report(f"{made - 1} of {rounds} backups were made beside a server that restarted")


@pytest.mark.parametrize("rounds", ROUNDS)
def test_the_server_starts_at_any_moment_of_a_cold_backup(heed_writer: Path, tmp_path: Path, rounds: int) -> None:
    chance = Random(rounds)
    with make_site(tmp_path / "site", heed_writer) as site:
        with site.server(**SERVER):
            seconds, made = seconds_of_a_backup(site), 1
        for _ in range(rounds):
            process = site.begin()
            time.sleep(chance.random() * seconds)
            with site.server(**SERVER) as server:
                made = count_sound(site, process, made)
                server.wait_for_commits(10)
                assert server.stats().errors == 0
    assert made > 1, "no backup was made while the server started"
    report(f"{made - 1} of {rounds} backups were made while the server started")
