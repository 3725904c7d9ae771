"""A year of nights on ``file://``, whose only way of forgetting is ``archiver expire``."""

import json
import os
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest

from tests.years.oracle import promised
from tests.years.script import DAY, night_time, year
from tests.years.times import DirectoryTime
from tests.years.year import SOURCE, Year


def packs_of_nights(destination: Path) -> set[str]:
    """In which classes the packs lie that daily backups name: those of other classes are those of earlier backups."""
    found = set()
    for placement in destination.glob(f"daily/data/{SOURCE}/*.placement.jsonl.zst"):
        lines = subprocess.run(["zstd", "-dcq", placement], capture_output=True, check=True).stdout.splitlines()
        found |= {key.split("/")[0] for line in lines if ".tar." in (key := json.loads(line)["key"])}
    return found


@pytest.mark.timeout(1800)
def test_a_year_ends_with_what_is_promised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    time = DirectoryTime(monkeypatch)
    # Thousands of keys are created here, and no power cut is survived.
    monkeypatch.setattr(os, "fsync", lambda _: None)
    script = year()
    it = Year(tmp_path, (tmp_path / "destination").as_uri(), script, time)
    it.set_up()

    def after(night: int) -> None:
        """Each week what has expired goes. Each month, and when a run has failed, what is there is compared. Twice in
        the year a quarter of it is restored."""
        if night % 7 == 0:
            it.run("expire")
        tomorrow = night_time(night + 1)
        if tomorrow.day == 1 or script.events[night] == "failed":
            it.check(time.now())
        if tomorrow.day == 1 and tomorrow.month in (1, 5):
            some = sorted(promised(script, it.history, time.now()))[::4]
            it.restore(set(some), tmp_path / "restored" / str(night))

    it.live(after)

    # After midnight, when what ended in the day before has gone, and before the hour at which more ends.
    now = night_time(len(script.events)).replace(hour=0, minute=30)
    time.set(now)
    it.run("expire")
    it.check(now)
    it.check_store(now)
    it.restore(set(promised(script, it.history, now)), tmp_path / "restored" / "end")
    assert packs_of_nights(tmp_path / "destination") > {"daily", "weekly"}
    time.set(now + timedelta(minutes=30))
    assert "nothing has expired" in it.run("expire").output
    assert it.stored()[-1].modified < now + DAY
