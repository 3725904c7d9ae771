"""Lifecycle rules, as far as they matter here: what they do to which keys, and until when a key is sure to exist.

S3's rules act on the midnight (UTC) after a key's age has reached their days, never before
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/intro-lifecycle-rules.html).
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Protocol, Self

import msgspec
from msgspec.structs import replace


class Stored(Protocol):
    """What a store's listing says of one key (stores.base.StoredObject)."""

    @property
    def key(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def modified(self) -> datetime: ...
    @property
    def storage_class(self) -> str | None: ...


class Rule(msgspec.Struct, frozen=True):
    """A lifecycle rule that is enabled."""

    name: str
    prefix: str
    """Of the bucket's keys, or, after ``below``, of keys relative to the destination; empty: all of them."""
    tagged: bool = False
    """Whether it is for objects with certain tags only; archiver gives none."""
    sized: bool = False
    """Whether it is for objects of certain sizes only."""
    expires_days: int | None = None
    """How many days after its creation a key goes."""
    expires_at: datetime | None = None
    """When all keys go."""
    aborts_days: int | None = None
    """How many days after its beginning a multipart upload is aborted."""
    noncurrent_days: int | None = None
    """How many days after it was deleted or replaced an old version goes."""
    removes_markers: bool = False
    """Whether it removes delete markers without versions."""
    archives_days: int | None = None
    """How many days after its creation a key is moved into a class that it must be thawed from."""

    def below(self, base: str) -> Self | None:
        """The same rule for keys relative to ``base``, which is empty or ends with ``/``; None where it touches none
        of them."""
        if base.startswith(self.prefix):
            return replace(self, prefix="")
        if self.prefix.startswith(base):
            return replace(self, prefix=self.prefix[len(base) :])
        return None

    def meets(self, prefix: str) -> bool:
        """Whether it may be for some key below ``prefix``."""
        return not self.tagged and (self.prefix.startswith(prefix) or self.covers(prefix))

    def covers(self, prefix: str) -> bool:
        """Whether its prefix takes in all keys below ``prefix``."""
        return prefix.startswith(self.prefix)


def expires_on(modified: datetime, days: int) -> datetime:
    """When S3 removes a key that was created at ``modified`` under a rule of so many days: a midnight, UTC."""
    due = modified.astimezone(UTC) + timedelta(days=days)
    midnight = due.replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight if midnight == due else midnight + timedelta(days=1)


def after(moment: datetime, days: int | None) -> datetime | None:
    """So many days later; None for no number, and for what lies beyond the year 9999: for ever."""
    try:
        return None if days is None else moment + timedelta(days=days)
    except OverflowError:
        return None


def earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    """The earlier of two ends; None: for ever."""
    if one is None or other is None:
        return one or other
    return min(one, other)


def lasts(end: datetime | None, until: datetime | None) -> bool:
    """Whether what ends at ``end`` is there up to ``until``; None: for ever."""
    return end is None or (until is not None and end >= until)


def sure_until(stored: Stored, rules: Iterable[Rule]) -> datetime | None:
    """Until when ``stored`` is sure to exist under ``rules`` (relative to the destination), without S3's rounding to
    midnight, which not every store does. None: for ever."""
    end: datetime | None = None
    for rule in rules:
        # archiver gives no tags; whether a rule by size meets this key is the store's business.
        if not rule.tagged and stored.key.startswith(rule.prefix):
            end = earlier(end, earlier(after(stored.modified, rule.expires_days), rule.expires_at))
    return end
