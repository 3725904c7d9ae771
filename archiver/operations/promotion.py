"""Copying a backup into another class: what promotion, hold and rescue have in common.

Everything is copied within the store, so no object passes through this host and no secret is needed. The order is that
of a backup: objects, lists, signature, and the manifest last.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime

import msgspec
from msgspec.structs import replace

from archiver.catalog.lines import encode_lines
from archiver.catalog.manifest import MAX_MANIFEST, MAX_SIGNATURE
from archiver.catalog.names import BackupPlace
from archiver.catalog.records import PLACEMENT, ObjectRecord, PlacementRecord
from archiver.catalog.terms import MAX_TERMS, encode_terms
from archiver.config import Tuning
from archiver.crypto.trust import check_signature
from archiver.errors import (
    AlreadyExistsError,
    AuthenticityError,
    FormatError,
    IntegrityError,
    NotFoundError,
    RefusedError,
)
from archiver.operations.archive import Archive
from archiver.operations.commit_check import check_stored
from archiver.operations.copy_plan import CopyPlan, ObjectCopy, further_key, plan_copy, unusable
from archiver.operations.history import Backup
from archiver.operations.objects import naming
from archiver.operations.vaults import read_small
from archiver.operations.writing import write_object
from archiver.parallel import ordered_map
from archiver.progress import Reporter
from archiver.retention.policy import Term
from archiver.stages.measure import Meter
from archiver.stores.base import Store

_COPIES = 8
"""Objects copied at a time."""
_FOR_EVER = datetime.max.replace(tzinfo=UTC)


class Copied(msgspec.Struct, frozen=True):
    """A committed copy."""

    place: BackupPlace
    promise: datetime | None
    """Until when it is promised; None: for ever."""
    objects_used: int
    """Objects that it refers to where they were."""
    objects_copied: int
    bytes_copied: int
    keys: Collection[str]
    """Where its objects lie."""
    made: Collection[str]
    """Those of them that this run has created or proven."""


def promote_copy(
    archive: Archive,
    backup: Backup,
    target: str,
    terms: Mapping[str, Term],
    reporter: Reporter,
    known: Collection[str] = (),
) -> Copied:
    """Copy ``backup`` into the class ``target``, which is one of ``terms``, those of the configuration (plan_copy);
    ``known`` are ``keys`` of the copies that this run has made of it.

    On any failure the store has no copy that counts, only keys that nobody refers to, which the next try uses. Raises
    ``IntegrityError`` where an object or a list is not what the manifest says: such a copy could not be restored; and
    ``RefusedError`` where objects must be thawed first. For the one run that holds the source's lock.
    """
    return carry_out(archive, plan_copy(archive, backup, target, terms, known), reporter)


def carry_out(archive: Archive, plan: CopyPlan, reporter: Reporter) -> Copied:
    """Make the copy that ``plan`` describes."""
    store, place = archive.store, plan.place
    data, signature = _statement(store, plan.backup)
    work = [item for item in plan.objects if item.action != "use"]
    reporter.phase(f"copy {place.backup} into {place.retention_class}", sum(item.record.stored_size for item in work))
    settled = dict(_settle(store, plan.place, work, reporter))
    keys = {item.record.id: settled.get(item.record.id, item.key) for item in plan.objects}
    _copy_lists(archive, plan)
    placement = _place(store, plan, keys)
    _create(store, place.terms, encode_terms(plan.terms), MAX_TERMS)
    sizes = {key: item.record.stored_size for item, key in zip(plan.objects, keys.values(), strict=True)}
    manifest = plan.backup.manifest
    lists = {place.contents: manifest.contents.stored_size, place.objects: manifest.objects.stored_size}
    _check_stored(store, plan, sizes | lists | {place.placement: placement})
    _create(store, place.signature, signature, MAX_SIGNATURE)
    _create(store, place.manifest, data, MAX_MANIFEST)
    reporter.event("copied", backup=place.backup, key=place.manifest)
    copied = [item.record.stored_size for item in work if item.action != "prove" or keys[item.record.id] != item.key]
    return Copied(
        place, plan.promise, len(keys) - len(copied), len(copied), sum(copied), keys.values(), settled.values()
    )


def _place(store: Store, plan: CopyPlan, keys: Mapping[str, str]) -> int:
    """Write the placement, unless an interrupted copy left the same; its size."""
    key = plan.place.placement
    if key in plan.present:
        return plan.present[key].size
    records = (PlacementRecord(id=name, key=key) for name, key in keys.items())
    return write_object(store, key, encode_lines(records, PLACEMENT), [], Tuning(workers=1)).stored.size


def _check_stored(store: Store, plan: CopyPlan, sizes: Mapping[str, int]) -> None:
    """The last look before the signature: a release or an expire on another machine may have deleted meanwhile what
    this copy refers to. One LIST of each prefix that ``sizes``, by key in bytes, lie in."""
    try:
        check_stored(store, sizes, plan.promise or _FOR_EVER, plan.configured, None)
    except IntegrityError as error:
        error.hint = "Somebody deletes there: the copy was not made. Run this again when that has ended."
        raise


def _statement(store: Store, backup: Backup) -> tuple[bytes, bytes]:
    """The bytes of the manifest and of its signature. They are created anew from here, because what lies in the store
    could be replaced between the proof and a copy."""
    place = backup.place
    data = read_small(store, place.manifest, MAX_MANIFEST)
    meter = Meter()
    meter.update(data)
    if meter.blake3 != backup.blake3:
        raise IntegrityError(f"{place.manifest} was replaced: expected BLAKE3 {backup.blake3}, got {meter.blake3}")
    if backup.signer is None:
        raise AuthenticityError(
            f"{place.manifest} was read without checking its signature, and cannot be copied",
            hint="Name the key that signed it in signing.trusted.",
        )
    signature = read_small(store, place.signature, MAX_SIGNATURE)
    with naming(place.manifest):
        check_signature(data, signature.decode("ascii", "replace"), [backup.signer])
    return data, signature


def _settle(
    store: Store, place: BackupPlace, work: Iterable[ObjectCopy], reporter: Reporter
) -> Iterator[tuple[str, str]]:
    """Prove and copy; the id of each object with the key that it has now."""

    def settle(item: ObjectCopy) -> tuple[str, str]:
        record, key = item.record, item.key
        if item.action == "prove" and _holds(store, key, record):
            reporter.advance(record.stored_size)
            return record.id, key
        source = item.source or _proven_source(store, item)
        try:
            stored = store.copy(source, further_key(place, record) if item.action == "prove" else key)
        except AlreadyExistsError:
            # Made since the store was listed: by another host, or by a request whose answer was lost.
            stored = store.copy(source, further_key(place, record))
        _check_size(stored.key, record.stored_size, stored.size)
        reporter.advance(stored.size)
        return record.id, stored.key

    return ordered_map(settle, work, workers=_COPIES)


def _proven_source(store: Store, item: ObjectCopy) -> str:
    """The first of the keys that may hold the object, and does."""
    found = next((key for key in item.doubtful if _holds(store, key, item.record)), None)
    if found is not None:
        return found
    if item.action == "prove":
        raise unusable(item.key, f"does not hold object {item.record.id}")
    raise IntegrityError(
        f"object {item.record.id} is not what it should be at {', '.join(item.doubtful)}",
        hint="This backup cannot be restored: copy another one.",
    )


def _holds(store: Store, key: str, record: ObjectRecord) -> bool:
    """Whether ``key`` holds the object, by its hash."""
    meter = Meter()
    try:
        for buffer in store.read(key):
            meter.update(buffer)
    except (NotFoundError, RefusedError):
        return False
    return (meter.size, meter.blake3) == (record.stored_size, record.blake3)


def _copy_lists(archive: Archive, plan: CopyPlan) -> None:
    """Contents and objects list; what an interrupted copy left of them is proven by its hash."""
    source, place, manifest = plan.backup.place, plan.place, plan.backup.manifest
    here = replace(plan.backup, place=place)
    lists: tuple[tuple[str, str, int, Callable[[Backup], object]], ...] = (
        (source.contents, place.contents, manifest.contents.stored_size, archive.prove_contents),
        (source.objects, place.objects, manifest.objects.stored_size, archive.objects),
    )
    for there, key, size, prove in lists:
        if key not in plan.present:
            _check_size(key, size, archive.store.copy(there, key).size)
            continue
        try:
            prove(here)
        except IntegrityError as error:
            raise unusable(key, f"is not what the manifest says: {error.message}") from error


def _check_size(key: str, expected: int, found: int) -> None:
    if found != expected:
        raise IntegrityError(f"{key}: expected {expected} bytes, got {found}")


def _create(store: Store, key: str, data: bytes, limit: int) -> None:
    """Create ``key``; one that an interrupted copy, or another host, has made of these very bytes is as good."""
    try:
        store.create(key, [data])
    except AlreadyExistsError:
        try:
            found = read_small(store, key, limit)
        except FormatError as error:
            raise unusable(key, error.message) from None
        if found != data:
            raise unusable(key, "holds other bytes than it should") from None
