"""The server's room comes first: no MDB_MAP_FULL through a backup, whose pin is refused or given up before that."""

from pathlib import Path

from tests.heed import HeedWriter
from tests.hot.harness import make_site
from tests.operations.scene import MIB, finish
from tests.waiting import wait_until

MAP = 256 * MIB
CALM = 5
"""Commits a second beside which a backup has time: with them the server writes a few MiB a second."""
STALLED = """
import os, time
from archiver.operations.uploads import Uploads
write = Uploads.write
def stalled(plaintext):
    for buffer in plaintext:
        while os.path.exists({gate!r}):
            time.sleep(0.05)
        yield buffer
def stalling(uploads, kind, plaintext, **options):
    return write(uploads, kind, stalled(plaintext), **options)
Uploads.write = stalling
"""
"""Code before a backup: nothing is read of an environment's copy while the file ``gate`` exists, as where there is no
processor to compress it. A destination that stalls holds no pin: what is read waits in the spool."""


def pinned(server: HeedWriter) -> int:
    """How many environments somebody reads a snapshot of."""
    return sum(any(slot.txnid is not None for slot in slots) for slots in server.readers().values())


def test_a_stalled_backup_gives_way_and_the_next_one_succeeds(heed_writer: Path, tmp_path: Path) -> None:
    """The bound is 60 % of the map, so a pin is given up when 40 % of it is left: far above what the server can write
    between two looks, on however slow a machine."""
    settings = "\n[pin]\nheadroom = 60\nattempts = 1\n\n[tuning]\nframe_size = 262144\n"
    with (
        make_site(tmp_path / "site", heed_writer, settings=settings) as site,
        site.server(nodes=5000, sync=False, map_size=MAP) as server,
    ):
        # Where it goes with the site, so that a failed test leaves no process behind that waits for it.
        gate = site.scene.root / "gate"
        gate.touch()
        process = site.begin(STALLED.format(gate=str(gate)))
        wait_until(lambda: pinned(server) == 2)
        wait_until(lambda: pinned(server) == 0)
        # The copy stalls still: nobody but the watch has given the pins up.
        assert process.poll() is None
        gate.unlink()
        done = finish(process)
        assert done.code == 6, done
        assert "gave up the pin" in done.output
        assert "of its map" in done.output
        assert site.scene.backups() == []
        server.wait_for_commits(200)
        # At full speed the next backup would race the server, and lose on a slow machine.
        server.set_rate(CALM)
        backup = site.backup()
        assert backup.made, backup.done
        assert backup.torn is None
        stats = server.stats()
        assert (stats.errors, stats.map_full) == (0, 0)
        for size in (stats.vector_file_bytes, stats.graph_file_bytes):
            assert size is not None
            assert size < 0.7 * MAP


def test_a_backup_without_headroom_does_not_begin(heed_writer: Path, tmp_path: Path) -> None:
    settings = "\n[pin]\nheadroom = 90\nattempts = 1\n"
    with (
        make_site(tmp_path / "site", heed_writer, settings=settings) as site,
        site.server(nodes=5000, sync=False, map_size=64 * MIB) as server,
    ):
        server.wait_for_commits(100)
        done = finish(site.begin())
        assert done.code == 6, done
        assert "cannot pin" in done.output
        assert "of its map" in done.output
        assert site.scene.backups() == []
        assert pinned(server) == 0
        server.wait_for_commits(100)
        stats = server.stats()
        assert (stats.errors, stats.map_full) == (0, 0)
