"""Objects on their way into the store."""

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

from archiver.buffers import Buffer
from archiver.catalog.names import BackupPlace, new_object_id, object_key
from archiver.catalog.records import ObjectKind, ObjectRecord
from archiver.config import Tuning
from archiver.crypto.keys import PublicKey
from archiver.crypto.recipients import vault_id
from archiver.operations.writing import write_object
from archiver.progress import Reporter
from archiver.stores.base import Store, StoredObject

EXTENT_LIMIT = 1024 * 1024 * 1024
"""Plaintext bytes of one object of an environment or a large file: far below the format's 4 GiB, so that a lost
connection or an interrupted restore repeats little."""


class Uploads:
    """A context manager: what was written in the block is in the store when it has ended without an error.

    ``stored`` hears of each object as soon as it is there, from any thread.
    """

    def __init__(
        self,
        store: Store,
        place: BackupPlace,
        vault: PublicKey,
        tuning: Tuning,
        reporter: Reporter,
        stored: Callable[[ObjectRecord, StoredObject], None] = lambda _record, _item: None,
    ) -> None:
        self._store = store
        self._place = place
        self._vault = vault
        self._vault_id = vault_id(str(vault))
        self._tuning = tuning
        self._reporter = reporter
        self._stored = stored

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def write(self, kind: ObjectKind, plaintext: Iterable[Buffer], *, pinned: bool = False) -> ObjectRecord:  # noqa: ARG002
        """A new object of ``plaintext``, all of which has been read when this returns. What ``plaintext`` raises passes
        through, and no object is made then. ``pinned``: it comes from a snapshot that costs a live server room."""
        object_id = new_object_id()
        key = object_key(self._place.retention_class, self._place.source, object_id, kind)
        written = write_object(self._store, key, plaintext, [self._vault], self._tuning, advance=self._reporter.advance)
        record = ObjectRecord(
            id=object_id,
            kind=kind,
            stored_size=written.stored.size,
            plaintext_size=written.plaintext.size,
            blake3=written.stored.blake3,
            vault=self._vault_id,
        )
        self._stored(record, written.item)
        return record
