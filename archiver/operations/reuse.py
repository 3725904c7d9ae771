"""Objects of earlier backups that a new one may use: which ones, at which key, and the copies that this takes."""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from datetime import datetime
from types import TracebackType
from typing import Self

import msgspec
from msgspec import structs

from archiver.catalog.names import BackupPlace, data_prefix, is_class, new_copy, object_key, parse_object_key
from archiver.catalog.records import Extent, ObjectRecord
from archiver.crypto.recipients import vault_id
from archiver.errors import AlreadyExistsError, ArchiverError, IntegrityError, NotFoundError, RefusedError
from archiver.operations.backup_request import BackupRequest
from archiver.operations.chain import TOLERANCE
from archiver.operations.commit_check import promise_of
from archiver.operations.needs import destination_rules
from archiver.operations.remembered import Memory, RememberedFile, RememberedObject, with_key
from archiver.parallel import ordered_map
from archiver.progress import Reporter
from archiver.retention.policy import Term, in_force
from archiver.retention.references import Reference, choose
from archiver.stores.base import Store, StoredObject

_COPIES = 8
"""Objects copied at a time."""
_TAR_HEADERS, _TAR_BLOCK = 1536, 512
"""Bytes that a file takes in a pack beside its content, and what its content is filled up to."""
_Listed = Mapping[str, list[tuple[StoredObject, str]]]
"""By object id the keys that the store lists and that are believed, each with its class."""


class Usable(msgspec.Struct, frozen=True):
    """An object that a backup may refer to, and the key to name for it."""

    record: ObjectRecord
    key: str


