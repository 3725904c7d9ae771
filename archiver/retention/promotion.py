"""Which backups are to be copied into which class: the calendar's, and those that would lapse."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from archiver.config import Every
from archiver.retention.policy import Term
from archiver.retention.rules import after, lasts

RESCUE = timedelta(days=2)
"""A backup whose promise ends so soon is copied into a longer class when no newer one was made for as long."""


class Known(msgspec.Struct, frozen=True):
    """A complete backup that is believed."""

    backup: str
    started: datetime
    finished: datetime
    promised: datetime
    """Until when its manifest promises it, wherever it lies."""
    promises: Mapping[str, datetime | None]
    """By class in which a copy of it lies: until when that is promised; None: for ever."""
    lasting: bool = True
    """Whether a copy would be believed once the original is gone: not one that a revoked key signed."""


class Promotion(msgspec.Struct, frozen=True):
    """Copy ``backup`` into the class ``target``."""

    backup: str
    target: str
    reason: str
    """In words: ``the first of 2026-11``."""


def beginning(moment: datetime, every: Every) -> datetime:
    """When the period (ISO week, month or year, UTC) that ``moment`` lies in began."""
    day = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if every == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if every == "month" else day.replace(month=1, day=1)


def promotions(backups: Sequence[Known], terms: Mapping[str, Term], now: datetime) -> list[Promotion]:
    """What is due at ``now``: for every calendar class the first finished backup of each period that has no copy
    there, as long as the period's beginning and *keep* are not over: later its copy may have come and gone. Longest
    class first, so that shorter ones can refer to its copies.

    Idempotent: once they are carried out, nothing is due. Backups dated after ``now`` are left out. No backup goes
    where it would be kept for less long than its manifest promises: it stands for its period where it is.
    """
    past = sorted((known for known in backups if known.started <= now), key=_finished)
    longest = sorted(terms.values(), key=_length, reverse=True)
    return [promotion for term in longest if term.every for promotion in _due(past, term, term.every, now)]


def _due(past: Sequence[Known], term: Term, every: Every, now: datetime) -> Iterator[Promotion]:
    """For one calendar class; ``past`` in the order in which they were finished."""
    covered = {beginning(known.started, every) for known in past if term.name in known.promises}
    for known in past:
        period = beginning(known.started, every)
        over = after(period, term.keep)
        if period not in covered and known.lasting and (over is None or over > now):
            covered.add(period)
            if lasts(after(known.started, term.keep), known.promised):
                yield Promotion(known.backup, term.name, f"the first of {_name(period, every)}")


def _name(period: datetime, every: Every) -> str:
    if every == "week":
        year, week, _ = period.isocalendar()
        return f"{year}-W{week:02}"
    return f"{period:%Y-%m}" if every == "month" else f"{period:%Y}"


def _finished(known: Known) -> tuple[datetime, str]:
    return known.finished, known.backup


def _length(term: Term) -> tuple[bool, int, str]:
    return term.keep is None, term.keep or 0, term.name


def rescue(backups: Sequence[Known], terms: Mapping[str, Term], now: datetime) -> list[Promotion]:
    """How the newest backup is saved from lapsing, if all its promises end within ``RESCUE``: into the shortest class
    that promises it for longer than that or, where that fails, into the next longer ones, ``held`` last. Empty where
    there is nothing to save, or nowhere."""
    past = [known for known in backups if known.started <= now and known.lasting]
    if not past:
        return []
    newest = max(past, key=lambda known: (known.started, known.backup))
    soon = now + RESCUE
    if any(_beyond(end, soon) for end in newest.promises.values()):
        return []
    return [
        Promotion(newest.backup, term.name, "the newest backup, and promised for less than two more days")
        for term in sorted(terms.values(), key=_length)
        if term.name not in newest.promises and _beyond(after(newest.started, term.keep), soon)
    ]


def _beyond(end: datetime | None, moment: datetime) -> bool:
    return end is None or end > moment
