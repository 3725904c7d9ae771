"""What this host remembers of a source's media at one destination: which files were as they are, and where they lie.

It is a cache. Lost, damaged or not writable it costs a backup that reads everything, and a warning. It is private:
paths and hashes of files stand in it, so it stays in the state directory.
"""

import hashlib
import threading
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated, Self

import msgspec
from msgspec import Meta, structs

from archiver.catalog.names import parse_object_key
from archiver.catalog.records import Count, Extent, ObjectKind, ObjectRecord, VaultId, check_extents
from archiver.environment.state import LONGEST_KEY, Change, State, StateError, remove_state
from archiver.errors import FormatError
from archiver.operations.damage_notes import damage_notes, note_of
from archiver.progress import Reporter
from archiver.sources.entries import FileEntry
from archiver.stores.base import StoredObject

_VERSION = 1
_FILES, _OBJECTS = "files", "objects"
_RACY = 2_000_000_000
"""Nanoseconds. A file that was changed so shortly before it was read may be changed again without its times showing it:
file systems tell no finer than 4 ms, or 2 s."""
_NEVER = 0
"""In place of the time of a change: the file must be read, and only its content can show that it is what it was."""
_Bytes16 = Annotated[bytes, Meta(min_length=16, max_length=16)]
_Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]


class _Extent(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    offset: Count
    length: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    object: _Bytes16
    object_offset: Count


class RememberedFile(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A file as it was when it was last read, and where its content lies."""

    size: Count
    mtime_ns: int
    ctime_ns: int
    inode: int
    hash: _Bytes32
    places: list[_Extent]
    missed: bool = False
    """The last run that got to the end did not see it. The next one forgets it: so a volume that was not mounted for a
    night costs nothing."""

    @property
    def extents(self) -> list[Extent]:
        return [
            Extent(offset=item.offset, length=item.length, object=item.object.hex(), object_offset=item.object_offset)
            for item in self.places
        ]

    @property
    def blake3(self) -> str:
        return self.hash.hex()

    def matches(self, entry: FileEntry) -> bool:
        """Whether nothing shows that ``entry`` has changed since."""
        return self.ctime_ns != _NEVER and (self.size, self.mtime_ns, self.ctime_ns, self.inode) == (
            entry.size,
            entry.attributes.mtime_ns,
            entry.ctime_ns,
            entry.identity[1],
        )


class RememberedKey(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A key that this host created or proved."""

    key: str
    since: Annotated[datetime, Meta(tz=True)]
    """Since when it knows it, by the store's clock."""


class RememberedObject(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An object of media that is in the store."""

    kind: ObjectKind
    stored_size: Count
    plaintext_size: Count
    hash: _Bytes32
    vault: VaultId
    alive: Count
    """How much of its plaintext, in bytes, belonged to files of the last run that got to the end."""
    keys: list[RememberedKey]

    def record(self, name: str) -> ObjectRecord:
        """Its line in an objects list; ``name`` is its id."""
        return ObjectRecord(
            id=name,
            kind=self.kind,
            stored_size=self.stored_size,
            plaintext_size=self.plaintext_size,
            blake3=self.hash.hex(),
            vault=self.vault,
        )


_FILE: msgspec.msgpack.Decoder[RememberedFile] = msgspec.msgpack.Decoder(RememberedFile)
_OBJECT: msgspec.msgpack.Decoder[RememberedObject] = msgspec.msgpack.Decoder(RememberedObject)
_ENCODER = msgspec.msgpack.Encoder()


class Memory:
    """A context manager; opened only by the run that holds the lock of the source, whose state ``directory`` is.

    Trouble with it is told once, and from then on nothing is known and nothing remembered: no run fails for it.
    Methods may be called from any thread.
    """

    def __init__(self, directory: Path, url: str, reporter: Reporter) -> None:
        self._path = memory_directory(directory, url)
        self._stamp = f"archiver {_VERSION} {directory.name} {url}".encode()
        self._reporter = reporter
        self._state: State | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        try:
            self._state = self._open()
        except StateError as error:
            self._tell(error)
        return self

    def __exit__(self, *_: object) -> None:
        if self._state is not None:
            self._state.close()

    def files(self) -> Iterator[tuple[bytes, RememberedFile]]:
        """By path, in order of the paths' bytes."""
        for path, value in self._items(_FILES):
            try:
                file = _decoded_file(value)
            except (msgspec.MsgspecError, FormatError) as error:
                self._discard(self._nonsense(error))
                return
            yield path, file

    def objects(self) -> dict[str, RememberedObject]:
        """By id. About 1 KB of memory each."""
        found = {}
        for key, value in self._items(_OBJECTS):
            try:
                found[key.hex()] = _OBJECT.decode(value)
            except msgspec.MsgspecError as error:
                self._discard(self._nonsense(error))
                return {}
        return found

    def put_files(self, changes: Iterable[tuple[bytes, RememberedFile | None]]) -> None:
        """Remember files by path; None: forget. One whose object is not remembered is as good as forgotten."""
        self._write(
            Change(_FILES, path, None if file is None else _ENCODER.encode(file))
            for path, file in changes
            if len(path) <= LONGEST_KEY
        )

    def put_objects(self, changes: Iterable[tuple[str, RememberedObject | None]]) -> None:
        """Remember objects that are in the store, by id; None: forget."""
        self._write(
            Change(_OBJECTS, bytes.fromhex(name), None if item is None else _ENCODER.encode(item))
            for name, item in changes
        )

    def forget_damaged(self) -> None:
        """Forget the objects that ``note_damage`` was told of."""
        try:
            notes = [] if self._state is None else damage_notes(self._path)
        except OSError as error:
            self._give_up(StateError(f"cannot read {self._path}: {(error.strerror or str(error)).lower()}"))
            return
        if not notes:
            return
        names = {note.name for note in notes}
        damaged = [
            name for name, item in self.objects().items() if any(note_of(known.key) in names for known in item.keys)
        ]
        self.put_objects([(name, None) for name in damaged])
        if self._state is None:
            return
        for name in damaged:
            self._reporter.event("read again", object=name, reason="it was found damaged")
        for note in notes:
            # One that stays does no harm: what has its key is not remembered any more.
            with suppress(OSError):
                note.unlink()

    def stored(self, record: ObjectRecord, item: StoredObject) -> None:
        """An object is in the store. Environments are never the same twice: theirs are not remembered."""
        if record.kind != "mdb":
            self.put_objects([(record.id, _object(record, item))])

    def _open(self) -> State:
        try:
            return State(self._path, self._stamp, (_FILES, _OBJECTS))
        except StateError as error:
            self._reporter.warn(f"what was remembered of earlier backups cannot be used: {error.message}")
            remove_state(self._path)
            return State(self._path, self._stamp, (_FILES, _OBJECTS))

    def _items(self, name: str) -> Iterator[tuple[bytes, bytes]]:
        state = self._state
        try:
            if state is not None:
                yield from state.items(name)
        except StateError as error:
            # Where another thread has given up meanwhile, it is closed, not damaged.
            if self._state is not None:
                self._discard(error)

    def _write(self, changes: Iterable[Change]) -> None:
        state = self._state
        try:
            if state is not None:
                state.write(changes)
        except StateError as error:
            self._give_up(error)

    def _give_up(self, error: StateError) -> None:
        with self._lock:
            state, self._state = self._state, None
        if state is not None:
            state.close()
            self._tell(error)

    def _tell(self, error: StateError) -> None:
        self._reporter.warn(f"unchanged files cannot be remembered: {error.message}")

    def _nonsense(self, error: Exception) -> StateError:
        return StateError(f"{self._path} holds what no version writes: {error}")

    def _discard(self, error: StateError) -> None:
        """What is remembered cannot be read: the next run begins anew."""
        self._give_up(error)
        try:
            remove_state(self._path)
        except StateError as refused:
            self._reporter.warn(refused.message)


def _decoded_file(value: bytes) -> RememberedFile:
    """Checked here, not where one is made of what was just read: each night makes one for each file."""
    file = _FILE.decode(value)
    check_extents(file.extents, file.size, b"a remembered file")
    return file


def memory_directory(directory: Path, url: str) -> Path:
    """Where a source, whose state ``directory`` is, has what it remembers of the destination ``url``."""
    return directory / f"media-{hashlib.sha256(url.encode()).hexdigest()[:16]}"


def now_ns() -> int:
    """This host's time in nanoseconds, which the times of its files are compared with."""
    return time.time_ns()


def remembered(entry: FileEntry, blake3: str, extents: Iterable[Extent], began: int | None) -> RememberedFile | None:
    """What is remembered of a file that was read as ``entry`` says, from ``began`` on (``now_ns`` before it was
    opened); None for ``began``: it changed meanwhile. None for a time that no record has room for."""
    newest = max(entry.ctime_ns, entry.attributes.mtime_ns)
    settled = began is not None and newest < began - _RACY
    if not -(2**63) <= entry.ctime_ns < 2**63:
        return None
    return RememberedFile(
        size=entry.size,
        mtime_ns=entry.attributes.mtime_ns,
        ctime_ns=entry.ctime_ns if settled else _NEVER,
        inode=entry.identity[1],
        hash=bytes.fromhex(blake3),
        places=[_Extent(item.offset, item.length, bytes.fromhex(item.object), item.object_offset) for item in extents],
    )


def remember_copies(directory: Path, url: str, keys: Collection[str], since: datetime, reporter: Reporter) -> None:
    """Further ``keys`` of objects, made or proven in this run, so that later backups can refer to them."""
    with Memory(directory, url, reporter) as memory:
        objects = memory.objects()
        changed: dict[str, RememberedObject] = {}
        for key in keys:
            place = parse_object_key(key)
            if place is not None and place.object_id in objects:
                name = place.object_id
                changed[name] = with_key(changed.get(name, objects[name]), key, since)
        memory.put_objects(changed.items())


def with_key(item: RememberedObject, key: str, since: datetime) -> RememberedObject:
    """``item`` with one more key, which is known ``since`` then."""
    others = [known for known in item.keys if known.key != key]
    return structs.replace(item, keys=[*others, RememberedKey(key, since)])


def _object(record: ObjectRecord, item: StoredObject) -> RememberedObject:
    return RememberedObject(
        kind=record.kind,
        stored_size=record.stored_size,
        plaintext_size=record.plaintext_size,
        hash=bytes.fromhex(record.blake3),
        vault=record.vault,
        alive=record.plaintext_size,
        keys=[RememberedKey(item.key, item.modified)],
    )
