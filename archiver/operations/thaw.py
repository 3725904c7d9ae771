"""Objects in an archive storage class: which of them cannot be read now, and the wait until they can."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import msgspec

from archiver.config import ARCHIVE_CLASSES
from archiver.errors import NotFoundError, RefusedError, StorageError
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


class Archived(msgspec.Struct, frozen=True):
    """An object that a restore needs and that cannot be read now."""

    key: str
    size: int
    """Bytes."""
    storage_class: str
    state: Literal["archived", "thawing"]


def unreadable(store: Store, items: Iterable[StoredObject]) -> list[Archived]:
    """Those of ``items`` that must be thawed, in the order of keys; asks the store for each in an archive class."""

    def look(item: StoredObject) -> tuple[StoredObject, Availability]:
        return item, _availability(store, item.key)

    cold = sorted((item for item in items if item.storage_class in ARCHIVE_CLASSES), key=lambda item: item.key)
    return [
        Archived(item.key, item.size, item.storage_class or "", state)
        for item, state in ordered_map(look, cold, workers=_WORKERS)
        if state != "ready"
    ]


def refuse_archived(backup: str, archived: Sequence[Archived]) -> None:
    """Raise ``RefusedError`` if there is anything to thaw: the store would refuse every one of these reads."""
    if not archived:
        return
    thawing = sum(item.state == "thawing" for item in archived)
    under_way = f", {thawing} of them are being thawed" if thawing else ""
    raise RefusedError(
        f"{len(archived):,} object{'' if len(archived) == 1 else 's'} ({total(archived) / 2**20:.1f} MiB) of backup "
        f"{backup} must be thawed: archived "
        f"in {', '.join(sorted({item.storage_class for item in archived}))}{under_way}",
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
    accepted = threading.Event()
    if any(item.state == "thawing" for item in archived):
        accepted.set()
    with _resumable(reporter, accepted):
        # Those that are being thawed already were asked for by an earlier run.
        _ask(store, [item.key for item in archived if item.state == "archived"], days, accepted)
        waiting = _look(store, archived, reporter, days, accepted)
        while waiting:
            reporter.event("thawing", objects=len(waiting), bytes=total(waiting))
            sleep(pause)
            pause = min(pause * _GROWTH, _LAST_PAUSE)
            waiting = _look(store, waiting, reporter, days, accepted)


def _ask(store: Store, keys: Sequence[str], days: int, accepted: threading.Event) -> None:
    """Sets ``accepted`` as soon as the store has taken one."""

    def ask(key: str) -> None:
        store.thaw(key, days)
        accepted.set()

    for _ in ordered_map(ask, keys, workers=_WORKERS):
        pass


def _look(
    store: Store, waiting: Sequence[Archived], reporter: Reporter, days: int, accepted: threading.Event
) -> list[Archived]:
    """Those of ``waiting`` that cannot be read yet. What was readable and is archived again is asked for anew."""
    states = list(ordered_map(lambda item: _availability(store, item.key), waiting, workers=_WORKERS))
    left = [(item, state) for item, state in zip(waiting, states, strict=True) if state != "ready"]
    reporter.advance(total(waiting) - total(item for item, _ in left))
    _ask(store, [item.key for item, state in left if state == "archived"], days, accepted)
    return [item for item, _ in left]


def _availability(store: Store, key: str) -> Availability:
    try:
        return store.availability(key)
    except NotFoundError:
        # The fetch says what that means.
        return "ready"


@contextmanager
def _resumable(reporter: Reporter, accepted: threading.Event) -> Iterator[None]:
    """Whatever ends the block once the store has ``accepted`` something says that nothing was lost."""
    advice = "Run the same restore again: the store goes on thawing meanwhile."
    try:
        yield
    except KeyboardInterrupt:
        if accepted.is_set():
            reporter.warn(f"the wait for archived objects was interrupted. {advice}")
        raise
    except StorageError as error:
        if accepted.is_set():
            error.hint = f"{error.hint or ''} {advice}".strip()
        raise
