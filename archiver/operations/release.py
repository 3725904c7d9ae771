"""``archiver release``: delete the copy of a backup in ``held``, and what an interrupted hold left there."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

import msgspec

from archiver.catalog.lines import decode_lines
from archiver.catalog.names import (
    BackupPlace,
    backups_prefix,
    check_backup_id,
    check_object_key,
    data_prefix,
    parse_manifest_key,
    parse_object_key,
)
from archiver.catalog.records import PLACEMENT
from archiver.config import HELD
from archiver.errors import FormatError, IntegrityError, NotFoundError, StorageError
from archiver.operations.archive import Archive
from archiver.operations.copy_site import CopySite
from archiver.operations.history import Backup
from archiver.operations.needs import needs
from archiver.operations.places import list_places
from archiver.progress import Reporter
from archiver.retention.expiry import Deletion, Need, released
from archiver.stages.frames import decompress
from archiver.stores.base import Store, StoredObject

LEFT_OVER = timedelta(days=7)
"""How old a key in ``held`` that no copy there needs must be before archiver expire takes it for what a hold that was
interrupted left: as old as an upload that is abandoned."""
_TOLD = 3
"""Held backups that a hint names."""


class Release(msgspec.Struct, frozen=True):
    """What goes, and where the backup stays."""

    backup: str
    deletions: Sequence[Deletion]
    """In their order: the manifest first."""
    stays_in: Sequence[str]
    """The classes in which there are other copies; empty where this was the last one."""


def release(site: CopySite, reference: str, reporter: Reporter, *, dry_run: bool) -> Release:
    """Delete the copy in ``held`` of the backup called ``reference``, an id or its beginning, or what an interrupted
    hold or release left of one: its manifest first, so that nothing half deleted looks whole. Run again, it goes on.

    Raises ``NotFoundError`` for what is not held, and ``IntegrityError`` where another held copy cannot be read: what
    that needs is not known then. Memory: one record for each key in ``held``, beside that of ``needs``.
    """
    archive = site.archive
    held = list_held(archive)
    readable = {item.manifest.backup: item for item in archive.backups() if isinstance(item, Backup)}
    backup = _find(archive, held, readable, reference)
    copies = needs(archive, readable.values())
    others = [need for need in copies if (need.backup, need.retention_class) != (backup, HELD)]
    unclear = [other for other in _unclear(held, others, archive.source) if other != backup]
    if unclear:
        raise IntegrityError(
            f"what other held copies need is not known, because they cannot be read: {', '.join(unclear)}",
            hint="archiver list says what is wrong with them. One that is of no use is given up by deleting "
            f"{BackupPlace(HELD, archive.source, unclear[0]).manifest} with an administrator's credentials.",
        )
    keys = _own_keys(archive, BackupPlace(HELD, archive.source, backup), held, readable.get(backup))
    own = Need(backup, archive.source, HELD, None, dict.fromkeys(keys))
    deletions = released(backup, held, [own, *others])
    if not deletions:
        raise _not_held(archive, reference, held)
    if not dry_run:
        _delete(archive.store, deletions, reporter)
    return Release(backup, deletions, [need.retention_class for need in others if need.backup == backup])


def list_held(archive: Archive) -> list[StoredObject]:
    """All that lies in ``held`` of the source."""
    prefixes = backups_prefix(HELD, archive.source), data_prefix(HELD, archive.source)
    return [item for prefix in prefixes for item in archive.store.list(prefix)]


def held_needs(store: Store, source: str) -> list[Need]:
    """What the copies in ``held`` of ``source`` need, whoever signed them; without those that cannot be read."""
    archive = Archive(store, source, None)
    copies = []
    for listed in list_places(store, source):
        if listed.place.retention_class == HELD:
            with suppress(IntegrityError, NotFoundError):
                copies.append(archive.load(listed.place))
    return needs(archive, copies)


def left_in_held(store: Store, source: str) -> list[Deletion]:
    """What holds and releases that nobody went on with have left in ``held`` of ``source``: see ``left_over``."""
    copies = held_needs(store, source)
    # Listed last: then a hold that has just been committed is one that cannot be read.
    return left_over(list_held(Archive(store, source, None)), copies, source, store.clock())


def left_over(held: Sequence[StoredObject], copies: Sequence[Need], source: str, now: datetime) -> list[Deletion]:
    """Of all that is ``held`` of ``source`` what none of its ``copies`` needs: a hold or a release was interrupted, and
    nobody went on with it.

    Nothing, where a copy in ``held`` cannot be read: what it needs is not known. And nothing, as long as one of these
    keys is younger than ``LEFT_OVER``: a hold may be under way, which goes on with the older ones.
    """
    if _unclear(held, copies, source):
        return []
    needed = {key for need in copies for key in need.keys}
    idle = [item for item in held if item.key not in needed]
    if any(item.modified + LEFT_OVER > now for item in idle):
        return []
    return [Deletion(item.key, item.size, f"an interrupted hold or release left it in {HELD}") for item in idle]


def _find(archive: Archive, held: Iterable[StoredObject], readable: Iterable[str], reference: str) -> str:
    """The id of the one backup that ``reference`` is the beginning of: of those that something in ``held`` is called
    after, else of those that can be read, because the first keys of a hold are those of objects."""
    beginning = reference.removeprefix(f"{HELD}/")
    called = {_backup_of(item.key) for item in held} - {""}
    for names in (called, readable):
        found = sorted(name for name in names if beginning and name.startswith(beginning))
        if len(found) > 1:
            raise NotFoundError(f"{reference!r} is the beginning of {len(found)} ids", hint="Give more of the id.")
        if found:
            return found[0]
    raise _not_held(archive, reference, held)


def _not_held(archive: Archive, reference: str, held: Iterable[StoredObject]) -> NotFoundError:
    places = (parse_manifest_key(item.key) for item in held)
    names = sorted((place.backup for place in places if place is not None), reverse=True)
    more = f" and {len(names) - _TOLD:,} more" if len(names) > _TOLD else ""
    there = f"Held are {', '.join(names[:_TOLD])}{more}: give the id, or its beginning." if names else "None is held."
    return NotFoundError(
        f"{archive.store.url} holds no backup {reference!r} of source {archive.source!r}",
        hint=f"What is released is called by its id. {there}",
    )


def _backup_of(key: str) -> str:
    """The backup that a key of a source is called after; empty for an object's."""
    try:
        return check_backup_id(key.split("/")[3].partition(".")[0])
    except FormatError:
        return ""


