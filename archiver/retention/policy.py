"""The policy: what the configuration promises, and what is left of it under the bucket's own rules."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from archiver.config import ARCHIVE_CLASSES, HELD, Every, RetentionClass
from archiver.retention.rules import Rule

ABORT_DAYS = 7
"""After which an incomplete multipart upload is aborted."""
NONCURRENT_DAYS = 7
"""For how long a bucket with versions keeps what was deleted."""


class Term(msgspec.Struct, frozen=True):
    """How long keys of one class are sure to exist, in days from their creation."""

    name: str
    keep: int | None
    """Manifests; None: for ever."""
    data: int | None
    """Everything else, lease included; None: for ever."""
    every: Every | None = None
    storage_class: str | None = None

    @property
    def archived(self) -> bool:
        """Whether its objects must be thawed before they can be read, now or later."""
        return self.storage_class in ARCHIVE_CLASSES

    def outlasts(self, other: "Term") -> bool:
        """Whether it keeps at least as long as ``other``."""
        return self.keep is None or (other.keep is not None and self.keep >= other.keep)


def in_force(classes: Mapping[str, RetentionClass], rules: Sequence[Rule] | None) -> dict[str, Term]:
    """By name the term of every class, ``held`` among them: the smaller of what the configuration says and what the
    bucket's ``rules`` (relative to the destination) leave; None where they are not known, or the store runs none.

    A rule for some keys of a class counts for all of it. One that deletes on a date leaves 0 days. ``keep`` is always
    shorter than ``data``: no backup is promised for longer than its data last.
    """
    return {name: _term(name, retention, rules or ()) for name, retention in ({HELD: None} | dict(classes)).items()}


def _term(name: str, retention: RetentionClass | None, rules: Sequence[Rule]) -> Term:
    keep = None if retention is None else retention.keep
    data = None if retention is None else retention.keep + retention.lease
    keep = _least(keep, (rule for rule in rules if rule.meets(backups_of(name))))
    data = _least(data, (rule for rule in rules if rule.meets(data_of(name))))
    if data is not None:
        keep = max(0, data - 1 if keep is None else min(keep, data - 1))
    return Term(
        name,
        keep,
        data,
        None if retention is None else retention.every,
        None if retention is None else retention.storage_class,
    )


def _least(days: int | None, rules: Iterable[Rule]) -> int | None:
    limits = [0 if rule.expires_at is not None else rule.expires_days for rule in rules]
    return min((limit for limit in (days, *limits) if limit is not None), default=None)


def wanted_rules(classes: Mapping[str, RetentionClass], *, versioned: bool) -> list[Rule]:
    """The rules, relative to the destination, that make a bucket keep what ``classes`` promise, and no longer.

    Three per class, by name ``CLASS-backups``, ``CLASS-data`` and ``CLASS-rest``, which aborts incomplete uploads and
    in a bucket with versions ends old ones and delete markers; and ``held-rest``, which deletes nothing current. By
    prefix alone: some stores drop filters by size or tag without a word. None reaches ``vault/``: an old version may be
    all that is left of a vault file that a thief has replaced. None reaches what is not archiver's.
    """
    rules = []
    for name, retention in sorted(classes.items()):
        rules.append(Rule(f"{name}-backups", backups_of(name), expires_days=retention.keep))
        rules.append(Rule(f"{name}-data", data_of(name), expires_days=retention.keep + retention.lease))
        rules.append(_rest(name, versioned=versioned))
    return [*rules, _rest(HELD, versioned=versioned)]


def _rest(name: str, *, versioned: bool) -> Rule:
    return Rule(
        f"{name}-rest",
        all_of(name),
        aborts_days=ABORT_DAYS,
        noncurrent_days=NONCURRENT_DAYS if versioned else None,
        removes_markers=versioned,
    )


def all_of(name: str) -> str:
    """Below which prefix everything of a class lies, of all sources."""
    return f"{name}/"


def own_name(base: str) -> str:
    """What the names of archiver's rules for a destination begin with, so that those of several in one bucket differ;
    ``base`` is what its full keys begin with, empty or with a ``/`` at its end."""
    return f"archiver-{hashlib.sha256(base.encode()).hexdigest()[:8]}-"


def backups_of(name: str) -> str:
    """Below which prefix the manifests of a class lie, of all sources."""
    return f"{name}/backups/"


def data_of(name: str) -> str:
    """Below which prefix everything else of a class lies, of all sources."""
    return f"{name}/data/"
