"""``archiver verify``: is a backup what it was? Three levels, each including the one before.

``storage`` needs no secret: manifest and signature, the lists' hashes, and that every object is there with its size.
``data`` reads all of it: ciphertext hashes, decryption, decompression, and the hash of every file and environment.
``restore`` also puts every environment together in a temporary directory and checks its structure and entry counts.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec

from archiver.catalog.records import EnvironmentRecord, FileRecord, ObjectRecord
from archiver.errors import IntegrityError, NotFoundError
from archiver.operations.archive import Archive
from archiver.operations.assembly import Assembly
from archiver.operations.history import Backup
from archiver.operations.needs import check_vaults
from archiver.operations.paths import item_path
from archiver.progress import Reporter
from archiver.sinks.environment import EnvironmentSink
from archiver.sinks.hashing import HashedFile
from archiver.stores.base import Store

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


def verify(
    archive: Archive, backup: Backup, level: Level, reporter: Reporter, *, directory: Path | None = None
) -> Verified:
    """Prove ``backup`` up to ``level``; raises ``IntegrityError`` for the first thing that is wrong.

    ``directory`` is where level ``restore`` puts environments together, one at a time; default: the system's
    directory for temporary files.
    """
    try:
        objects = archive.objects(backup)
        placement = archive.placement(backup)
        archive.prove_contents(backup)
        check_vaults(archive, backup)
        stored = _check_storage(archive.store, backup, objects, placement)
        if level == "storage":
            return Verified(backup, level, len(objects), stored)
        check = _Check(archive, backup, objects, placement, reporter)
        reporter.phase(f"verify {backup.manifest.backup}", stored)
        environments, files = check.run(directory if level == "restore" else None, structure=level == "restore")
    except NotFoundError as error:
        raise IntegrityError(error.message, hint=error.hint) from error
    return Verified(backup, level, len(objects), stored, environments, files)


def _check_storage(store: Store, backup: Backup, objects: dict[str, ObjectRecord], placement: dict[str, str]) -> int:
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
    for key, size in expected.items():
        if key not in sizes:
            raise IntegrityError(
                f"{key} is missing from {store.url}", hint="Restore another backup, or this one from another copy."
            )
        if sizes[key] != size:
            raise IntegrityError(f"{key} has {sizes[key]} bytes, expected {size}")
    return sum(expected.values())


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
        self._assembly = Assembly(archive, backup, objects, placement, reporter.advance, whole=True)
        self._read: set[str] = set()

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
                self._assembly.add(record.extents, partial(_hashed, record))
        self._assembly.flush()
        self._check_rest()
        return environments, files

    def _environment(self, record: EnvironmentRecord, directory: Path | None, *, structure: bool) -> None:
        self._note(record)
        if not structure:
            self._assembly.add(record.extents, partial(_hashed, record))
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
def _hashed(record: EnvironmentRecord | FileRecord) -> Iterator[tuple[HashedFile, Callable[[], object]]]:
    with HashedFile(item_path(record), record.size) as file:
        yield file, partial(file.finish, record.blake3)


@contextmanager
def _rebuilt(directory: Path, record: EnvironmentRecord) -> Iterator[tuple[EnvironmentSink, Callable[[], object]]]:
    with EnvironmentSink(directory, record) as sink:
        yield sink, partial(sink.finish, thorough=True)
