"""What it takes to copy a backup into another class: which objects must be copied, and which can be referred to where
they are. Decided from what the store lists, before anything is written; a copy that was interrupted is gone on with."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal

import msgspec
from msgspec.structs import replace

from archiver.catalog.names import BackupPlace, data_prefix, is_class, new_copy, object_key, parse_object_key
from archiver.catalog.records import ObjectRecord
from archiver.catalog.terms import Terms
from archiver.config import ARCHIVE_CLASSES, HELD
from archiver.errors import IntegrityError, NotFoundError, RefusedError
from archiver.operations.archive import Archive
from archiver.operations.history import Backup
from archiver.operations.places import latest
from archiver.operations.release import held_needs, list_held
from archiver.parallel import ordered_map
from archiver.retention.policy import Term
from archiver.retention.references import choose
from archiver.stores.base import Store, StoredObject

_ASKED = 8
"""Archived objects asked about at a time."""
_FRESH = timedelta(days=6)
"""How old what an interrupted hold left in ``held`` may be to be used: a day younger than what archiver expire takes
for left over (release.LEFT_OVER), so that no hold relies on what is being deleted."""


class ObjectCopy(msgspec.Struct, frozen=True):
    """What becomes of one object of the copy."""

    record: ObjectRecord
    action: Literal["use", "prove", "copy", "thaw"]
    """``use`` the ``key`` as it is; ``prove`` by its hash that it can be used, else copy ``source`` to a further one;
    ``copy`` the key ``source`` to ``key``; ``thaw``: the same, once ``source`` is thawed."""
    key: str
    source: str = ""
    """Empty: there is none, or none is needed."""
    doubtful: Sequence[str] = ()
    """Without a ``source`` that is believed: the keys that may hold the object. The first that is proven is it."""


class CopyPlan(msgspec.Struct, frozen=True):
    """What a copy of ``backup`` at ``place`` takes. Nothing is written yet."""

    backup: Backup
    place: BackupPlace
    terms: Terms
    configured: Mapping[str, Term]
    """The terms of every class."""
    objects: Sequence[ObjectCopy]
    """In the order of the objects list."""
    present: Mapping[str, StoredObject]
    """What an interrupted copy left at the places of the lists, by key."""

    @property
    def promise(self) -> datetime | None:
        """Until when the copy is promised; None: for ever."""
        return self.terms.promise(self.backup.manifest)

    @property
    def copies(self) -> list[ObjectCopy]:
        """The objects that are not where they can stay."""
        return [item for item in self.objects if item.action in ("copy", "thaw")]

    @property
    def copied_bytes(self) -> int:
        """Stored bytes of the objects that are copied."""
        return sum(item.record.stored_size for item in self.copies)


_Listed = list[tuple[StoredObject, str]]
"""Keys of one object that the store lists, each with its class."""


def plan_copy(
    archive: Archive, backup: Backup, target: str, terms: Mapping[str, Term], known: Collection[str] = ()
) -> CopyPlan:
    """How to copy ``backup`` into the class ``target``, which is one of ``terms``.

    The terms are the configuration's (policy.in_force without rules), whatever rules the bucket has: somebody else's
    rule may be gone tomorrow, and what was borrowed because of it, or promised for less, would stay so.

    Whoever may create keys can put one of the right name and size where a copy will look for it. So a key is believed
    to hold its object only if the placement of the backup's oldest copy names it, or if it is among ``known``, those
    that this run has made or proven; any other is to be proven by its hash before it is used, whatever its age.

    Raises ``IntegrityError`` where no copy could be restored, and where what was left in ``held`` is too old to be
    used; ``RefusedError`` where objects must be thawed first, and where the class keeps for less long than the manifest
    promises.
    Memory: one record and its keys for each object of the backup, however much else the store holds.
    """
    place = BackupPlace(target, backup.manifest.source, backup.manifest.backup)
    objects = archive.objects(backup)
    candidates, present = _list(archive.store, place, objects)
    left = _left_placement(archive, replace(backup, place=place)) if place.placement in present else None
    believed = {*known, *_named(archive, backup)}
    stated = stated_terms(terms[target])
    promise = stated.promise(backup.manifest)
    if promise != latest((promise, backup.manifest.promised_until)):
        raise RefusedError(
            f"{target} keeps for less long than {place.backup} is promised: until {promise:%Y-%m-%d}, expected "
            f"{backup.manifest.promised_until:%Y-%m-%d} at least",
            hint="Copy it into a class that keeps it for longer.",
        )
    decider = _Decider(terms[target], terms, promise, place, left)
    found = []
    for record in objects.values():
        listed = candidates[record.id]
        fitting = _fitting(record, listed, place, left)
        good = [item for item in fitting if item[0].key in believed]
        found.append(decider.decide(record, good, fitting, {stored.key for stored, _ in listed}))
    if target == HELD:
        _check_fresh(archive, place, {*present, *(item.key for item in found if item.action in ("use", "prove"))})
    _check_thawed(archive.store, backup, [item for item in found if item.action == "thaw"])
    return CopyPlan(backup, place, stated, terms, found, present)


class _Decider(msgspec.Struct, frozen=True):
    """Decides about one object after the other."""

    target: Term
    terms: Mapping[str, Term]
    promise: datetime | None
    place: BackupPlace
    left: Mapping[str, str] | None
    """The placement that an interrupted copy left."""

    def decide(self, record: ObjectRecord, good: _Listed, fitting: _Listed, taken: Collection[str]) -> ObjectCopy:
        """What becomes of an object: ``fitting`` are the keys that may hold it, ``good`` those that do, and ``taken``
        all that are called after it."""
        reference = choose(good, self.target, self.promise, self.terms) if good else None
        if reference is not None and reference.action == "use":
            return ObjectCopy(record, "use", reference.key)
        other = choose(fitting, self.target, self.promise, self.terms)
        # On some stores a copy of what is held is under a legal hold too (references.choose).
        last = sorted(fitting, key=lambda item: item[1] == HELD)
        doubtful = [stored.key for stored, _ in last if stored.storage_class not in ARCHIVE_CLASSES]
        if other.action == "use":
            source = "" if reference is None or reference.action == "thaw" else reference.key
            return ObjectCopy(record, "prove", other.key, source, [key for key in doubtful if key != other.key])
        if self.left is not None:
            raise unusable(self.place.placement, f"names {other.key}: {other.reason}")
        plain = object_key(self.place.retention_class, self.place.source, record.id, record.kind)
        key = further_key(self.place, record) if plain in taken else plain
        if reference is not None:
            return ObjectCopy(record, reference.action, key, reference.key)
        if not doubtful:
            raise IntegrityError(
                f"object {record.id} of {self.place.backup} lies at {other.key} only, which the backup does not name, "
                "and which must be thawed before it can be proven",
                hint="Copy another backup.",
            )
        return ObjectCopy(record, "copy", key, doubtful=doubtful)


def stated_terms(term: Term) -> Terms:
    """What is said of a copy under ``term``, one of the configuration's."""
    if term.keep is None or term.data is None:
        return Terms(version=1, keep_days=None, lease_days=None)
    return Terms(version=1, keep_days=term.keep, lease_days=term.data - term.keep)


