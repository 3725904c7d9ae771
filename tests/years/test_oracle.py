"""The oracle and the scripts by which the years are judged, checked by hand."""

import re
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest

from tests.years.oracle import History, Made, promised, saved_at_start
from tests.years.script import Class, Script, night_time, season, year

POLICY = {"daily": Class(7, 2), "weekly": Class(21, 7, "week"), "monthly": Class(40, 7, "month")}


def history(*dates: str) -> History:
    """One backup, which is called after its date, on each."""
    moments = [datetime.fromisoformat(date).replace(hour=2, tzinfo=UTC) for date in dates]
    return History(
        [Made(number, date, moment) for number, (date, moment) in enumerate(zip(dates, moments, strict=True))]
    )


def at(date: str, past: History, classes: Mapping[str, Class] = POLICY) -> dict[str, str]:
    """What is promised at noon, with the beginnings of the classes' names."""
    moment = datetime.fromisoformat(date).replace(hour=12, tzinfo=UTC)
    found = promised(Script(dict(classes), [], 0, 0), past, moment)
    return {backup: "".join(sorted(name[0] for name in names)) for backup, names in found.items()}


def test_the_first_of_each_period_is_kept_longer() -> None:
    # 2026-10-01 is a Thursday.
    past = history("2026-10-01", "2026-10-02", "2026-10-04", "2026-10-06", "2026-10-07", "2026-11-01")
    assert at("2026-10-07", past) == {
        "2026-10-01": "dmw", "2026-10-02": "d", "2026-10-04": "d", "2026-10-06": "dw", "2026-10-07": "d",
        "2026-11-01": "dmw",
    }  # fmt: skip
    assert at("2026-10-09", past) == {
        "2026-10-01": "mw", "2026-10-04": "d", "2026-10-06": "dw", "2026-10-07": "d", "2026-11-01": "dmw",
    }  # fmt: skip
    assert at("2026-10-25", past) == {"2026-10-01": "m", "2026-10-06": "w", "2026-11-01": "dmw"}
    assert at("2026-11-10", past) == {"2026-11-01": "mw"}


def test_iso_weeks_do_not_end_with_the_year() -> None:
    past = history("2026-12-28", "2027-01-01", "2027-01-03", "2027-01-04")
    assert at("2027-01-04", past) == {
        "2026-12-28": "mw", "2027-01-01": "dm", "2027-01-03": "d", "2027-01-04": "dw",
    }  # fmt: skip


@pytest.mark.parametrize(("days", "rescued"), [(4.9, False), (5.1, True)])
def test_a_failing_run_saves_what_would_lapse(days: float, *, rescued: bool) -> None:
    past = history("2026-10-05", "2026-10-06")
    past.failed.append(past.made[-1].started + timedelta(days=days))
    assert at("2026-10-20", past) == {"2026-10-05": "mw"} | ({"2026-10-06": "w"} if rescued else {})


@pytest.mark.parametrize(("date", "saved"), [("2026-10-10", False), ("2026-10-11", True), ("2026-10-13", False)])
def test_a_run_after_missed_nights_saves_what_would_lapse_too(date: str, *, saved: bool) -> None:
    """That of 2026-10-06 is in no calendar class, and ends on the 13th: then it is too late."""
    past = history("2026-10-05", "2026-10-06", date)
    assert saved_at_start(Script(dict(POLICY), [], 0, 0), past) == saved
    assert ("w" in at("2026-10-12", past).get("2026-10-06", "")) == saved
    # That a run saved one of an earlier night is nothing of this one's.
    past = history("2026-10-05", "2026-10-06", date, "2026-10-14")
    assert not saved_at_start(Script(dict(POLICY), [], 0, 0), past)


def test_a_class_that_keeps_a_few_days_is_not_copied_every_night() -> None:
    classes = {"daily": Class(3, 2), "monthly": Class(40, 7, "month")}
    assert at("2026-10-07", history("2026-10-01", "2026-10-05", "2026-10-06"), classes) == {
        "2026-10-01": "m", "2026-10-05": "d", "2026-10-06": "d",
    }  # fmt: skip
    classes["daily"] = Class(4, 2)
    assert at("2026-10-08", history("2026-10-01", "2026-10-05", "2026-10-08"), classes) == {
        "2026-10-01": "m", "2026-10-05": "dm", "2026-10-08": "d",
    }  # fmt: skip


def test_a_class_that_keeps_for_less_long_than_daily_gets_no_copy() -> None:
    classes = {"daily": Class(10, 2), "weekly": Class(9, 2, "week")}
    assert at("2026-10-07", history("2026-10-05", "2026-10-06"), classes) == {"2026-10-05": "d", "2026-10-06": "d"}


def test_without_a_longer_class_it_is_held() -> None:
    past = history("2026-10-05")
    past.failed.append(past.made[-1].started + timedelta(days=6))
    assert at("2030-01-01", past, {"daily": Class(7, 2)}) == {"2026-10-05": "h"}


def test_a_hold_lasts_until_it_is_released() -> None:
    past = history("2026-10-05", "2026-10-06")
    past.held["2026-10-06"] = (datetime(2026, 10, 7, tzinfo=UTC), datetime(2026, 11, 7, tzinfo=UTC))
    assert at("2026-10-08", past)["2026-10-06"] == "dh"
    assert at("2026-11-06", past) == {"2026-10-05": "m", "2026-10-06": "h"}
    assert at("2026-11-08", past) == {"2026-10-05": "m"}


@pytest.mark.parametrize("script", [year(), season()])
def test_the_scripts_have_every_turn(script: Script) -> None:
    """Else the years would prove less than they say."""
    counts = Counter(script.events)
    assert counts["missed"] >= 3
    assert script.held < script.released < len(script.events)
    assert set(script.events[script.held - 7 : script.held + 1]) >= {"backup"}
    # An outage so long that nothing but a rescue keeps the last backup before it, which is in no calendar class.
    outages = re.finditer(f"f{{{script.classes['daily'].keep},}}", "".join(event[0] for event in script.events))
    (last,) = [found.start() - 1 for found in outages]
    assert script.events[last - 1 : last + 1] == ["backup", "backup"]
    assert night_time(last).weekday()
    assert night_time(last).day > 2
