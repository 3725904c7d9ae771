"""Objects on their way into the store: sealed here as fast as this host can, sent as fast as the store takes them."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from archiver.buffers import Buffer
from archiver.catalog.names import BackupPlace, new_object_id, object_key
from archiver.catalog.records import ObjectKind, ObjectRecord
from archiver.crypto.recipients import vault_id
from archiver.operations.backup_request import BackupRequest
from archiver.operations.writing import sealing
from archiver.parallel import FeedAbortedError, Tasks
from archiver.progress import UPLOAD, Reporter
from archiver.stages.compression import levels
from archiver.stores.base import Store, StoredObject
from archiver.stores.spool import Spool

EXTENT_LIMIT = 1024 * 1024 * 1024
"""Plaintext bytes of one object of an environment or a large file: far below the format's 4 GiB, so that a lost
connection or an interrupted restore repeats little."""
CREATES = 3
"""Objects that are being created at a time: while one waits for the store's word that it is complete, the next is
sent. Those that were sealed since wait in the spool."""
MEMORY = 24 * 1024 * 1024
"""Sealed bytes that wait in memory; beyond that they wait on disk."""


class Uploads:
    """A context manager: what was written in the block is in the store when it has ended without an error.

    ``stored`` hears of each object as soon as it is there, from any thread. What goes wrong in the store is raised by
    ``write``, also while it waits, or at the end of the block. When an error leaves the block, the creates that are
    under way are given up, and leave nothing open. ``write`` is for one thread at a time.
    """

    def __init__(
        self,
        store: Store,
        place: BackupPlace,
        request: BackupRequest,
        reporter: Reporter,
        stored: Callable[[ObjectRecord, StoredObject], None] = lambda _record, _item: None,
    ) -> None:
        self._store = store
        self._place = place
        self._vault = request.vault
        self._vault_id = vault_id(str(request.vault))
        self._tuning = request.tuning
        self._reporter = reporter
        self._stored = stored
        self._spool = Spool(
            request.state_directory,
            part_size=store.part_size,
            memory=MEMORY,
            limit=request.tuning.spool,
            reserve=request.pin.headroom / 100,
            taken=self._taken,
        )
        # For the whole run: a pack alone has too few frames to learn from.
        self._levels = {
            pinned: levels(request.tuning.compression, lambda: self._spool.waiting, pinned=pinned)
            for pinned in (False, True)
        }
        self._tasks = Tasks(CREATES, self._spool.fail, store.abandon)
        self._resources = ExitStack()
        self._all_read = False

    def __enter__(self) -> Self:
        with ExitStack() as resources:
            resources.enter_context(self._spool)
            resources.enter_context(self._tasks)
            self._resources = resources.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._announce()
        except BaseException as problem:
            self._resources.__exit__(type(problem), problem, problem.__traceback__)
            raise
        self._resources.__exit__(kind, error, trace)

    def write(self, kind: ObjectKind, plaintext: Iterable[Buffer], *, pinned: bool = False) -> ObjectRecord:
        """A new object of ``plaintext``, all of which has been read when this returns. What ``plaintext`` raises passes
        through, and no object is made then. ``pinned``: it comes from a snapshot that costs a live server room."""
        object_id = new_object_id()
        key = object_key(self._place.retention_class, self._place.source, object_id, kind)
        queue = self._spool.queue()
        record: ObjectRecord | None = None

        def create() -> None:
            try:
                item = self._store.create(key, queue)
            except FeedAbortedError:
                if queue.failed:
                    return
                raise
            if record is None or not queue.drained:
                raise RuntimeError(f"{key}: the store ended before the body that it was given")
            self._stored(record, item)

        self._tasks.start(create)
        try:
            with sealing(
                plaintext,
                [self._vault],
                self._tuning,
                size=self._store.part_size,
                level=self._levels[pinned],
                advance=self._reporter.advance,
            ) as sealed:
                for part in sealed.parts:
                    queue.put(part)
                    # Not held while the next one is sealed.
                    del part
        except BaseException:
            queue.fail()
            raise
        record = ObjectRecord(
            id=object_id,
            kind=kind,
            stored_size=sealed.stored.size,
            plaintext_size=sealed.plaintext.size,
            blake3=sealed.stored.blake3,
            vault=self._vault_id,
        )
        queue.end()
        return record

    def _announce(self) -> None:
        """Tell of what is still to be sent, unless that is there in a moment."""
        waiting = self._spool.waiting
        if waiting > MEMORY:
            self._all_read = True
            self._reporter.phase(UPLOAD, waiting)

    def _taken(self, count: int) -> None:
        """Before everything was read, progress is what has been read."""
        if self._all_read:
            self._reporter.advance(count)
