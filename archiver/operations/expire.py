"""``archiver expire``: what a bucket's lifecycle rules do, for a store that runs none.

All is decided before anything is deleted: which keys have reached the age at which their class lets them go, and that
no copy of a backup whose promise is not over needs one of them. Needs credentials that may delete.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby

import msgspec
from msgspec.structs import replace

from archiver.catalog.names import BackupPlace, is_class, parse_manifest_key, parse_object_key
from archiver.config import HELD, RetentionClass
from archiver.errors import ArchiverError, IntegrityError, NotFoundError, RefusedError
from archiver.operations.archive import Archive
from archiver.operations.history import Backup
from archiver.operations.places import Listed, list_places, promise_of
from archiver.operations.release import left_in_held
from archiver.parallel import ordered_map
from archiver.progress import Reporter
from archiver.retention.expiry import Deletion, Need, Threat, expired, threatened
from archiver.retention.policy import Term, in_force
from archiver.stores.base import Store, StoredObject

_WORKERS = 8
"""Requests in flight."""
_TOLD = 3
"""Backups that a refusal names."""
_AREAS = ("backups", "data")


class Expiry(msgspec.Struct, frozen=True):
    """What goes, decided."""

    deletions: Sequence[Deletion]
    """In the order in which they are carried out: manifests first."""
    backups: Sequence[tuple[BackupPlace, str]]
    """The copies of backups among them, each with the reason."""
    emptied: Sequence[str]
    """Sources that have no backup left afterwards."""
    left_alone: Mapping[str, str]
    """Classes of which nothing goes, each with the reason."""

    @property
    def size(self) -> int:
        """Bytes of all that goes."""
        return sum(deletion.size for deletion in self.deletions)


def plan_expiry(store: Store, classes: Mapping[str, RetentionClass], reporter: Reporter) -> Expiry:
    """Decide what goes now under ``classes``. Raises ``IntegrityError`` if a promise would be broken, and
    ``RefusedError`` where a manifest or a placement may not be read: nobody could tell.

    The configuration alone counts: what a bucket's own rules let go sooner, they delete themselves. Of the keys that
    are listed only those that go are kept in memory, about 0.4 KB each, and the placements of a few backups at a time.
    """
    reporter.phase("look for what has expired")
    now = store.clock()
    listed = [name for name in store.list_names() if is_class(name)]
    remaining: dict[str, int] = {}
    terms = in_force(classes, None)
    deletions = expired(_stored(store, listed, remaining), terms, now)
    for source in store.list_names(f"{HELD}/data/"):
        deletions += left_in_held(store, source)
    going = {deletion.key: deletion for deletion in deletions}
    sources = {source for name in listed for area in _AREAS for source in store.list_names(f"{name}/{area}/")}
    promises = (_Promises(Archive(store, name, None), going, terms, now, reporter) for name in sorted(sources))
    threats = [threat for promised in promises for threat in promised.threats()]
    if threats:
        raise _refusal(threats)
    backups = [(place, item.reason) for item in deletions if (place := parse_manifest_key(item.key)) is not None]
    for place, _ in backups:
        remaining[place.source] -= 1
    return Expiry(
        deletions,
        backups,
        sorted({place.source for place, _ in backups if not remaining[place.source]}),
        {name: reason for name in listed if (reason := _untouched(name, classes)) is not None},
    )


def carry_out(store: Store, expiry: Expiry, reporter: Reporter) -> Expiry:
    """Delete what ``expiry`` says: manifests, then what lies beside them, then data. Return what was deleted.
    Interrupted, it is begun again.

    What was left in ``held`` comes last, and only what is left over still: a hold may have gone on with it meanwhile.
    """
    reporter.phase("delete", expiry.size)

    done: set[str] = set()

    def delete(deletion: Deletion) -> tuple[Deletion, bool]:
        try:
            if deletion.key.startswith(f"{HELD}/"):
                store.unlock(deletion.key)
            store.delete(deletion.key)
        except NotFoundError:
            # Somebody else deleted it.
            return deletion, False
        except RefusedError as error:
            raise RefusedError(
                f"cannot delete {deletion.key}: {error.message}",
                hint="Use an administrator's credentials (docs/iam/README.md); a bucket's own lifecycle rules need "
                "nobody's: archiver lifecycle apply.",
            ) from None
        return deletion, True

    def delete_all(deletions: Iterable[Deletion]) -> None:
        for deletion, deleted in ordered_map(delete, deletions, workers=_WORKERS):
            reporter.advance(deletion.size)
            if deleted:
                done.add(deletion.key)

    left = {deletion.key for deletion in expiry.deletions if deletion.key.startswith(f"{HELD}/")}
    for _, group in groupby((item for item in expiry.deletions if item.key not in left), _stage):
        delete_all(group)
    for source in sorted({key.split("/")[2] for key in left}):
        delete_all(item for item in left_in_held(store, source) if item.key in left)
    return replace(
        expiry,
        deletions=[item for item in expiry.deletions if item.key in done],
        backups=[(place, reason) for place, reason in expiry.backups if place.manifest in done],
    )


def _stage(deletion: Deletion) -> int:
    """What must be gone before the next is begun: a manifest without its signature would look like a forged one."""
    if parse_manifest_key(deletion.key) is not None:
        return 0
    return 1 if deletion.key.split("/")[1] == "backups" else 2


def _stored(store: Store, classes: Iterable[str], remaining: dict[str, int]) -> Iterator[StoredObject]:
    """All keys of ``classes``; counts the manifests of each source."""
    for name in classes:
        for area in _AREAS:
            for item in store.list(f"{name}/{area}/"):
                place = parse_manifest_key(item.key)
                if place is not None:
                    remaining[place.source] = remaining.get(place.source, 0) + 1
                yield item


def _untouched(name: str, classes: Mapping[str, RetentionClass]) -> str | None:
    if name == HELD:
        return "what is held stays until archiver release"
    return None if name in classes else "the configuration does not say for how long it is kept"


class _Promises(msgspec.Struct, frozen=True):
    """What the promised copies of one source need of what is ``going``.

    ``archive`` asks for no signatures: a backup whose signing key is not at hand must not go any sooner.
    """

    archive: Archive
    going: Mapping[str, Deletion]
    terms: Mapping[str, Term]
    now: datetime
    reporter: Reporter

    def threats(self) -> Iterator[Threat]:
        """What would be lost."""
        if not self.going:
            return
        places = list_places(self.archive.store, self.archive.source)
        for need in ordered_map(self._need, places, workers=_WORKERS):
            if need is not None:
                yield from threatened([self.going[key] for key in need.keys], [need], self.now)

    def _need(self, listed: Listed) -> Need | None:
        """A copy that is promised, with those of its keys that are going; None for one that is not, or is damaged."""
        place = listed.place
        try:
            backup = self.archive.load(place)
        except NotFoundError:
            return None
        except IntegrityError as error:
            if place.manifest not in self.going:
                self._tell(place, error)
            return None
        promise, _ = promise_of(self.archive.store, listed, backup.manifest)
        if promise is not None and promise <= self.now:
            return None
        own = (place.manifest, place.signature, place.terms, place.contents, place.objects, place.placement)
        keys = {key for key in own if key in self.going} | self._objects(backup)
        return Need(place.backup, place.source, place.retention_class, promise, dict.fromkeys(sorted(keys)))

    def _objects(self, backup: Backup) -> set[str]:
        """Which objects that are going a backup refers to; where its placement is damaged, all that it may refer to."""
        try:
            return {key for key in self.archive.placement(backup).values() if key in self.going}
        except (IntegrityError, NotFoundError) as error:
            self.reporter.warn(f"{backup.place.placement} cannot be read: {error.message}")
        try:
            identifiers = self.archive.objects(backup).keys()
        except (IntegrityError, NotFoundError) as error:
            self._tell(backup.place, error)
            return set()
        places = ((key, parse_object_key(key)) for key in self.going)
        return {
            key
            for key, place in places
            if place is not None and place.object_id in identifiers and self._lends(place.retention_class, backup.place)
        }

    def _lends(self, name: str, place: BackupPlace) -> bool:
        """Whether ``name`` keeps at least as long as the class of ``place``, so that a copy there may refer to it."""
        own, lender = self.terms.get(place.retention_class), self.terms.get(name)
        return own is None or lender is None or lender.outlasts(own)

    def _tell(self, place: BackupPlace, error: ArchiverError) -> None:
        self.reporter.warn(f"what {place.manifest} needs cannot be told, and goes by its age alone: {error.message}")


def _refusal(threats: Sequence[Threat]) -> IntegrityError:
    """What would be lost, and what may have led to it."""
    by_copy = {(threat.need.backup, threat.need.retention_class): threat for threat in threats}
    told = [
        f"{backup} in {name} is promised {_until(threat.need.promise)} and needs {threat.key}, {threat.reason}"
        for (backup, name), threat in list(by_copy.items())[:_TOLD]
    ]
    more = f"; and {len(by_copy) - _TOLD} more" if len(by_copy) > _TOLD else ""
    return IntegrityError(
        f"nothing was deleted, because promises would be broken: {'; '.join(told)}{more}",
        hint="Give these classes their longer keep and lease back until the promises are over; archiver list --all "
        "tells of backups that somebody else made.",
    )


def _until(promise: datetime | None) -> str:
    return "for ever" if promise is None else f"until {promise:%Y-%m-%d}"
