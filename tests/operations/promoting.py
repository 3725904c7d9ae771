"""What the tests of promotion, hold and release share: a store that fails on purpose, and what must be true of it."""

from collections.abc import Iterable, Iterator
from datetime import timedelta

from blake3 import blake3
from msgspec.structs import replace

from archiver.buffers import Buffer
from archiver.catalog.names import BackupPlace, parse_object_key
from archiver.catalog.records import Extent, FileRecord, ObjectRecord
from archiver.config import ARCHIVE_CLASSES, DEFAULT_CLASSES, RetentionClass
from archiver.errors import StorageError
from archiver.operations.archive import Archive
from archiver.operations.copy_site import CopySite
from archiver.operations.verify import verify
from archiver.progress import Silent
from archiver.retention.policy import Term, in_force
from archiver.stores.base import Availability, StoredObject
from tests.operations.archives import SOURCE, CountingStore, Site

DAY = timedelta(days=1)
WEEKLY = RetentionClass(keep=70, lease=14, every="week")
YEARLY = RetentionClass(keep=1500, lease=60, every="year")
BACKUP = "20261122T020000Z-3f9c2a"


class TrialStore(CountingStore):
    """Fails at a chosen write, before it or with its answer lost; and some keys may be archived."""

    def __init__(self) -> None:
        super().__init__()
        self.fail_at: int | None = None
        """Which of the writes and deletions from now on fails."""
        self.answer_lost = False
        """Whether it takes place all the same."""
        self.written: list[str] = []
        self.unlocked: list[str] = []
        self.storage_classes: dict[str, str] = {}
        """By key."""
        self.thawed: set[str] = set()

    def create(self, key: str, body: Iterable[Buffer]) -> StoredObject:
        data = b"".join(body)
        self._before(key)
        stored = super().create(key, [data])
        self._after(key)
        return stored

    def copy(self, source: str, key: str) -> StoredObject:
        if self.availability(source) != "ready":
            raise StorageError(f"{source} is archived")
        return super().copy(source, key)

    def delete(self, key: str) -> None:
        self._before(key)
        super().delete(key)
        self._after(key)

    def unlock(self, key: str) -> None:
        super().stat(key)
        self.unlocked.append(key)

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        return (replace(item, storage_class=self.storage_classes.get(item.key)) for item in super().list(prefix))

    def availability(self, key: str) -> Availability:
        self.stat(key)
        archived = self.storage_classes.get(key) in ARCHIVE_CLASSES
        return "archived" if archived and key not in self.thawed else "ready"

    @property
    def keys(self) -> set[str]:
        return set(self._objects)

    def in_class(self, name: str) -> set[str]:
        return {key for key in self._objects if key.startswith(f"{name}/")}

    def expire(self, *prefixes: str) -> None:
        """Take away what begins with one of ``prefixes``."""
        for key in [key for key in self._objects if key.startswith(prefixes)]:
            self.remove(key)

    def _before(self, key: str) -> None:
        with self._counting:
            self.written.append(key)
            fails = self.fail_at == len(self.written)
        if fails and not self.answer_lost:
            raise StorageError(f"{key}: the store failed on purpose")

    def _after(self, key: str) -> None:
        if self.answer_lost and self.fail_at is not None and self.written.index(key) + 1 == self.fail_at:
            raise StorageError(f"{key}: the answer was lost on purpose")


def trial_site() -> Site:
    return Site(store=TrialStore())


def trial_store(site: Site) -> TrialStore:
    assert isinstance(site.store, TrialStore)
    return site.store


def commit(site: Site, backup: str = BACKUP, *, objects: int = 3, before: BackupPlace | None = None) -> BackupPlace:
    """A backup in ``daily`` of as many objects, each a file."""
    records = [site.put_object(f"{backup} {number}".encode() * 500) for number in range(objects)]
    contents = [_file(number, record, f"{backup} {number}".encode() * 500) for number, record in enumerate(records)]
    if before is None:
        return site.commit(backup, objects=records, contents=contents)
    return site.follow(before, backup, objects=records, contents=contents)


def _file(number: int, record: ObjectRecord, data: bytes) -> FileRecord:
    return FileRecord(
        path=f"{number:04}",
        mode=0o644,
        mtime_ns=0,
        uid=0,
        gid=0,
        size=len(data),
        blake3=blake3(data).hexdigest(),
        extents=[Extent(offset=0, length=len(data), object=record.id, object_offset=0)],
    )


def terms_of(**classes: RetentionClass) -> dict[str, Term]:
    """What is in force with the default classes and these."""
    return in_force({**DEFAULT_CLASSES, **classes}, None)


def copy_site(site: Site, **classes: RetentionClass) -> CopySite:
    return CopySite(site.archive(), terms_of(**classes), terms_of(**classes))


def check_whole(archive: Archive, place: BackupPlace) -> None:
    """The copy at ``place`` can be restored, and says where it lies."""
    found = archive.find(f"{place.retention_class}/{place.backup}")
    assert found.place == place
    verify(archive, found, "data", Silent())


def objects_in(site: Site, name: str) -> list[str]:
    """The keys of objects in a class."""
    return sorted(key for key in trial_store(site).in_class(name) if parse_object_key(key) is not None)


def place(name: str, backup: str = BACKUP) -> BackupPlace:
    return BackupPlace(name, SOURCE, backup)
