"""The last look before a backup is signed: all of it is in the store, and stays there for as long as is promised."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from archiver.config import RetentionClass
from archiver.errors import IntegrityError
from archiver.operations.needs import key_sure_until
from archiver.retention.policy import Term
from archiver.retention.rules import Rule, lasts
from archiver.stores.base import Store, StoredObject


def promised(*terms: Term) -> RetentionClass:
    """What a manifest can promise under all of ``terms``, those of a configured class at several moments of a run: at
    least a day, because it cannot say less. Where not even that is sure, the bucket's rules are an error in every
    run."""
    keep = max(1, min(term.keep or 0 for term in terms))
    return RetentionClass(keep=keep, lease=max(1, min(term.data or 0 for term in terms) - keep))


def promise_of(started: datetime, term: Term) -> datetime:
    """Until when a backup that began at ``started`` is promised at most."""
    return started + timedelta(days=promised(term).keep)


def check_stored(
    store: Store,
    sizes: Mapping[str, int],
    promise: datetime,
    terms: Mapping[str, Term],
    rules: Sequence[Rule] | None,
) -> None:
    """Prove by LIST that the store has every key of ``sizes``, in bytes, and under ``terms``, which are those of
    their classes by name, and ``rules`` (relative to the destination) keeps it until ``promise``; raises
    ``IntegrityError``.

    One LIST of each prefix that they lie in, held one page at a time.
    """
    missing = dict(sizes)
    for prefix in sorted({key.rpartition("/")[0] + "/" for key in sizes}):
        for item in store.list(prefix):
            size = missing.pop(item.key, None)
            if size is not None:
                _check(item, size, promise, terms, rules or ())
    if missing:
        raise IntegrityError(
            f"{min(missing)} was stored, and {store.url} does not list it",
            hint="The backup was not committed: run it again, and if this comes back, find out who deletes there.",
        )


def _check(item: StoredObject, size: int, promise: datetime, terms: Mapping[str, Term], rules: Sequence[Rule]) -> None:
    if item.size != size:
        raise IntegrityError(
            f"{item.key}: stored {size} bytes, and the store lists {item.size}",
            hint="The backup was not committed: run it again.",
        )
    end = key_sure_until(item, terms, rules)
    if not lasts(end, promise):
        raise IntegrityError(
            f"{item.key}: expected to last until {promise:%Y-%m-%dT%H:%M:%SZ}, and it goes at {end:%Y-%m-%dT%H:%M:%SZ}",
            hint="The backup was not committed: archiver lifecycle check shows which rule of the bucket is in the way.",
        )
