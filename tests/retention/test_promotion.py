"""Which backups are copied into which class."""

from datetime import UTC, date, datetime, timedelta
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from archiver.config import Every
from archiver.retention.policy import Term
from archiver.retention.promotion import Known, Promotion, beginning, promotions, rescue
from tests.retention.world import DAY

TERMS = {
    "daily": Term("daily", 35, 42),
    "weekly": Term("weekly", 60, 67, "week"),
    "monthly": Term("monthly", 400, 435, "month"),
    "held": Term("held", None, None),
}
NOW = datetime(2026, 11, 29, 3, tzinfo=UTC)


def known(day: str, *classes: str, hours: float = 1, lasting: bool = True) -> Known:
    """A backup of that day at 02:00, in ``daily`` unless other ``classes`` are given."""
    started = datetime.fromisoformat(f"{day}T02:00:00+00:00")
    promises = {
        name: None if (keep := TERMS[name].keep) is None else started + keep * DAY for name in classes or ("daily",)
    }
    return Known(day, started, started + timedelta(hours=hours), started + 35 * DAY, promises, lasting)


def due(*backups: Known, now: datetime = NOW) -> list[tuple[str, str]]:
    return [(item.backup, item.target) for item in promotions(backups, TERMS, now)]


@pytest.mark.parametrize(
    ("moment", "every", "expected"),
    [
        ("2026-11-29T23:59:59+00:00", "week", "2026-11-23"),
        ("2026-11-30T00:00:00+00:00", "week", "2026-11-30"),
        ("2027-01-03T12:00:00+00:00", "week", "2026-12-28"),
        ("2026-12-01T00:30:00+01:00", "month", "2026-11-01"),
        ("2026-12-31T23:59:59+00:00", "year", "2026-01-01"),
        ("2028-02-29T12:00:00+00:00", "year", "2028-01-01"),
    ],
)
def test_the_beginning_of_a_period(moment: str, every: Every, expected: str) -> None:
    assert beginning(datetime.fromisoformat(moment), every) == datetime.fromisoformat(f"{expected}T00:00:00+00:00")


@given(st.timedeltas(-100 * 365 * DAY, 100 * 365 * DAY).map(NOW.__add__), st.sampled_from(get_args(Every)))
def test_a_period_has_one_beginning(moment: datetime, every: Every) -> None:
    first = beginning(moment, every)
    assert first <= moment
    assert beginning(first, every) == first
    assert beginning(first - timedelta(microseconds=1), every) < first
    if every == "week":
        assert date.fromisocalendar(*first.isocalendar()) == first.date()
        assert first.isoweekday() == 1


def test_the_first_finished_backup_of_a_period_longest_class_first() -> None:
    long_run = known("2026-11-02", hours=60)
    backups = [known("2026-11-10"), long_run, known("2026-11-03")]
    assert due(*backups) == [("2026-11-03", "monthly"), ("2026-11-03", "weekly"), ("2026-11-10", "weekly")]
    assert promotions([known("2026-11-03")], TERMS, NOW) == [
        Promotion("2026-11-03", "monthly", "the first of 2026-11"),
        Promotion("2026-11-03", "weekly", "the first of 2026-W45"),
    ]


def test_the_first_of_a_year_is_called_so() -> None:
    terms = {"yearly": Term("yearly", 800, 860, "year")}
    assert promotions([known("2026-11-03")], terms, NOW) == [Promotion("2026-11-03", "yearly", "the first of 2026")]


def test_a_period_that_has_a_copy_gets_no_other() -> None:
    assert due(known("2026-11-20", "monthly", "weekly"), known("2026-11-16")) == []
    assert due(known("2026-11-20", "monthly")) == [("2026-11-20", "weekly")]


def test_a_period_ends_at_midnight_utc() -> None:
    backups = [known("2026-10-31", "monthly", "weekly"), known("2026-11-01")]
    assert due(*backups) == [("2026-11-01", "monthly")]


def test_what_would_not_be_believed_is_not_copied() -> None:
    assert due(known("2026-11-03", lasting=False), known("2026-11-04")) == [
        ("2026-11-04", "monthly"),
        ("2026-11-04", "weekly"),
    ]
    assert due(known("2026-11-03", "monthly", "weekly", lasting=False), known("2026-11-04")) == []


def test_what_is_dated_ahead_is_left_out() -> None:
    assert due(known("2026-11-30"), known("2026-11-28", "weekly")) == [("2026-11-28", "monthly")]
    # Neither does it stand for its period.
    assert due(known("2026-11-30", "monthly"), known("2026-11-28", "weekly")) == [("2026-11-28", "monthly")]
    now = datetime(2026, 11, 30, 2, tzinfo=UTC)
    assert due(known("2026-11-30"), now=now) == [("2026-11-30", "monthly"), ("2026-11-30", "weekly")]


