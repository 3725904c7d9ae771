"""What every copy of a backup needs of the store, and until when it is sure to be there.

One LIST of each prefix that is named tells the size and the age of every key; only the placements are read.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import NamedTuple

from archiver.catalog.names import BackupPlace, backups_prefix, data_prefix, is_class
from archiver.config import HELD, Config
from archiver.errors import IntegrityError, NotFoundError, RefusedError
from archiver.operations.archive import Archive
from archiver.operations.history import Backup
from archiver.retention.expiry import Need
from archiver.retention.policy import Term, in_force
from archiver.retention.rules import Rule, Stored, after, earlier, sure_until
from archiver.stores.base import Store, StoredObject

_FOR_EVER = datetime.max.replace(tzinfo=UTC)


class Guarantee(NamedTuple):
    """Until when a copy of a backup is sure to be restorable, as far as the store's listing tells."""

    until: datetime | None
    """None: for ever."""
    reason: str
    """In words: what ends it."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a backup stands, all its copies taken together."""

    guarantee: Guarantee
    """Of the copy that lasts longest."""
    damage: tuple[str, ...]
    """In words, what is missing of copies that are still promised."""


def standings(archive: Archive, backups: Sequence[Backup], config: Config | None, now: datetime) -> list[Standing]:
    """One for each of ``backups``. Without a configuration the terms are those that the backups themselves state."""
    rules = destination_rules(archive.store)
    terms = {} if config is None else in_force(config.classes, rules)
    found: dict[str, list[Need]] = {}
    for need in needs(archive, backups):
        found.setdefault(need.backup, []).append(need)
    return [_standing(found[backup.manifest.backup], terms, rules, now) for backup in backups]


def _standing(
    copies: Sequence[Need], terms: Mapping[str, Term], rules: Sequence[Rule] | None, now: datetime
) -> Standing:
    damage = []
    for need in copies:
        gone = missing(need) if need.promise is None or need.promise > now else []
        if gone:
            what = f"{gone[0]} is missing, or not what it should be"
            if len(gone) > 1:
                what = f"{gone[0]} and {len(gone) - 1:,} more keys are missing, or not what they should be"
            damage.append(f"the copy of {need.backup} in class {need.retention_class} is damaged: {what}")
    return Standing(best([guarantee(need, terms, rules, now) for need in copies]), tuple(damage))


def needs(archive: Archive, backups: Iterable[Backup]) -> list[Need]:
    """One for each copy of each of ``backups``, in their order.

    A key has None where it is not there, and where the store lists it with another size than the manifest says. So has
    the placement's own where that cannot be read or does not place every object: then the objects are missing among the
    keys, and whoever would delete some must not. Raises ``StorageError`` where the store cannot be asked at all.

    Memory: about 0.4 KB for each key of the source that is listed, and 0.1 KB for each object of each copy.
    """
    listing = _Listing(archive.store, archive.source)
    return [_need(archive, backup, place, listing) for backup in backups for place in backup.places]


def guarantee(need: Need, terms: Mapping[str, Term], rules: Sequence[Rule] | None, now: datetime) -> Guarantee:
    """The earliest of the promise and of what ``terms`` and ``rules`` (relative to the destination; None where they are
    not known or there are none) leave of every key; ``now`` where a key is missing already."""
    gone = missing(need)
    if gone:
        return Guarantee(now, f"{gone[0]} is missing, or not what it should be")
    until, reason = need.promise, "held" if need.retention_class == HELD else "promised"
    for key, stored in need.keys.items():
        if stored is None:
            continue
        end = key_sure_until(stored, terms, rules or ())
        if end is not None and (until is None or end < until):
            until, reason = end, f"{key} expires"
    return Guarantee(until, reason)


def missing(need: Need) -> list[str]:
    """The keys of a copy that are not there, or are not what they should be."""
    return [key for key, stored in need.keys.items() if stored is None]


def best(guarantees: Sequence[Guarantee]) -> Guarantee:
    """That of a backup with copies of these, at least one: the latest counts."""
    return max(guarantees, key=lambda found: found.until or _FOR_EVER)


def key_sure_until(stored: Stored, terms: Mapping[str, Term], rules: Sequence[Rule]) -> datetime | None:
    """Until when a key is sure to exist under the terms of its class and the rules; None: for ever."""
    retention_class, kind, *_ = stored.key.split("/")
    term = terms.get(retention_class)
    days = None if term is None else term.keep if kind == "backups" else term.data
    return earlier(sure_until(stored, rules), after(stored.modified, days))


def destination_rules(store: Store) -> list[Rule] | None:
    """The store's lifecycle rules that touch the destination, relative to it; None where it runs none, and where they
    may not be read."""
    try:
        rules = store.rules()
    except RefusedError:
        return None
    base = store.full_key("")
    return None if rules is None else [found for rule in rules if (found := rule.below(base)) is not None]


def _need(archive: Archive, backup: Backup, place: BackupPlace, listing: "_Listing") -> Need:
    manifest = backup.manifest
    sizes = {place.contents: manifest.contents.stored_size, place.objects: manifest.objects.stored_size}
    keys: dict[str, Stored | None] = {}
    for key in (place.manifest, place.contents, place.objects, place.placement):
        stored = listing.get(key)
        keys[key] = stored if stored is None or sizes.get(key, stored.size) == stored.size else None
    signature, terms = listing.get(place.signature), listing.get(place.terms)
    if signature is not None or backup.signer is not None:
        keys[place.signature] = signature
    if terms is not None:
        keys[place.terms] = terms
    try:
        placement = archive.placement(replace(backup, place=place))
    except (IntegrityError, NotFoundError, RefusedError):
        placement = {}
    if len(placement) != manifest.totals.objects:
        keys[place.placement] = None
    for key in placement.values():
        stored = listing.get(key)
        # The listing's text of the key, so that it is there once.
        keys[key if stored is None else stored.key] = stored
    return Need(manifest.backup, manifest.source, place.retention_class, backup.promises[place.retention_class], keys)


@dataclass
class _Listing:
    """What a store lists of a source, each prefix once and only when it is asked for."""

    store: Store
    source: str

    def __post_init__(self) -> None:
        names = [name for name in self.store.list_names() if is_class(name)]
        self._prefixes = {
            prefix(name, self.source) for name in names for prefix in (backups_prefix, data_prefix)
        }  # fmt: skip
        self._listed: dict[str, dict[str, StoredObject]] = {}

    def get(self, key: str) -> StoredObject | None:
        """What there is of ``key``. What no backup of this source would be made to lie in is asked for by itself: a
        placement may name any key."""
        prefix = "/".join(key.split("/")[:3]) + "/"
        if prefix not in self._prefixes:
            try:
                return self.store.stat(key)
            except (NotFoundError, RefusedError):
                return None
        if prefix not in self._listed:
            self._listed[prefix] = {item.key: item for item in self.store.list(prefix)}
        return self._listed[prefix].get(key)