def _unclear(held: Iterable[StoredObject], copies: Iterable[Need], source: str) -> list[str]:
    """The backups with a manifest in ``held`` of which it is not known what they need."""
    places = (parse_manifest_key(item.key) for item in held)
    found = {place.backup for place in places if place is not None}
    for need in copies:
        placement = BackupPlace(HELD, source, need.backup).placement
        if need.retention_class == HELD and need.keys.get(placement) is not None:
            found.discard(need.backup)
    return sorted(found)


def _own_keys(archive: Archive, place: BackupPlace, held: Iterable[StoredObject], backup: Backup | None) -> set[str]:
    """Which keys of objects in ``held`` belong to the copy at ``place``, whether it is whole or not: those that its
    placement names or, where that cannot be read, those of the objects of ``backup``, if that can."""
    listed = {item.key for item in held}
    try:
        records = decode_lines(decompress(archive.store.read(place.placement)), PLACEMENT, place.placement)
        return {key for record in records if (key := check_object_key(record.key, record.id)) in listed}
    except (IntegrityError, NotFoundError):
        # The hold did not come so far, or the release did: then only what is called after the backup is left.
        objects = {} if backup is None else archive.objects(backup)
    places = ((key, parse_object_key(key)) for key in listed)
    return {key for key, found in places if found is not None and found.object_id in objects}


def _delete(store: Store, deletions: Sequence[Deletion], reporter: Reporter) -> None:
    reporter.phase("release", sum(deletion.size for deletion in deletions))
    for deletion in deletions:
        try:
            store.unlock(deletion.key)
            store.delete(deletion.key)
        except NotFoundError:
            # An answer was lost, or somebody else is at it.
            pass
        except StorageError as error:
            error.hint = error.hint or "Use an administrator's credentials, and run this again: it goes on."
            raise
        reporter.advance(deletion.size)
