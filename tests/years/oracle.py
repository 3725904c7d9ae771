"""What must be there: the policy of docs/RETENTION.md, told naively, without anything of archiver. Pure."""

from bisect import bisect_left
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tests.years.script import Script

RESCUED_BEFORE = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class Made:
    """A backup that was made."""

    night: int
    backup: str
    started: datetime


@dataclass(slots=True)
class History:
    """What happened so far."""

    made: list[Made] = field(default_factory=list)
    failed: list[datetime] = field(default_factory=list)
    """When a run failed."""
    held: dict[str, tuple[datetime, datetime | None]] = field(default_factory=dict)
    """Since when a backup is held, and when that ended."""


def promised(script: Script, history: History, now: datetime) -> dict[str, set[str]]:
    """The backups that are promised at ``now``, each with the classes that promise it."""
    ends, _ = _live(script, history)
    result = {
        backup: {name for name, end in promises.items() if end is None or end > now}
        for backup, promises in ends.items()
    }
    for backup, (since, until) in history.held.items():
        if since <= now and (until is None or now < until):
            result[backup].add("held")
    return {backup: names for backup, names in result.items() if names}


def saved_at_start(script: Script, history: History) -> bool:
    """Whether the run that made the newest backup saved another from lapsing before: then it exits with 3."""
    return history.made[-1].started in _live(script, history)[1]


def _live(script: Script, history: History) -> tuple[dict[str, dict[str, datetime | None]], set[datetime]]:
    """Of every backup, by class, the end of its promise there, None for no end; and which runs saved one from
    lapsing."""
    ends: dict[str, dict[str, datetime | None]] = {}
    seen: set[tuple[str, str]] = set()
    for made in history.made:
        ends[made.backup] = {}
        for name, item in script.classes.items():
            period = _period(made.started, item.every)
            # A calendar class that keeps for less long than the backup is promised anyway gets no copy of it.
            if item.every is None or ((name, period) not in seen and item.keep >= script.classes["daily"].keep):
                ends[made.backup][name] = made.started + timedelta(days=item.keep)
            seen.add((name, period))
    saved = set()
    moments = [made.started for made in history.made]
    for run in sorted([*moments, *history.failed]):
        # What has lapsed is there no more.
        before = reversed(history.made[: bisect_left(moments, run)])
        newest = next((made for made in before if _last(ends[made.backup], run) > run), None)
        # A failing run saves a young one too, at its end.
        if newest is None or (run not in history.failed and run - newest.started <= RESCUED_BEFORE):
            continue
        if _rescue(script, newest, ends[newest.backup], run):
            saved.add(run)
    return ends, saved


def _rescue(script: Script, newest: Made, ends: dict[str, datetime | None], run: datetime) -> bool:
    """Whether there was something to save."""
    if _last(ends, run) - run > RESCUED_BEFORE:
        return False
    for name, item in sorted(script.classes.items(), key=lambda pair: pair[1].keep):
        if newest.started + timedelta(days=item.keep) - run > RESCUED_BEFORE:
            ends[name] = newest.started + timedelta(days=item.keep)
            return True
    ends["held"] = None
    return True


def _last(ends: dict[str, datetime | None], run: datetime) -> datetime:
    """The end of the longest promise; for ever is long after ``run``."""
    return max(end or run + 2 * RESCUED_BEFORE for end in ends.values())


def _period(moment: datetime, every: str | None) -> str:
    year, week, _ = moment.isocalendar()
    return {None: "", "week": f"{year}-W{week}", "month": f"{moment:%Y-%m}", "year": f"{moment:%Y}"}[every]