def further_key(place: BackupPlace, record: ObjectRecord) -> str:
    """A key of the object in the class of ``place`` that is free, where the plain one is not."""
    return object_key(place.retention_class, place.source, record.id, record.kind, new_copy())


def unusable(key: str, problem: str) -> IntegrityError:
    """Something lies where the copy is to lie, and is of no use."""
    return IntegrityError(
        f"{key} is there already, and {problem}",
        hint="An interrupted copy left it, or somebody planted it: delete that key with an administrator's "
        "credentials, then run this again.",
    )


def _list(
    store: Store, place: BackupPlace, objects: Mapping[str, ObjectRecord]
) -> tuple[dict[str, _Listed], dict[str, StoredObject]]:
    """Where the ``objects`` lie, of all classes, and which lists are at ``place`` already."""
    candidates: dict[str, _Listed] = {name: [] for name in objects}
    lists = {place.contents, place.objects, place.placement}
    present = {}
    for retention_class in filter(is_class, store.list_names()):
        for stored in store.list(data_prefix(retention_class, place.source)):
            if stored.key in lists:
                present[stored.key] = stored
                continue
            found = parse_object_key(stored.key)
            if found is not None and found.object_id in objects and found.kind == objects[found.object_id].kind:
                candidates[found.object_id].append((stored, retention_class))
    return candidates, present


def _named(archive: Archive, backup: Backup) -> Collection[str]:
    """The keys that the backup's placement names: that of the oldest copy, so that nobody else can have written it."""
    try:
        return archive.placement(backup).values()
    except (IntegrityError, NotFoundError):
        # Then each must be proven.
        return ()


def _left_placement(archive: Archive, backup: Backup) -> dict[str, str]:
    """The placement that an interrupted copy left."""
    try:
        return archive.placement(backup)
    except IntegrityError as error:
        raise unusable(backup.place.placement, f"cannot be used: {error.message}") from error


def _fitting(record: ObjectRecord, listed: _Listed, place: BackupPlace, left: Mapping[str, str] | None) -> _Listed:
    """Which of the keys at which the object is ``listed`` hold as many bytes as it has; where an interrupted copy
    ``left`` a placement, that one of them that this names. At least one."""
    if left is not None:
        listed = [(stored, name) for stored, name in listed if stored.key == left.get(record.id)]
    fitting = [(stored, name) for stored, name in listed if stored.size == record.stored_size]
    if fitting:
        return fitting
    sizes = ", ".join(f"{stored.key} with {stored.size}" for stored, _ in listed)
    problem = f"expected {record.stored_size} bytes, got {sizes}" if sizes else "it is not there"
    if left is not None:
        raise unusable(place.placement, f"object {record.id} is not where it says: {problem}")
    raise IntegrityError(
        f"object {record.id} of {place.backup}: {problem}", hint="This backup cannot be restored: copy another one."
    )


def _check_fresh(archive: Archive, place: BackupPlace, keys: Collection[str]) -> None:
    """Raise ``IntegrityError`` if one of ``keys``, which a copy at ``place`` in ``held`` would use, was left there so
    long ago by an interrupted hold or release that archiver expire may be deleting it."""
    own = {*keys, place.terms, place.signature}
    limit = archive.store.clock() - _FRESH
    old = {item.key for item in list_held(archive) if item.key in own and item.modified <= limit}
    if old:
        old -= {key for need in held_needs(archive.store, archive.source) for key in need.keys}
    if old:
        raise IntegrityError(
            f"{min(old)} was left by an interrupted hold or release more than {_FRESH.days} days ago, and may be "
            "deleted at any time",
            hint=f"archiver release {place.backup} removes what was left; then hold it again.",
        )


def _check_thawed(store: Store, backup: Backup, archived: Sequence[ObjectCopy]) -> None:
    """Raise ``RefusedError`` unless every archived object is readable for the time being."""
    states = ordered_map(lambda item: store.availability(item.source), archived, workers=_ASKED)
    waiting = [item.record.stored_size for item, state in zip(archived, states, strict=True) if state != "ready"]
    if waiting:
        name = backup.manifest.backup
        raise RefusedError(
            f"{len(waiting)} objects of {name}, {sum(waiting)} bytes, are archived and cannot be copied",
            hint=f"Thaw them first: archiver restore {name} --thaw does, then run this again.",
        )
