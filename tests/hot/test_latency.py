"""How long the server's commits take while it is backed up, and while it is not, in turns within one run."""

import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.heed import Stats
from tests.hot.harness import make_site, report
from tests.operations.scene import finish


def p99(windows: Sequence[Stats]) -> float:
    """The median of the windows' p99, in microseconds: one window that something else disturbed does not count."""
    return statistics.median(window.p99_us for window in windows)


SLOW = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.mark.parametrize(
    ("rounds", "nodes", "sync", "limit"),
    [
        # Beside a whole test suite on two cores a sharper bound would fail now and then.
        pytest.param(2, 5000, True, 10, id="first tier"),
        pytest.param(15, 60_000, True, 2, id="synced", marks=SLOW),
        # Commits that wait for no disk take a fifth of the time, and wait for a core like anything else.
        pytest.param(15, 60_000, False, 10, id="not synced", marks=SLOW),
    ],
)
def test_commits_take_at_most_so_many_times_as_long(
    heed_writer: Path, tmp_path: Path, rounds: int, nodes: int, sync: bool, limit: float
) -> None:
    quiet, busy, copied = [], [], 0
    with (
        make_site(tmp_path / "site", heed_writer) as site,
        site.server(nodes=nodes, sync=sync, map_size=16 << 30) as server,
    ):
        lasted = 1.0
        for _ in range(rounds):
            server.stats()
            time.sleep(lasted)
            quiet.append(server.stats())
            done = finish(site.begin())
            busy.append(server.stats())
            lasted = busy[-1].seconds
            assert done.code == 0, done
            copied = done.document["plaintext_bytes"]
    assert not any(window.errors for window in quiet + busy)
    for name, windows in (("without", quiet), ("during", busy)):
        seconds = sum(window.seconds for window in windows)
        report(
            f"{name} a backup: p99 {p99(windows):.0f} us, p50 {statistics.median(w.p50_us for w in windows):.0f} us, "
            f"longest {max(window.max_us for window in windows)} us, {sum(w.commits for w in windows) / seconds:.0f} "
            f"commits a second in {seconds:.0f} s"
        )
    report(f"ratio {p99(busy) / p99(quiet):.2f}, {copied >> 20} MiB copied")
    assert p99(busy) <= limit * p99(quiet)
