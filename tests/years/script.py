"""The year that every store here lives through: what happens in which night, and under which policy. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Literal

Event = Literal["backup", "missed", "failed"]
"""A backup succeeds; nothing runs at all; a backup is tried, and fails."""

BEGINNING = datetime(2026, 10, 1, 2, tzinfo=UTC)
"""The first night: in the middle of a week, and so that a new year of 53 ISO weeks lies in it."""
DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Class:
    """A retention class, in days."""

    keep: int
    lease: int
    every: Literal["week", "month", "year"] | None = None


@dataclass(frozen=True, slots=True)
class Script:
    """What happens. Nights are numbered from 0."""

    classes: dict[str, Class]
    """``daily`` and the calendar's, from the shortest to the longest."""
    events: Sequence[Event]
    """By night."""
    held: int
    """The newest backup of this night's end is held then."""
    released: int
    """In this night, before the backup, the hold ends."""

    def configuration(self) -> str:
        """The classes as archiver.toml has them."""
        tables = []
        for name, item in self.classes.items():
            every = f'every = "{item.every}"\n' if item.every else ""
            tables.append(f"[class.{name}]\nkeep = {item.keep}\nlease = {item.lease}\n{every}")
        # Else this class would be there by default.
        if "monthly" not in self.classes:
            tables.append('[class.monthly]\nevery = "never"\n')
        return "\n".join(tables)


def night_time(night: int) -> datetime:
    """When the night's backup begins."""
    return BEGINNING + night * DAY


def year() -> Script:
    """365 nights under the default policy, with weekly and yearly backups beside it, and monthly ones that end within
    the year. One night in twelve is missed, one in twelve fails; for five weeks of summer all fail."""
    return Script(
        classes={
            "daily": Class(35, 7),
            "weekly": Class(70, 14, "week"),
            "monthly": Class(200, 35, "month"),
            "yearly": Class(1100, 35, "year"),
        },
        events=_events(365, seed=7, outage=range(251, 288), quiet=(298, 330, 331, 332, 333)),
        held=165,
        released=350,
    )


def season() -> Script:
    """Six weeks and a half under a policy that is as much shorter."""
    return Script(
        classes={"daily": Class(7, 2), "weekly": Class(14, 4, "week"), "monthly": Class(40, 7, "month")},
        events=_events(46, seed=3, outage=range(20, 30), quiet=()),
        held=10,
        released=36,
    )


def _events(nights: int, *, seed: int, outage: range, quiet: Sequence[int]) -> list[Event]:
    """All nights of the ``outage`` fail. It begins on a Wednesday: the last backup before it is in no calendar class,
    so that a failing run has to save it. The ``quiet`` ones are missed, so that in the days after the last night no
    promise ends: a store that is some days late with its rules still has to have exactly what is promised."""
    random = Random(seed)
    events: list[Event] = random.choices(("backup", "missed", "failed"), (10, 1, 1), k=nights)
    for night in outage:
        events[night] = "failed"
    for night in quiet:
        events[night] = "missed"
    for night in (0, outage.start - 2, outage.start - 1, outage.stop, nights - 1):
        events[night] = "backup"
    return events
