"""Objects in an archive storage class: which of them a restore needs, and the wait until they can be read."""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

from archiver.config import ARCHIVE_CLASSES
from archiver.errors import IntegrityError, NotFoundError, RefusedError, StorageError
from archiver.operations.archive import Archive
from archiver.operations.history import Backup
from archiver.parallel import ordered_map
from archiver.progress import Reporter
from archiver.stores.base import Availability, Store, StoredObject

THAW_DAYS = 7
"""For how long thawed objects stay readable, unless the operator says otherwise."""
_WORKERS = 8
"""Requests in flight."""
_FIRST_PAUSE, _LAST_PAUSE = 60.0, 600.0
"""Seconds between two looks: thawing takes minutes at best and two days at worst."""
_GROWTH = 1.5


@dataclass(frozen=True, slots=True)
class Archived:
    """An object that a restore needs and that cannot be read now."""

    key: str
    size: int
    """Bytes."""
    storage_class: str
    state: Literal["archived", "thawing"]


def easiest_copy(archive: Archive, backup: Backup, wanted: Collection[str]) -> tuple[Backup, list[Archived]]:
    """Which of the copies of ``backup`` to read the objects with the ids ``wanted`` from, and what of it cannot be read
    now, in the order of keys: the first copy if that is readable, else the one of which the least must be thawed.

    One LIST of each prefix that the objects lie in, and one request more for each that is in an archive class. An
    object that is not listed is left for the fetch to miss, which says what that means.
    """
    if not wanted:
        return backup, []
    best = backup, _unreadable(archive.store, _stored(archive, backup, wanted).values())
    if not best[1]:
        return best
    records = archive.objects(backup)
    for place in backup.places:
        other = replace(backup, place=place)
        try:
            stored = {} if place == backup.place else _stored(archive, other, wanted)
        except (IntegrityError, NotFoundError, RefusedError):
            continue
        # Anybody may have put it there: what is not whole is no better than what must be thawed.
        if all(name in stored and stored[name].size == records[name].stored_size for name in wanted if name in records):
            found = _unreadable(archive.store, stored.values())
            best = min(best, (other, found), key=lambda copy: total(copy[1]))
    return best


def _stored(archive: Archive, backup: Backup, wanted: Collection[str]) -> dict[str, StoredObject]:
    """What the store lists of the objects ``wanted``, by their ids."""
    placement = archive.placement(backup)
    names = {placement[name]: name for name in wanted if name in placement}
    prefixes = sorted({key.rpartition("/")[0] + "/" for key in names})
    return {names[item.key]: item for prefix in prefixes for item in archive.store.list(prefix) if item.key in names}


def refuse_archived(backup: str, archived: Sequence[Archived]) -> None:
    """Raise ``RefusedError`` if there is anything to thaw: the store would refuse every one of these reads."""
    if not archived:
        return
    thawing = sum(item.state == "thawing" for item in archived)
    under_way = f", {thawing} of them are being thawed" if thawing else ""
    raise RefusedError(
        f"{len(archived)} objects ({total(archived) / 2**20:.1f} MiB) of backup {backup} are archived "
        f"in {', '.join(sorted({item.storage_class for item in archived}))} and cannot be read now{under_way}",
        hint="Add --thaw: it asks the store for them, waits for some hours, and then restores.",
    )


def total(archived: Iterable[Archived]) -> int:
    """Bytes that are to be thawed."""
    return sum(item.size for item in archived)


def thaw(
    store: Store,
    archived: Sequence[Archived],
    reporter: Reporter,
    *,
    days: int = THAW_DAYS,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Ask the store to make all of ``archived`` readable for so many ``days``, and wait until they are.

    Whatever ends the wait, nothing is lost by it: the store goes on, and asking again is no error.
    """
    reporter.phase("thaw", total(archived))
    pause = _FIRST_PAUSE
    with _resumable(reporter):
        # Those that are being thawed already were asked for by an earlier run.
        _ask(store, [item.key for item in archived if item.state == "archived"], days)
        waiting = _look(store, archived, reporter, days)
        while waiting:
            reporter.event("thawing", objects=len(waiting), bytes=total(waiting))
            sleep(pause)
            pause = min(pause * _GROWTH, _LAST_PAUSE)
            waiting = _look(store, waiting, reporter, days)


def _ask(store: Store, keys: Sequence[str], days: int) -> None:
    for _ in ordered_map(lambda key: store.thaw(key, days), keys, workers=_WORKERS):
        pass


def _look(store: Store, waiting: Sequence[Archived], reporter: Reporter, days: int) -> list[Archived]:
    """Those of ``waiting`` that cannot be read yet. What was readable and is archived again is asked for anew."""
    states = list(ordered_map(lambda item: _availability(store, item.key), waiting, workers=_WORKERS))
    left = [(item, state) for item, state in zip(waiting, states, strict=True) if state != "ready"]
    reporter.advance(total(waiting) - total(item for item, _ in left))
    _ask(store, [item.key for item, state in left if state == "archived"], days)
    return [item for item, _ in left]


def _availability(store: Store, key: str) -> Availability:
    try:
        return store.availability(key)
    except NotFoundError:
        # The fetch says what that means.
        return "ready"


@contextmanager
def _resumable(reporter: Reporter) -> Iterator[None]:
    """Whatever ends the block says that nothing was lost."""
    advice = "Run the same restore again: the store goes on thawing meanwhile."
    try:
        yield
    except KeyboardInterrupt:
        reporter.warn(f"the wait for archived objects was interrupted. {advice}")
        raise
    except StorageError as error:
        error.hint = f"{error.hint or ''} {advice}".strip()
        raise


def _unreadable(store: Store, items: Iterable[StoredObject]) -> list[Archived]:
    def look(item: StoredObject) -> tuple[StoredObject, Availability]:
        return item, _availability(store, item.key)

    cold = sorted((item for item in items if item.storage_class in ARCHIVE_CLASSES), key=lambda item: item.key)
    return [
        Archived(item.key, item.size, item.storage_class or "", state)
        for item, state in ordered_map(look, cold, workers=_WORKERS)
        if state != "ready"
    ]
