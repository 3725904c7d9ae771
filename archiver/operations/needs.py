"""What every copy of a backup needs of the store, and until when it is sure to be there.

One LIST of each prefix that is named tells the size and the age of every key; only the placements are read. Beside its
own keys every copy needs one key file, any one, of each of its vaults.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from archiver.catalog.names import (
    BackupPlace,
    backups_prefix,
    data_prefix,
    is_class,
    parse_vault_key,
    vault_prefix,
)
from archiver.config import HELD, Config
from archiver.errors import IntegrityError, NotFoundError, RefusedError
from archiver.operations.archive import Archive
from archiver.operations.chain import TOLERANCE
from archiver.operations.history import Backup
from archiver.operations.places import latest
from archiver.operations.vaults import put_back
from archiver.retention.expiry import Need
from archiver.retention.policy import Term, in_force
from archiver.retention.rules import Rule, Stored, after, earlier, lasts, sure_until
from archiver.stores.base import Store, StoredObject

_FOR_EVER = datetime.max.replace(tzinfo=UTC)


class Guarantee(NamedTuple):
    """Until when a copy of a backup is sure to be restorable, as far as the store's listing tells."""

    until: datetime | None
    """None: for ever."""
    reason: str
    """In words: what ends it."""


class Standing(msgspec.Struct, frozen=True):
    """How a backup stands, all its copies taken together."""

    guarantee: Guarantee
    """Of the copy that lasts longest, and no longer than its vaults."""
    damage: tuple[str, ...] = ()
    """In words, what is missing of copies that are still promised."""
    shortfall: str | None = None
    """In words, why what is whole is not sure to last until its promise; None where it is, or where damage is all."""
    hints: tuple[str, ...] = ()
    """What to do about it, in sentences."""


VaultEnds = Mapping[str, Guarantee | None]
"""By its id, until when the last key file of a vault is sure to be there; None: it has none."""


def standings(archive: Archive, backups: Sequence[Backup], config: Config | None, now: datetime) -> list[Standing]:
    """One for each of ``backups``. Without a configuration the terms are those that the backups themselves state.

    Costs one LIST for each vault that they name, beside what ``needs`` costs.
    """
    rules = destination_rules(archive.store)
    terms = {} if config is None else in_force(config.classes, rules)
    names = {vault.id for backup in backups for vault in backup.manifest.vaults}
    vaults = {name: _vault_end(archive, name, rules or ()) for name in sorted(names)}
    found: dict[str, list[tuple[Need, Guarantee]]] = {}
    for need in needs(archive, backups):
        found.setdefault(need.backup, []).append((need, guarantee(need, terms, rules, now)))
    return [_standing(archive, backup, found[backup.manifest.backup], vaults, now) for backup in backups]


def check_vaults(archive: Archive, backup: Backup) -> None:
    """Raise ``IntegrityError`` where a vault that ``backup`` needs has no key file: then no copy of it can be restored.
    One LIST for each vault."""
    for vault in backup.manifest.vaults:
        if _vault_end(archive, vault.id, ()) is None:
            raise IntegrityError(_without_key_file(archive, vault.id), hint=put_back(archive.source, vault.id))


def _standing(
    archive: Archive, backup: Backup, copies: Sequence[tuple[Need, Guarantee]], vaults: VaultEnds, now: datetime
) -> Standing:
    name = backup.manifest.backup
    ends = [(vault.id, vaults[vault.id]) for vault in backup.manifest.vaults]
    lost = [vault for vault, end in ends if end is None]
    limits = [end or Guarantee(now, f"vault {vault} has no key file") for vault, end in ends]
    standing = Standing(_earliest([best([found for _, found in copies]), *limits]))
    if not backup.is_promised(now):
        return standing
    promised = [(need, found) for need, found in copies if need.promise is None or need.promise > now]
    damage = [f"{name}: {_without_key_file(archive, vault)}" for vault in lost]
    damage += [_damage(need, gone) for need, _ in promised if (gone := missing(need))]
    hints = [put_back(archive.source, vault) for vault in lost]
    whole = [(need, found) for need, found in promised if not missing(need)]
    shortfall = None
    if whole and not lost:
        sure = _earliest([best([found for _, found in whole]), *limits])
        shortfall = _shortfall(name, latest(need.promise for need, _ in whole), sure)
    if shortfall is not None:
        hints.append(
            "archiver lifecycle check shows which rule of the bucket is in the way; where none is, the configuration "
            "keeps backups for less long than it did when they were made."
        )
    return replace(standing, damage=tuple(damage), shortfall=shortfall, hints=tuple(hints))


def _damage(need: Need, gone: Sequence[str]) -> str:
    what = f"{gone[0]} is missing, or not what it should be"
    if len(gone) > 1:
        what = f"{gone[0]} and {len(gone) - 1:,} more keys are missing, or not what they should be"
    return f"the copy of {need.backup} in class {need.retention_class} is damaged: {what}"


def _shortfall(backup: str, promise: datetime | None, sure: Guarantee) -> str | None:
    """In words, that ``sure`` comes before ``promise``: by more than the clocks of a host and a store may differ,
    because a promise counts from the host's time, and a rule from the store's."""
    if sure.until is None or lasts(sure.until, promise and promise - TOLERANCE):
        return None
    promised = "for ever" if promise is None else f"until {promise:%Y-%m-%dT%H:%M:%SZ}"
    return f"{backup} is promised {promised}, and only sure until {sure.until:%Y-%m-%dT%H:%M:%SZ}: {sure.reason}"


def _vault_end(archive: Archive, vault: str, rules: Sequence[Rule]) -> Guarantee | None:
    """Until when a key file of ``vault`` is sure to be there under ``rules``; None where there is none. Listed one file
    at a time."""
    found: Guarantee | None = None
    for item in archive.store.list(vault_prefix(archive.source, vault)):
        if parse_vault_key(item.key) is not None:
            end = Guarantee(sure_until(item, rules), f"{item.key} expires")
            found = end if found is None else best([found, end])
    return found


def _without_key_file(archive: Archive, vault: str) -> str:
    return f"{archive.store.url} holds no key file of vault {vault}: nobody could restore"


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
    return max(guarantees, key=_end)


def _earliest(guarantees: Sequence[Guarantee]) -> Guarantee:
    """That of what needs all of these, at least one; the first of several that end at once."""
    return min(guarantees, key=_end)


def _end(found: Guarantee) -> datetime:
    return found.until or _FOR_EVER


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


class _Listing:
    """What a store lists of a source, each prefix once and only when it is asked for."""

    def __init__(self, store: Store, source: str) -> None:
        self._store = store
        names = [name for name in store.list_names() if is_class(name)]
        self._prefixes = {prefix(name, source) for name in names for prefix in (backups_prefix, data_prefix)}
        self._listed: dict[str, dict[str, StoredObject]] = {}

    def get(self, key: str) -> StoredObject | None:
        """What there is of ``key``. What no backup of this source would be made to lie in is asked for by itself: a
        placement may name any key."""
        prefix = "/".join(key.split("/")[:3]) + "/"
        if prefix not in self._prefixes:
            try:
                return self._store.stat(key)
            except (NotFoundError, RefusedError):
                return None
        if prefix not in self._listed:
            self._listed[prefix] = {item.key: item for item in self._store.list(prefix)}
        return self._listed[prefix].get(key)
