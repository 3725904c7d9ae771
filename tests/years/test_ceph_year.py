"""A year of nights on Ceph, which runs the bucket's rules by itself all the time, with days of seconds. The nights are
those of a host that may not delete."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.servers.ceph import LIMITED, CephServer
from tests.servers.localstack import REGION
from tests.years.conftest import BUCKET, DAY_SECONDS
from tests.years.oracle import promised
from tests.years.script import year
from tests.years.times import ShortDays
from tests.years.year import Year


@contextmanager
def _login(access_key: str, secret_key: str) -> Iterator[None]:
    """Whose credentials archiver finds in the environment."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("AWS_ACCESS_KEY_ID", access_key)
        patched.setenv("AWS_SECRET_ACCESS_KEY", secret_key)
        yield


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_year_ends_with_what_is_promised(
    ceph_server: CephServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    time = ShortDays(monkeypatch, DAY_SECONDS)
    script = year()
    url = f"s3://{BUCKET}/backups?endpoint={ceph_server.endpoint}&region={REGION}"
    it = Year(
        tmp_path, url, script, time, administrator=partial(_login, ceph_server.access_key, ceph_server.secret_key)
    )
    it.set_up()
    it.run("lifecycle", "apply")
    with _login(*LIMITED):
        time.restart()
        it.live()

    # The script has no promise end in these days, so it does not matter when in them the rules are run.
    before = it.now()
    ceph_server.stop_rules()
    ceph_server.run_rules(BUCKET)
    now = time.stop()
    expected = promised(script, it.history, now)
    assert expected == promised(script, it.history, before)
    it.check(now)
    it.check_store(before)
    it.restore(set(expected), tmp_path / "restored")
    # A machine that is too slow for the nights proves less.
    assert len(it.late) < len(script.events) // 10, it.late
