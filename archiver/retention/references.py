"""Which key of an object a copy of a backup may refer to, and when the object must be copied first (DESIGN 7).

A backup refers only to keys that are sure to exist until the end of its promise, in its own class or in one that keeps
at least as long, and never to one that must be thawed.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Literal

import msgspec

from archiver.config import ARCHIVE_CLASSES, HELD
from archiver.retention.policy import Term
from archiver.retention.rules import Stored, after, lasts


class Reference(msgspec.Struct, frozen=True):
    """What to do for one object."""

    action: Literal["use", "copy", "thaw"]
    """Refer to ``key`` as it is; copy ``key`` into the target class, to a key that is free; or nothing, because every
    copy of it must be thawed first."""
    key: str
    reason: str
    """In words, why not another."""


def choose(
    candidates: Iterable[tuple[Stored, str]], target: Term, promise: datetime | None, terms: Mapping[str, Term]
) -> Reference:
    """Where a copy in class ``target`` that is promised until ``promise`` (None: for ever) finds an object.

    ``candidates`` are the keys of that object that the store lists, each with the name of its class, which may be
    unknown to ``terms``; at least one. Longest class first, so that an object is stored about once.

    In a class whose objects are archived, a key of that class itself will do: a further copy would be archived too.
    ``thaw`` names the key that lasts longest; one that has been thawed can be copied, which no listing shows.

    Of what is held a copy is made only where there is nothing else: on some stores it is under a legal hold too.
    """
    found = [_Candidate(stored, name, terms.get(name)) for stored, name in candidates]
    found.sort(key=lambda candidate: candidate.rank(target))
    refused = [(candidate, _refusal(candidate, target, promise)) for candidate in found]
    for candidate, refusal in refused:
        if refusal is None:
            return Reference("use", candidate.stored.key, f"lies in {candidate.name} for long enough")
    readable = [(candidate, refusal) for candidate, refusal in refused if not candidate.frozen]
    # The one that lasts longest is the one that is least likely to go while it is copied.
    candidate, refusal = max(readable or refused, key=lambda pair: pair[0].order)
    return Reference("copy" if readable else "thaw", candidate.stored.key, refusal or "")


class _Candidate(msgspec.Struct, frozen=True):
    stored: Stored
    name: str
    term: Term | None

    @property
    def sure(self) -> datetime | None:
        """Until when it is sure to exist; None: for ever. What is in no class of ours is sure of nothing."""
        return self.stored.modified if self.term is None else after(self.stored.modified, self.term.data)

    @property
    def frozen(self) -> bool:
        """Whether it must be thawed now."""
        return self.stored.storage_class in ARCHIVE_CLASSES

    @property
    def order(self) -> tuple[bool, bool, datetime, str]:
        """Greater is the better one to copy: sure for longer, and not held."""
        return self.name != HELD, self.sure is None, self.sure or self.stored.modified, self.stored.key

    def rank(self, target: Term) -> tuple[bool, int, bool, float, str]:
        """Longest class first; of equal ones the target itself; in one class what is sure for longest."""
        keep = None if self.term is None else self.term.keep
        forever = self.term is not None and keep is None
        return not forever, -(keep or 0), self.name != target.name, -self.stored.modified.timestamp(), self.stored.key


def _refusal(candidate: _Candidate, target: Term, promise: datetime | None) -> str | None:
    """Why a copy in ``target`` must not refer to ``candidate``; None: it may."""
    name, term = candidate.name, candidate.term
    if term is None:
        return f"lies in {name}, a class that the configuration does not have"
    if name == HELD and target.name != HELD:
        return f"lies in {HELD}, where it ends when somebody releases it"
    if not term.outlasts(target):
        return f"lies in {name}, which is kept for less long than {target.name}"
    if (candidate.frozen or term.archived) and not (name == target.name and target.archived):
        return f"lies in {name}, where it must be thawed before it can be read"
    if not lasts(candidate.sure, promise):
        promised = "for ever" if promise is None else f"until {promise:%Y-%m-%d %H:%M}"
        return f"lies in {name} until {candidate.sure:%Y-%m-%d %H:%M}, and is promised {promised}"
    return None
