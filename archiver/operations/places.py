"""The places at which copies of backups lie, as far as the store's listing and their terms tell."""

from collections.abc import Iterable, Iterator
from datetime import datetime

import msgspec

from archiver.catalog.manifest import Manifest
from archiver.catalog.names import BackupPlace, backups_prefix, data_prefix, is_class, parse_manifest_key
from archiver.catalog.terms import MAX_TERMS, decode_terms
from archiver.errors import IntegrityError, NotFoundError, RefusedError
from archiver.operations.vaults import read_small
from archiver.stores.base import Store, StoredObject

_TERMS = "/terms.json"


class Listed(msgspec.Struct, frozen=True):
    """A place with a manifest, and since when the store has it."""

    place: BackupPlace
    modified: datetime
    terms: StoredObject | None = None
    """Its ``terms.json``; None where there is none."""


def list_places(store: Store, source: str) -> list[Listed]:
    """Where complete backups of ``source`` lie, newest first, the longest list of their classes included."""
    found: list[Listed] = []
    for retention_class in store.list_names():
        if is_class(retention_class):
            found += _listed_in(store, backups_prefix(retention_class, source))
    return sorted(found, key=lambda item: (item.place.backup, item.place.retention_class), reverse=True)


def _listed_in(store: Store, prefix: str) -> Iterator[Listed]:
    manifests: list[tuple[BackupPlace, datetime]] = []
    terms: dict[str, StoredObject] = {}
    for item in store.list(prefix):
        place = parse_manifest_key(item.key)
        if place is not None:
            manifests.append((place, item.modified))
        elif item.key.endswith(_TERMS):
            terms[item.key] = item
    return (Listed(place, modified, terms.get(place.terms)) for place, modified in manifests)


def check_lists(store: Store, place: BackupPlace, manifest: Manifest) -> None:
    """Whether the three lists are there, by one LIST: their hashes are for whoever reads them.

    Raises ``NotFoundError``, and ``IntegrityError`` for one of another size.
    """
    below = f"{data_prefix(place.retention_class, place.source)}{place.backup}."
    sizes = {item.key: item.size for item in store.list(below)}
    for key, expected in (
        (place.objects, manifest.objects.stored_size),
        (place.contents, manifest.contents.stored_size),
        (place.placement, None),
    ):
        if key not in sizes:
            raise NotFoundError(f"{key} does not exist in {store.url}")
        if expected is not None and sizes[key] != expected:
            raise IntegrityError(f"{key} has {sizes[key]} bytes, expected {expected}")


def promise_of(store: Store, listed: Listed, manifest: Manifest) -> tuple[datetime | None, str]:
    """Until when the copy at ``listed`` is promised (None: for ever), and in words what is odd about its terms, empty
    where nothing is.

    Never for less long than the manifest says: no copy is made in a class that keeps it so (copy_plan.py), and whoever
    may create keys can plant terms, also before the manifest that they lie beside.
    """
    own, terms = manifest.promised_until, listed.terms
    if terms is None:
        return own, ""
    try:
        promise = decode_terms(read_small(store, terms.key, MAX_TERMS), terms.key).promise(manifest)
    except (IntegrityError, NotFoundError, RefusedError) as error:
        return own, f"{terms.key} is ignored: {error.message}"
    return latest((own, promise)), ""


def latest(promises: Iterable[datetime | None]) -> datetime | None:
    """The longest of at least one promise; None: for ever."""
    found = list(promises)
    return None if None in found else max(promise for promise in found if promise is not None)
