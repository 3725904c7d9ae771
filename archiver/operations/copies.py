"""Which copy of a backup to read objects from: one may be damaged, past its promise or archived, and another whole."""

import shlex
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from msgspec.structs import replace

from archiver.catalog.names import BackupPlace
from archiver.errors import ArchiverError, IntegrityError, NoIdentityError, NotFoundError, RefusedError
from archiver.operations.archive import Archive
from archiver.operations.history import Backup
from archiver.operations.thaw import Archived, total, unreadable
from archiver.stores.base import StoredObject


def whole_copy(archive: Archive, backup: Backup, wanted: Collection[str] | None = None) -> Backup:
    """``backup`` at the place to read from, as ``easiest_copy`` has it; None stands for all objects. One that lies in
    one place is taken as it is, without a request."""
    return backup if len(backup.places) == 1 else easiest_copy(archive, backup, wanted)[0]


def easiest_copy(
    archive: Archive, backup: Backup, wanted: Collection[str] | None = None
) -> tuple[Backup, list[Archived]]:
    """``backup`` at the place to read the objects with the ids ``wanted`` from (None: all), and what of them cannot be
    read now, in the order of keys.

    Of several places it is one at which LIST shows each of these objects in its size: anybody may create keys, and
    rules may have taken some. One that can be read now comes before one of which something must be thawed, one that
    is promised before one that is not any more, less to thaw before more, and then the oldest. What was found
    damaged is added to the backup's doubts. Raises ``IntegrityError`` where several places are left and none is whole.

    Each place that is looked at costs its objects list, its placement, one LIST of each prefix that the objects lie
    in, and one request for each object in an archive class. Where there is one place only its objects list is not
    read, and what is not listed is left for the fetch to miss, which says what that means.

    Memory: about 1 KB for each object of the backup, whatever else the store holds.
    """
    if wanted is not None and not wanted:
        return backup, []
    if len(backup.places) == 1:
        placement = archive.placement(backup)
        names = placement.keys() if wanted is None else wanted
        return backup, unreadable(archive.store, _stored(archive, placement, names).values())
    found: list[tuple[tuple[bool, bool, int], Backup, list[Archived]]] = []
    damage: list[tuple[str, ArchiverError]] = []
    for copy, is_promised in _in_order(archive, backup):
        try:
            stored = _whole(archive, copy, wanted)
        except (IntegrityError, NotFoundError, RefusedError) as error:
            damage.append((copy.place.retention_class, error))
            continue
        archived = unreadable(archive.store, stored.values())
        found.append(((bool(archived), not is_promised, total(archived)), copy, archived))
        if not archived:
            break
    if not found:
        raise _none_whole(backup, damage)
    _, chosen, archived = min(found, key=lambda copy: copy[0])
    doubts = [
        f"the copy in {name} {_verdict(error)} ({error.message}): reading the one in {chosen.place.retention_class}"
        for name, error in damage
    ]
    return replace(chosen, irregular=(*chosen.irregular, *doubts)), archived


@contextmanager
def naming_copies(backup: Backup, command: str, *options: str) -> Iterator[None]:
    """Whatever the block finds wrong with the copy that ``backup`` is read from, say how to read the others: by
    ``command``, which has the backup as its first argument and ``options`` after it."""
    try:
        yield
    except NoIdentityError:
        raise
    except IntegrityError as error:
        others = [place for place in backup.places if place != backup.place]
        advice = [f"{_command(command, place, options)} reads the copy in {place.retention_class}." for place in others]
        error.hint = " ".join([*advice, *([error.hint] if error.hint else [])]) or None
        raise


def _command(command: str, place: BackupPlace, options: Sequence[str]) -> str:
    return shlex.join(["archiver", command, f"{place.retention_class}/{place.backup}", *options])


def _in_order(archive: Archive, backup: Backup) -> Iterator[tuple[Backup, bool]]:
    """``backup`` at each of its places, those that are promised first, and whether it is."""
    now = archive.store.clock()
    lapsed = []
    for place in backup.places:
        promise = backup.promises[place.retention_class]
        if promise is None or promise > now:
            yield replace(backup, place=place), True
        else:
            lapsed.append(replace(backup, place=place))
    for copy in lapsed:
        yield copy, False


def _whole(archive: Archive, copy: Backup, wanted: Collection[str] | None) -> dict[str, StoredObject]:
    """What is listed of the objects ``wanted``, by their ids; raises what is wrong with any of them.

    An id that the objects list does not have is for the reader of what names it to complain of.
    """
    records, placement = archive.objects(copy), archive.placement(copy)
    names = records.keys() if wanted is None else [name for name in wanted if name in records]
    stored = _stored(archive, placement, names)
    for name in names:
        if name not in placement:
            raise IntegrityError(f"{copy.place.placement} does not say where {name} lies")
        if name not in stored:
            raise IntegrityError(f"{placement[name]} is missing")
        size, expected = stored[name].size, records[name].stored_size
        if size != expected:
            raise IntegrityError(f"{placement[name]} has {size} bytes, expected {expected}")
    return stored


def _stored(archive: Archive, placement: dict[str, str], wanted: Collection[str]) -> dict[str, StoredObject]:
    """What the store lists of the objects ``wanted``, by their ids."""
    names = {placement[name]: name for name in wanted if name in placement}
    prefixes = sorted({key.rpartition("/")[0] + "/" for key in names})
    return {names[item.key]: item for prefix in prefixes for item in archive.store.list(prefix) if item.key in names}


def _verdict(error: ArchiverError) -> str:
    return "cannot be read" if isinstance(error, RefusedError) else "is damaged"


def _none_whole(backup: Backup, damage: list[tuple[str, ArchiverError]]) -> ArchiverError:
    if all(isinstance(error, RefusedError) for _, error in damage):
        return damage[0][1]
    problems = "; ".join(f"in {name}: {error.message}" for name, error in damage)
    return IntegrityError(
        f"none of the {len(damage)} copies of {backup.manifest.backup} is whole: {problems}",
        hint="Restore another backup, or with --only what is whole of this one.",
    )
