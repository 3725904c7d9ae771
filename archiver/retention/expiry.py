"""What goes: the store's rules as a function, for stores that run none, and what must not go."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import msgspec

from archiver.config import HELD
from archiver.retention.policy import Term
from archiver.retention.rules import Stored, expires_on


class Deletion(msgspec.Struct, frozen=True):
    """A key to delete, and why."""

    key: str
    size: int
    reason: str


class Need(msgspec.Struct, frozen=True):
    """A copy of a backup that is promised, and the keys without which it cannot be restored."""

    backup: str
    source: str
    retention_class: str
    promise: datetime | None
    """None: for ever."""
    keys: Mapping[str, Stored | None]
    """By key what the store lists of it; None: it is not there."""


class Threat(msgspec.Struct, frozen=True):
    """A promise that would be broken."""

    need: Need
    key: str
    reason: str
    end: datetime
    """When the key would go."""


def expired(stored: Iterable[Stored], terms: Mapping[str, Term], now: datetime) -> list[Deletion]:
    """What the rules of these classes would have removed by ``now``: manifests before data, so that nothing that is
    half deleted looks whole. Never what lies in ``held``, in ``vault/`` or in a class that ``terms`` do not know.

    At the midnight after, as S3 does, so that a directory and a bucket hold the same.
    """
    found = []
    for item in stored:
        name, _, rest = item.key.partition("/")
        term = terms.get(name)
        if term is None or name == HELD:
            continue
        days, what = _kept(term, rest)
        if days is not None and expires_on(item.modified, days) <= now:
            reason = f"created on {item.modified:%Y-%m-%d}, and {name} keeps its {what} for {days} days"
            found.append(Deletion(item.key, item.size, reason))
    return sorted(found, key=_order)


def _kept(term: Term, rest: str) -> tuple[int | None, str]:
    """For how many days what is called so in a class is kept, and what it is; None: nothing deletes it."""
    if rest.startswith("backups/"):
        return term.keep, "manifests"
    return (term.data if rest.startswith("data/") else None), "data"


def _order(deletion: Deletion) -> tuple[int, str]:
    """Manifests first: from then on nobody takes it for a backup. What names other keys last, so that a deletion that
    was interrupted can go on."""
    _, area, *_, name = deletion.key.split("/")
    if area == "backups":
        return (0 if name == "manifest.json" else 1), deletion.key
    if ".jsonl.zst" not in name:
        return 2, deletion.key
    return (4 if name.endswith(".placement.jsonl.zst") else 3), deletion.key


def threatened(deletions: Iterable[Deletion], needs: Sequence[Need], now: datetime) -> list[Threat]:
    """Which of ``deletions`` a promise that is not over still needs."""
    going = {deletion.key: deletion for deletion in deletions}
    return [
        Threat(need, key, going[key].reason, now)
        for need in needs
        if need.promise is None or need.promise > now
        for key in need.keys
        if key in going
    ]


def released(backup: str, stored: Iterable[Stored], needs: Sequence[Need]) -> list[Deletion]:
    """The keys in ``held`` that only ``backup`` needs, its manifest first, its lists last; ``needs`` are all of the
    source's copies, and ``stored`` what lies in ``held`` of that source.

    Once its manifest is gone, ``needs`` must still tell what its placement names, or its objects stay.
    """
    own: set[str] = set()
    others: set[str] = set()
    for need in needs:
        (own if need.backup == backup and need.retention_class == HELD else others).update(need.keys)
    found = [
        Deletion(item.key, item.size, f"held for {backup} only")
        for item in stored
        if item.key.startswith(f"{HELD}/") and item.key not in others and (item.key in own or _is_of(item.key, backup))
    ]
    return sorted(found, key=_order)


def _is_of(key: str, backup: str) -> bool:
    """Whether ``key`` is called after ``backup``: its manifest and what lies beside it, and its lists."""
    match key.split("/"):
        case [_, "backups", _, directory, *_]:
            return directory == backup
        case [_, "data", _, name]:
            return name.startswith(f"{backup}.")
    return False
