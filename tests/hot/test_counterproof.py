"""The harness without the pin: that it then finds torn snapshots is what makes its silence with the pin a proof."""

from pathlib import Path

import pytest

from tests.hot.harness import Backup, make_site, report

ATTEMPTS = 8
_HELPER = """
from archiver.environment import helper, reader

class Unpinned(reader.ReaderSlot):
    def __init__(self, table, number):
        super().__init__(table, number)
        self.began = super().txnid
        self._slot.txnid = reader.IDLE

    @property
    def txnid(self):
        return self.began

    def check(self):
        pass

reader.ReaderSlot = Unpinned
helper.main()
"""
WITHOUT_A_PIN = f"""
import sys
from archiver.environment import snapshot
snapshot.COMMAND = (sys.executable, "-P", "-c", {_HELPER!r})
"""
"""Code before a backup: its helpers' slots in the reader table protect nothing, and they do not notice."""


def damage(backup: Backup) -> str | None:
    """What shows that a snapshot was torn: LMDB could not read it, or what was made of it is not whole."""
    if backup.made:
        return backup.torn
    # An error of the code above would prove nothing.
    return None if "Traceback" in backup.done.errors else backup.done.output


def test_without_the_pin_torn_snapshots_are_found(heed_writer: Path, tmp_path: Path) -> None:
    with (
        make_site(tmp_path / "site", heed_writer) as site,
        site.server(nodes=5000, sync=False, map_size=8 << 30) as server,
    ):
        server.wait_for_commits(100)
        for number in range(1, ATTEMPTS + 1):
            found = damage(site.backup(WITHOUT_A_PIN))
            if found:
                report(f"found in backup {number}: {found}")
                return
    pytest.fail(f"none of {ATTEMPTS} snapshots without a pin was found to be torn")