class Reuse:
    """A context manager around the uploads of a backup at ``place``.

    ``prepare`` decides what may be used. What the backup uses or stores is told to ``keep``. When the block ends
    without an error after ``finish``, objects that no file needs any more are forgotten. About 2 KB of memory for each
    object that is remembered.
    """

    def __init__(self, store: Store, place: BackupPlace, request: BackupRequest, reporter: Reporter) -> None:
        self._store = store
        self._place = place
        self._request = request
        self._reporter = reporter
        self._resources = ExitStack()
        self._usable: dict[str, Usable] = {}
        self._known: dict[str, RememberedObject] = {}
        self._alive: dict[str, int] = {}
        self._finished = False
        self.memory = Memory(request.state_directory, store.url, reporter)
        self.terms: Mapping[str, Term] | None = None
        """Those in force when it was decided what may be used, if anything is remembered at all."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._resources:
            if kind is None and self._finished:
                self._forget_the_dead()

    def prepare(self, started: datetime) -> None:
        """Decide what the backup that began at ``started`` may use, and copy within the store what would end too soon.

        An object may be used when this host remembers it and was not told of damage in it, it is sealed to the vault in
        use, enough of it is alive, and ``retention.references.choose`` finds a key among those that are listed and
        believed. One that cannot be copied is not used: its files are read.
        """
        self._resources.enter_context(self.memory)
        self.memory.forget_damaged()
        remembered = self.memory.objects()
        if not remembered:
            return
        self.terms = in_force(self._request.classes, destination_rules(self._store))
        listed, taken = self._list(remembered)
        for name, item in remembered.items():
            keys = {stored.key for stored, _ in listed[name]}
            self._known[name] = structs.replace(item, keys=[known for known in item.keys if known.key in keys])
        vault = vault_id(str(self._request.vault))
        promise = promise_of(started, self.terms[self._place.retention_class])
        copies: list[tuple[str, Reference]] = []
        for name, item in self._known.items():
            if not listed[name] or item.vault != vault or is_mostly_dead(item):
                continue
            reference = choose(listed[name], self.terms[self._place.retention_class], promise, self.terms)
            if reference.action == "use":
                self._usable[name] = Usable(item.record(name), reference.key)
            elif reference.action == "copy":
                copies.append((name, reference))
        self._renew(copies, taken)

    def find(self, file: RememberedFile) -> list[Usable] | None:
        """The objects that ``file`` lies in, each once; None where one of them may not be used."""
        found = {}
        for place in file.places:
            usable = self._usable.get(place.object.hex())
            if usable is None:
                return None
            found[usable.record.id] = usable
        return list(found.values())

    def keep(self, extents: Iterable[Extent]) -> None:
        """These parts of objects belong to a file of this backup."""
        for extent in extents:
            self._alive[extent.object] = self._alive.get(extent.object, 0) + _room(extent.length)

    def finish(self) -> None:
        """All of the media has been told of."""
        self._finished = True

    def _list(self, remembered: Mapping[str, RememberedObject]) -> tuple[_Listed, set[str]]:
        """Where the objects lie, as far as that is believed; and every key of them in the backup's own class.

        A key is believed when this host created or proved it, and what is listed has the right size and is not younger.
        Once it has expired, whoever may create keys can create it again.
        """
        listed: dict[str, list[tuple[StoredObject, str]]] = {name: [] for name in remembered}
        taken: set[str] = set()
        for retention_class in filter(is_class, self._store.list_names()):
            for stored in self._store.list(data_prefix(retention_class, self._place.source)):
                place = parse_object_key(stored.key)
                item = None if place is None else remembered.get(place.object_id)
                if place is None or item is None:
                    continue
                if retention_class == self._place.retention_class:
                    taken.add(stored.key)
                if is_believed(stored, item):
                    listed[place.object_id].append((stored, retention_class))
        return listed, taken

    def _renew(self, copies: list[tuple[str, Reference]], taken: set[str]) -> None:
        """Copy what does not last until the end of the promise, several at a time."""
        if not copies:
            return
        size = sum(self._known[name].stored_size for name, _ in copies)
        self._reporter.phase("copy within the store", size)

        def copy(task: tuple[str, Reference]) -> tuple[str, StoredObject | ArchiverError]:
            name, reference = task
            try:
                return name, self._copy(self._known[name].record(name), reference.key, taken)
            except (NotFoundError, RefusedError, IntegrityError) as error:
                return name, error

        for name, copied in ordered_map(copy, copies, workers=_COPIES):
            item = self._known[name]
            if isinstance(copied, ArchiverError):
                self._reporter.event("read again", object=name, reason=copied.message)
                continue
            self._known[name] = with_key(item, copied.key, copied.modified)
            self.memory.put_objects([(name, self._known[name])])
            self._usable[name] = Usable(item.record(name), copied.key)
            self._reporter.advance(item.stored_size)

    def _copy(self, record: ObjectRecord, source: str, taken: set[str]) -> StoredObject:
        def key(copy: str) -> str:
            return object_key(self._place.retention_class, self._place.source, record.id, record.kind, copy)

        try:
            copied = self._store.copy(source, key(new_copy() if key("") in taken else ""))
        except AlreadyExistsError:
            copied = self._store.copy(source, key(new_copy()))
        if copied.size != record.stored_size:
            raise IntegrityError(f"{copied.key}: expected {record.stored_size} bytes, got {copied.size}")
        return copied

    def _forget_the_dead(self) -> None:
        changes: list[tuple[str, RememberedObject | None]] = []
        for name, item in self.memory.objects().items():
            alive = self._alive.get(name, 0)
            current = structs.replace(self._known.get(name, item), alive=alive)
            if not alive:
                changes.append((name, None))
            elif current != item:
                changes.append((name, current))
        self.memory.put_objects(changes)


def is_believed(stored: StoredObject, item: RememberedObject) -> bool:
    """Whether what the store lists can only be what this host created or proved there."""
    return stored.size == item.stored_size and any(
        known.key == stored.key and stored.modified <= known.since + TOLERANCE for known in item.keys
    )


def is_mostly_dead(item: RememberedObject) -> bool:
    """Whether less than half of a pack belonged to files of the last run: to read these again and to pack them anew
    costs less than to keep the rest."""
    return item.kind == "tar" and 2 * item.alive < item.plaintext_size


def _room(length: int) -> int:
    """About what a file of ``length`` bytes takes in a pack; of other objects only whether it is more than nothing
    matters."""
    return _TAR_HEADERS - -length // _TAR_BLOCK * _TAR_BLOCK
