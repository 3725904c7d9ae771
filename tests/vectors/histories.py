"""Histories of a source, and what a reader must think of each backup in them (docs/FORMAT.md, "Trust in a backup")."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

DAY_ZERO = datetime(2026, 11, 1, 2, tzinfo=UTC)
KEEP = timedelta(days=35)


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """One backup, and what a reader must find. Times are hours after its start, which is on ``day``."""

    day: int
    finished: float = 0.1
    modified: float | None = None
    """When the store got it; by default when it was finished."""
    began: float | None = 0
    """When the store got the run's first key; None where it has none."""
    key: str = "A"
    sequence: int | None = None
    """By default one more than the number of the day."""
    names: int | None = None
    """The day whose backup it names; by default the day before."""
    false_hash: bool = False
    """It names another hash than the one that backup has."""
    dated: str = "store"
    refused: bool = False
    doubted: bool = False


@dataclass(frozen=True, slots=True)
class History:
    """Nights, the newest first; since when keys are revoked, in days; and the days whose backups are missed."""

    name: str
    comment: str
    nights: tuple[Night, ...]
    revoked: dict[str, float]
    removed: tuple[int, ...] = ()


_WEEK = 7 * 24.0

HISTORIES = (
    History(
        "untouched",
        "every night is dated by the store",
        (Night(day=2), Night(day=1), Night(day=0)),
        {},
    ),
    History(
        "copied",
        "the store has had everything since a week later: later backups vouch for earlier ones",
        (
            Night(day=2, modified=_WEEK, began=_WEEK, dated="unproven"),
            Night(day=1, modified=_WEEK, began=_WEEK, dated="chain"),
            Night(day=0, modified=_WEEK, began=_WEEK, dated="chain"),
        ),
        {},
    ),
    History(
        "tolerance",
        "what the store got an hour after the end is in time, a second more is not",
        (Night(day=1, modified=1.1 + 1 / 3600, dated="unproven"), Night(day=0, modified=1.1)),
        {},
    ),
    History(
        "long-runs",
        "a run of more than an hour needs its first key: in time, late, and missing",
        (
            Night(day=3, finished=5, dated="store"),
            Night(day=2, finished=5, began=1 + 1 / 3600, dated="chain"),
            Night(day=1, finished=5, began=None, dated="chain"),
            Night(day=0, finished=5, began=1),
        ),
        {},
    ),
    History(
        "dated-back",
        "made a week after the time that it claims, and named by nobody",
        (Night(day=2, names=0, sequence=2), Night(day=1, modified=_WEEK, dated="unproven", doubted=True), Night(day=0)),
        {},
    ),
    History(
        "in-the-future",
        "it says that it was made later than now",
        (Night(day=11, modified=-100, dated="unproven", refused=True), Night(day=1), Night(day=0)),
        {},
    ),
    History(
        "later-than-the-store-has-had-it",
        "the store got it more than an hour before it says that it was finished, which is past by now: a copy may have "
        "other times",
        (Night(day=9, names=1, modified=-100, dated="unproven"), Night(day=1), Night(day=0)),
        {},
    ),
    History(
        "revoked",
        "a key counts for what the store had before it was revoked",
        (Night(day=2, refused=True), Night(day=1), Night(day=0)),
        {"A": 2},
    ),
    History(
        "revoked-and-copied",
        "a good key vouches for the last one that the revoked key signed, and that one for those before it",
        (
            Night(day=2, key="B", modified=_WEEK, began=_WEEK, dated="unproven"),
            Night(day=1, modified=_WEEK, began=_WEEK, dated="chain"),
            Night(day=0, modified=_WEEK, began=_WEEK, dated="chain"),
        ),
        {"A": 1.9},
    ),
    History(
        "revoked-and-copied-without-a-good-key",
        "nobody vouches for anything",
        (
            Night(day=1, modified=_WEEK, began=_WEEK, dated="unproven", refused=True),
            Night(day=0, modified=_WEEK, began=_WEEK, dated="unproven", refused=True),
        ),
        {"A": 1.9},
    ),
    History(
        "revoked-within-the-tolerance",
        "a good key vouches for one that may have been made right after the theft",
        (Night(day=2, key="B"), Night(day=1, modified=20, dated="chain", refused=True), Night(day=0)),
        {"A": 1.02},
    ),
    History(
        "replaced",
        "the backup after it names another hash, and the store does not date it",
        (Night(day=2), Night(day=1, false_hash=True), Night(day=0, modified=_WEEK, dated="unproven", refused=True)),
        {},
    ),
    History(
        "slandered",
        "a later backup names another hash, but the store dates this one",
        (Night(day=2), Night(day=1, false_hash=True), Night(day=0)),
        {},
    ),
    History(
        "removed",
        "the backup before it is named, promised, and not there",
        (Night(day=3), Night(day=2), Night(day=0)),
        {},
        (1,),
    ),
    History(
        "out-of-order",
        "a sequence number that is not less than that of the next backup",
        (Night(day=2), Night(day=1, sequence=3, doubted=True), Night(day=0)),
        {},
    ),
)


def describe_history(history: History) -> dict[str, object]:
    """The history as a vector: all times and hashes written out."""
    revoked = {key: _text(DAY_ZERO + timedelta(days=days)) for key, days in history.revoked.items()}
    return {
        "name": history.name,
        "comment": history.comment,
        "now": _text(DAY_ZERO + timedelta(days=10)),
        "revoked": revoked,
        "backups": [_describe_night(night) for night in history.nights],
        "removed": [_id(day) for day in history.removed],
    }


def _describe_night(night: Night) -> dict[str, object]:
    started = DAY_ZERO + timedelta(days=night.day)
    named = night.day - 1 if night.names is None else night.names
    previous = {
        "backup": _id(named),
        "blake3": "f" * 64 if night.false_hash else _hash(named),
        "promised_until": _text(DAY_ZERO + timedelta(days=named) + KEEP),
    }
    modified = night.finished if night.modified is None else night.modified
    return {
        "backup": _id(night.day),
        "blake3": _hash(night.day),
        "started": _text(started),
        "finished": _text(started + timedelta(hours=night.finished)),
        "sequence": night.day + 1 if night.sequence is None else night.sequence,
        "previous": previous if night.day else None,
        "key": night.key,
        "modified": _text(started + timedelta(hours=modified)),
        "began": None if night.began is None else _text(started + timedelta(hours=night.began)),
        "dated": night.dated,
        "refused": night.refused,
        "doubted": night.doubted,
    }


def _id(day: int) -> str:
    return f"{DAY_ZERO + timedelta(days=day):%Y%m%dT%H%M%SZ}-{day:06x}"


def _hash(day: int) -> str:
    return f"{day:064x}"


def _text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
