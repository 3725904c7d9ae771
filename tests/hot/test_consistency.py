"""Backups of a server that commits as fast as it can: each is one whole commit, and the server hardly notices."""

from pathlib import Path

import pytest

from tests.hot.harness import make_site, report
from tests.operations.scene import finish

GROWTH = 2
"""What a pin costs at most is what the server writes while it is held, and the next one's cost is paid from the pages
that this left free: so the files grow by what was written during one backup, not during all. Twice that, because the
index value needs pages in a row, for which free ones may not do."""


@pytest.mark.parametrize(
    ("backups", "nodes", "sync"),
    [
        (5, 5000, False),
        pytest.param(50, 10_000, True, marks=[pytest.mark.slow, pytest.mark.timeout(3600)]),
        pytest.param(50, 10_000, False, marks=[pytest.mark.slow, pytest.mark.timeout(3600)]),
        pytest.param(5, 150_000, False, marks=[pytest.mark.slow, pytest.mark.timeout(3600)]),
    ],
)
def test_every_backup_of_a_busy_server_is_whole(
    heed_writer: Path, tmp_path: Path, backups: int, nodes: int, sync: bool
) -> None:
    commits = errors = full = most = 0
    with (
        make_site(tmp_path / "site", heed_writer) as site,
        site.server(nodes=nodes, sync=sync, map_size=16 << 30) as server,
    ):
        server.wait_for_commits(100)
        before = site.size()
        for _ in range(backups):
            earliest, written = server.stats().counter, site.written(server)
            done = finish(site.begin())
            stats = server.stats()
            commits += stats.commits
            errors += stats.errors
            full += stats.map_full
            most = max(most, site.written(server) - written)
            backup = site.judge(done)
            assert backup.made, backup.done
            assert backup.torn is None
            assert backup.methods == {"locked"}
            assert backup.check is not None
            assert backup.check.vector is not None
            assert earliest <= backup.check.vector.counter <= stats.counter
        assert len(site.scene.backups()) == backups
        assert (errors, full) == (0, 0)
        grown = site.size() - before
        assert grown <= GROWTH * most
        assert all(not slots for slots in server.readers().values())
    report(
        f"{backups} backups, {nodes} nodes, {'synced' if sync else 'not synced'}: {commits} commits meanwhile, files "
        f"{before >> 20} MiB and grown by {grown >> 20} MiB, of at most {most >> 20} MiB written during one backup"
    )
