"""What lifecycle rules do to keys."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.retention.rules import Rule, after, earlier, expires_on, lasts, sure_until
from tests.retention.world import DAY, Item

MOMENT = datetime(2026, 11, 22, 2, tzinfo=UTC)
MOMENTS = st.timedeltas(-100 * 365 * DAY, 100 * 365 * DAY).map(MOMENT.__add__)
ENDS = st.none() | MOMENTS


@pytest.mark.parametrize(
    ("prefix", "base", "expected"),
    [
        ("", "", ""),
        ("", "p/", ""),
        ("p", "p/", ""),
        ("p/", "p/", ""),
        ("p/daily/", "p/", "daily/"),
        ("p/d", "p/", "d"),
        ("q/", "p/", None),
        ("p/q/daily/", "p/qq/", None),
        ("daily/", "", "daily/"),
    ],
)
def test_a_rule_below_a_destination(prefix: str, base: str, expected: str | None) -> None:
    below = Rule("r", prefix, expires_days=1).below(base)
    assert below == (None if expected is None else Rule("r", expected, expires_days=1))


def test_which_keys_a_rule_meets() -> None:
    assert Rule("r", "").covers("daily/data/")
    assert Rule("r", "daily/data/").covers("daily/data/")
    assert not Rule("r", "daily/data/prod/").covers("daily/data/")
    assert Rule("r", "daily/data/prod/").meets("daily/data/")
    assert Rule("r", "d").meets("daily/data/")
    assert not Rule("r", "daily/backups/").meets("daily/data/")
    assert not Rule("r", "", tagged=True).meets("daily/data/")
    assert Rule("r", "", sized=True).meets("daily/data/")


@pytest.mark.parametrize(
    ("created", "expected"),
    [
        ("2026-11-22T02:00:00+00:00", "2026-11-25"),
        ("2026-11-22T00:00:00+00:00", "2026-11-24"),
        ("2026-11-22T00:00:01+00:00", "2026-11-25"),
        ("2026-11-22T23:59:59+00:00", "2026-11-25"),
        ("2026-11-22T00:30:00+01:00", "2026-11-24"),
    ],
)
def test_s3_acts_on_the_midnight_after(created: str, expected: str) -> None:
    assert expires_on(datetime.fromisoformat(created), 2) == datetime.fromisoformat(f"{expected}T00:00:00+00:00")


@given(MOMENTS, st.integers(1, 40000))
def test_s3_never_acts_too_soon_nor_a_day_late(moment: datetime, days: int) -> None:
    assert timedelta(0) <= expires_on(moment, days) - (moment + days * DAY) < DAY


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([], None),
        ([Rule("a", "", expires_days=3)], MOMENT + 3 * DAY),
        ([Rule("a", "daily/", expires_days=3), Rule("b", "daily/data/", expires_days=2)], MOMENT + 2 * DAY),
        ([Rule("a", "daily/data/", expires_days=2), Rule("b", "", expires_days=3)], MOMENT + 2 * DAY),
        ([Rule("a", "daily/backups/", expires_days=2)], None),
        ([Rule("a", "", expires_days=2, tagged=True)], None),
        ([Rule("a", "", expires_days=2, sized=True)], MOMENT + 2 * DAY),
        ([Rule("a", "", aborts_days=1, noncurrent_days=1, removes_markers=True, archives_days=1)], None),
        ([Rule("a", "", expires_at=MOMENT + DAY), Rule("b", "", expires_days=2)], MOMENT + DAY),
        ([Rule("a", "", expires_days=1 << 40)], None),
    ],
)
def test_until_when_a_key_is_sure_to_exist(rules: list[Rule], expected: datetime | None) -> None:
    assert sure_until(Item("daily/data/prod/x", 1, MOMENT), rules) == expected


def test_days_after_a_moment() -> None:
    assert after(MOMENT, 2) == MOMENT + 2 * DAY
    assert after(MOMENT, None) is None
    assert after(MOMENT, 10**9) is None
    assert after(MOMENT.astimezone(timezone(timedelta(hours=3))), 0) == MOMENT


@given(ENDS, ENDS)
def test_the_earlier_of_two_ends(one: datetime | None, other: datetime | None) -> None:
    end = earlier(one, other)
    assert end in (one, other)
    assert lasts(one, end)
    assert lasts(other, end)


def test_what_lasts_up_to_an_end() -> None:
    assert lasts(None, None)
    assert lasts(None, MOMENT)
    assert not lasts(MOMENT, None)
    assert lasts(MOMENT, MOMENT)
    assert not lasts(MOMENT, MOMENT + timedelta(microseconds=1))
