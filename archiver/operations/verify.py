"""``archiver verify``: is a backup what it was? Three levels, each including the one before.

``storage`` needs no secret: manifest and signature, the lists' hashes, and that every object is there with its size.
``data`` reads all of it: ciphertext hashes, decryption, decompression, and the hash of every file and environment.
``restore`` also puts every environment together in a temporary directory and checks its structure and entry counts.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec

from archiver.catalog.records import EnvironmentRecord, FileRecord, ObjectRecord
from archiver.errors import ArchiverError, IntegrityError, NotFoundError, RefusedError, StorageError, UsageError
from archiver.operations.access import Access, nearby_config
from archiver.operations.archive import Archive
from archiver.operations.assembly import Assembly
from archiver.operations.damage_notes import note_damage
from archiver.operations.history import Backup
from archiver.operations.needs import check_vaults
from archiver.operations.paths import item_path
from archiver.operations.remembered import memory_directory
from archiver.progress import Reporter
from archiver.sinks.environment import EnvironmentSink
from archiver.sinks.hashing import HashedFile
from archiver.stores.base import Store
from archiver.stores.destination import parse_destination

Level = Literal["storage", "data", "restore"]


class Verified(msgspec.Struct, frozen=True):
    """What was proven of one backup; sizes are stored bytes."""

    backup: Backup
    level: Level
    objects: int
    stored_bytes: int
    environments: int | None = None
    """None where they were not looked into."""
    files: int | None = None


def memory_of(access: Access) -> Path | None:
    """What this host remembers of the media that ``access`` is about, where it backs them up itself."""
    config = access.config
    # The card is enough: a configuration that cannot be read must not be in the way of a verification.
    with suppress(UsageError):
        config = config or nearby_config(access.destination, access.source)
    # What nobody signed may call anything damaged.
    if config is None or access.trusted is None:
        return None
    url = parse_destination(config.destination, config.destination_options).display
    path = memory_directory(config.state_directory / access.source, url)
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        # It may be there: that it cannot be told of damage is for the operator to know.
        return path
    return path


def verify(
    archive: Archive,
    backup: Backup,
    level: Level,
    reporter: Reporter,
    *,
    directory: Path | None = None,
    memory: Path | None = None,
) -> Verified:
    """Prove ``backup`` up to ``level``; raises ``IntegrityError`` for the first thing that is wrong.

    ``directory`` is where level ``restore`` puts environments together, one at a time; default: the system's
    directory for temporary files. With ``memory``, of which see ``memory_of``, all objects of media are looked at
    before the error is raised, so that one run tells it of each that is damaged; of those that are missing or have
    another size a backup sees by itself.
    """
    try:
        objects = archive.objects(backup)
        placement = archive.placement(backup)
        archive.prove_contents(backup)
        check_vaults(archive, backup)
        stored = _check_storage(archive.store, backup, objects, placement, remembers=memory is not None)
        if level == "storage":
            return Verified(backup, level, len(objects), stored)
        check = _Check(archive, backup, objects, placement, reporter)
        reporter.phase(f"verify {backup.manifest.backup}", stored)
        try:
            environments, files = check.run(directory if level == "restore" else None, structure=level == "restore")
        except IntegrityError as error:
            if memory is not None:
                _tell(memory, check.damaged(), error)
            raise
    except NotFoundError as error:
        raise IntegrityError(error.message, hint=error.hint) from error
    return Verified(backup, level, len(objects), stored, environments, files)


def _check_storage(
    store: Store,
    backup: Backup,
    objects: dict[str, ObjectRecord],
    placement: dict[str, str],
    *,
    remembers: bool,
) -> int:
    """Every object is there with its size, by LIST; returns the sum of their sizes."""
    expected = {}
    for record in objects.values():
        if record.id not in placement:
            raise IntegrityError(f"the placement of {backup.manifest.backup} does not say where {record.id} lies")
        expected[placement[record.id]] = record.stored_size
    manifest, place = backup.manifest, backup.place
    expected[place.contents] = manifest.contents.stored_size
    expected[place.objects] = manifest.objects.stored_size
    sizes: dict[str, int] = {}
    for prefix in {key.rpartition("/")[0] + "/" for key in expected}:
        sizes |= {item.key: item.size for item in store.list(prefix) if item.key in expected}
    wrong = [key for key, size in expected.items() if sizes.get(key) != size]
    if wrong:
        media = {placement[record.id] for record in objects.values() if record.kind != "mdb"}
        anew = len(media.intersection(wrong)) if remembers else 0
        raise _not_there(store, wrong, expected, sizes, anew)
    return sum(expected.values())


def _not_there(
    store: Store, wrong: Sequence[str], expected: Mapping[str, int], sizes: Mapping[str, int], anew: int
) -> IntegrityError:
    """``wrong`` are the keys that are missing or have another size; ``anew`` of them the next backup makes good."""
    key = wrong[0]
    if key in sizes:
        message = f"{key} has {sizes[key]} bytes, expected {expected[key]}"
    else:
        message = f"{key} is missing from {store.url}"
    if len(wrong) > 1:
        message += f"; {len(wrong):,} objects are missing or have another size"
    hint = "Restore another backup, or this one from another copy."
    return IntegrityError(message, hint=f"{hint} {_run_backup(anew)}" if anew else hint)


def _tell(memory: Path, damaged: Sequence[str], error: IntegrityError) -> None:
    """Tell ``memory`` of the keys that are ``damaged``, and the operator, by ``error``, what comes of that."""
    if not damaged:
        return
    if len(damaged) > 1:
        error.message += f"; {len(damaged):,} objects of media are damaged"
    try:
        note_damage(memory, damaged)
        advice = _run_backup(len(damaged))
    except OSError as refused:
        reason = (refused.strerror or str(refused)).lower()
        advice = f"Later backups refer to the damage, which cannot be noted: {reason}. Delete {memory}, and the next "
        advice += "one stores all media anew."
    error.hint = f"{error.hint} {advice}" if error.hint else advice


def _run_backup(count: int) -> str:
    return f"Run archiver backup: it stores anew what it needs of {count:,} object{'s' if count > 1 else ''}."


class _Check:
    """Reads one backup as a restore does, into hashes."""

    def __init__(
        self,
        archive: Archive,
        backup: Backup,
        objects: dict[str, ObjectRecord],
        placement: dict[str, str],
        reporter: Reporter,
    ) -> None:
        self._archive = archive
        self._backup = backup
        self._objects = objects
        self._placement = placement
        self._reporter = reporter
        self._assembly = Assembly(archive, backup, objects, placement, reporter.advance, whole=True)
        self._read: set[str] = set()
        self._suspected: set[str] = set()

    def run(self, directory: Path | None, *, structure: bool) -> tuple[int, int]:
        """Check every environment and file; returns how many there were."""
        environments = files = 0
        for record in self._archive.contents(self._backup):
            if isinstance(record, EnvironmentRecord):
                environments += 1
                self._environment(record, directory, structure=structure)
            elif isinstance(record, FileRecord):
                files += 1
                self._note(record)
                self._assembly.add(record.extents, partial(self._hashed, record))
        self._assembly.flush()
        self._check_rest()
        return environments, files

    def damaged(self) -> list[str]:
        """The keys of all objects of media that are damaged, after ``run`` has ended with an error: reads those that it
        has not proven. Those of a file that is not what it was, though they are sound, are among them."""
        openable = set()
        for vault in self._backup.manifest.vaults:
            with suppress(ArchiverError):
                self._archive.unlock(vault)
                openable.add(vault.id)
        known = self._assembly.fetched | self._suspected
        rest = [
            record
            for record in self._objects.values()
            if record.kind != "mdb" and record.id not in known and record.vault in openable
        ]
        if rest:
            self._reporter.phase("look for more damage", sum(record.stored_size for record in rest))
        found = set(self._suspected)
        for record in rest:
            try:
                if self._is_damaged(record):
                    found.add(record.id)
            except RefusedError:
                continue
            except StorageError:
                break
        return sorted(self._placement[name] for name in found)

    def _is_damaged(self, record: ObjectRecord) -> bool:
        reader = self._archive.reader(self._backup, record, self._placement)
        try:
            for _ in reader.read(None, record.blake3, self._reporter.advance):
                pass
        except IntegrityError as error:
            self._reporter.event("damaged", object=record.id, reason=error.message)
            return True
        return False

    def _environment(self, record: EnvironmentRecord, directory: Path | None, *, structure: bool) -> None:
        self._note(record)
        if not structure:
            self._assembly.add(record.extents, partial(self._hashed, record))
            self._assembly.flush()
            return
        with tempfile.TemporaryDirectory(prefix=".archiver-verify-", dir=directory) as temporary:
            self._assembly.add(record.extents, partial(_rebuilt, Path(temporary), record))
            self._assembly.flush()

    def _note(self, record: EnvironmentRecord | FileRecord) -> None:
        self._read.update(extent.object for extent in record.extents)

    def _check_rest(self) -> None:
        """Objects that no file needs, such as a pack of files that were all empty, must be sound as well."""
        for object_id in self._objects.keys() - self._read:
            record = self._objects[object_id]
            for _ in self._archive.reader(self._backup, record, self._placement).read(None, record.blake3):
                pass

    @contextmanager
    def _hashed(self, record: EnvironmentRecord | FileRecord) -> Iterator[tuple[HashedFile, Callable[[], object]]]:
        with HashedFile(item_path(record), record.size) as file:
            yield file, partial(self._prove, file, record)

    def _prove(self, file: HashedFile, record: EnvironmentRecord | FileRecord) -> None:
        try:
            file.finish(record.blake3)
        except IntegrityError:
            if isinstance(record, FileRecord):
                self._suspected.update(extent.object for extent in record.extents)
            raise


@contextmanager
def _rebuilt(directory: Path, record: EnvironmentRecord) -> Iterator[tuple[EnvironmentSink, Callable[[], object]]]:
    with EnvironmentSink(directory, record) as sink:
        yield sink, partial(sink.finish, thorough=True)