def test_nothing_is_copied_of_a_period_that_is_over() -> None:
    """To be counted from the beginning of the period: in this week its first backup was made on a Tuesday."""
    end = datetime(2026, 11, 2, tzinfo=UTC) + 60 * DAY
    assert ("2026-11-03", "weekly") in due(known("2026-11-03"), now=end - timedelta(seconds=1))
    assert ("2026-11-03", "weekly") not in due(known("2026-11-03"), now=end)


def test_a_copy_that_has_come_and_gone_is_not_replaced_by_a_later_one() -> None:
    """The first backup of October has been in ``monthly``, and has gone there on this day."""
    terms = {"daily": Term("daily", 7, 9), "monthly": Term("monthly", 40, 47, "month")}
    last = Known(
        "b",
        started := datetime(2026, 10, 31, 2, tzinfo=UTC),
        started,
        started + 14 * DAY,
        {"weekly": started + 14 * DAY},
    )
    over = datetime(2026, 11, 10, tzinfo=UTC)
    assert promotions([last], terms, over) == []
    assert promotions([last], terms, over + 5 * DAY) == []
    # Until then none was there at all.
    assert promotions([last], terms, over - timedelta(seconds=1)) == [Promotion("b", "monthly", "the first of 2026-10")]


def test_a_class_that_would_keep_it_for_less_long_takes_no_backup_and_needs_none() -> None:
    """The copy would be promised for less than the manifest says."""
    long = replace(known("2026-11-16"), promised=datetime(2027, 1, 15, 2, tzinfo=UTC) + timedelta(seconds=1))
    assert due(long, known("2026-11-17")) == [("2026-11-16", "monthly")]
    assert due(replace(long, promised=long.promised - timedelta(seconds=1)), known("2026-11-17")) == [
        ("2026-11-16", "monthly"),
        ("2026-11-16", "weekly"),
    ]
    # One that nobody would believe later stands for nothing.
    assert due(replace(long, lasting=False), known("2026-11-17")) == [
        ("2026-11-17", "monthly"),
        ("2026-11-17", "weekly"),
    ]


def saved(*backups: Known, now: datetime, terms: dict[str, Term] = TERMS) -> tuple[str, str] | None:
    """What is tried first."""
    found = rescue(backups, terms, now)
    return (found[0].backup, found[0].target) if found else None


def test_a_failed_run_saves_the_newest_backup_two_days_before_its_end() -> None:
    end = datetime(2026, 11, 3, 2, tzinfo=UTC) + 35 * DAY
    backups = [known("2026-11-01", "monthly"), known("2026-11-03"), known("2026-11-02")]
    assert saved(*backups, now=end - 2 * DAY - timedelta(seconds=1)) is None
    assert saved(*backups, now=end - 2 * DAY) == ("2026-11-03", "weekly")
    assert saved(*backups, now=end + 9 * DAY) == ("2026-11-03", "weekly")


def test_a_rescue_goes_into_the_shortest_class_that_is_long_enough() -> None:
    start = datetime(2026, 11, 3, 2, tzinfo=UTC)
    # Two days more or less is no rescue.
    assert saved(known("2026-11-03"), now=start + 58 * DAY - timedelta(seconds=1)) == ("2026-11-03", "weekly")
    assert saved(known("2026-11-03"), now=start + 58 * DAY) == ("2026-11-03", "monthly")
    assert saved(known("2026-11-03", "weekly"), now=start + 59 * DAY) == ("2026-11-03", "monthly")
    assert saved(known("2026-11-03", "monthly"), now=start + 399 * DAY) == ("2026-11-03", "held")
    assert saved(known("2026-11-03", "held"), now=start + 399 * DAY) is None


def test_where_a_rescue_fails_a_longer_class_is_next_and_held_the_last() -> None:
    now = datetime(2026, 11, 3, 2, tzinfo=UTC) + 34 * DAY
    found = rescue([known("2026-11-03"), known("2026-11-02")], TERMS, now)
    assert [(item.backup, item.target) for item in found] == [
        ("2026-11-03", "weekly"),
        ("2026-11-03", "monthly"),
        ("2026-11-03", "held"),
    ]


def test_a_rescue_of_what_is_there() -> None:
    now = datetime(2026, 12, 20, tzinfo=UTC)
    assert saved(now=now) is None
    assert saved(known("2026-12-21"), now=now) is None
    assert saved(known("2026-11-12", lasting=False), known("2026-11-11"), now=now) == ("2026-11-11", "weekly")
    assert saved(known("2026-11-11"), now=now, terms={"daily": TERMS["daily"]}) is None
