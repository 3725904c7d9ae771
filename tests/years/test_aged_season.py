"""Weeks of nights on SeaweedFS, which runs the bucket's rules when what it holds has got older."""

from pathlib import Path

import pytest

from tests.iam.territory import Territory
from tests.servers.seaweed_lifecycle import Time
from tests.years.oracle import promised
from tests.years.script import season
from tests.years.times import AgedTime
from tests.years.year import Year


@pytest.mark.timeout(1800)
def test_a_season_ends_with_what_is_promised(
    territory: Territory, bucket_time: Time, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = season()
    it = Year(tmp_path, territory.url, script, AgedTime(monkeypatch, bucket_time))
    it.set_up()
    it.run("lifecycle", "apply")

    def after(night: int) -> None:
        if night % 10 == 0:
            it.check(it.now())

    it.live(after)

    bucket_time.run_rules()
    now = it.now()
    it.check(now)
    it.check_store(now)
    it.restore(set(promised(script, it.history, now)), tmp_path / "restored")
