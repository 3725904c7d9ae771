"""The lists of a backup under way: contents, objects and placement, written to the store as their records arrive."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import chain
from types import TracebackType
from typing import Any, Self, TypeVar

from msgspec.json import Decoder
from msgspec.structs import replace

from archiver.catalog.lines import encode_lines
from archiver.catalog.manifest import Digest, Totals
from archiver.catalog.names import BackupPlace, object_key
from archiver.catalog.records import (
    CONTENTS,
    OBJECTS,
    PLACEMENT,
    ContentsRecord,
    DirectoryRecord,
    EnvironmentRecord,
    FileRecord,
    ObjectRecord,
    PlacementRecord,
    SymlinkRecord,
    WarningRecord,
)
from archiver.config import Tuning
from archiver.crypto.recipients import Recipient
from archiver.operations.writing import Written, write_object
from archiver.parallel import Feed
from archiver.progress import Reporter
from archiver.sources.entries import EARLIEST, LATEST, OUT_OF_TIME, warning_record
from archiver.stores.base import Store

R = TypeVar("R")
_BATCH = 256
"""Records that are handed to the writing thread at a time: to wake it for each would cost more than to write it."""
_BATCHES = 4
"""How many of them may wait for a store that is slow."""
LIMITS = (EARLIEST, LATEST)


class BackupLists:
    """A context manager: the lists exist in the store when the block has ended without an error, and not before.

    ``totals`` may be read at any time, ``contents``, ``objects`` and ``stored`` once the block has ended. Takes
    about 0.3 KB of memory for each object.
    """

    def __init__(self, store: Store, place: BackupPlace, vault: Recipient, tuning: Tuning, reporter: Reporter) -> None:
        self._store = store
        self._place = place
        self._tuning = replace(tuning, workers=1)
        self._reporter = reporter
        self._placement = self._feed(place.placement, PLACEMENT, [])
        self._objects = self._feed(place.objects, OBJECTS, [])
        self._contents = self._feed(place.contents, CONTENTS, [vault])
        self._batch: list[ContentsRecord] = []
        self._resources = ExitStack()
        self._stored: dict[str, int] = {}
        self._counts = dict.fromkeys(Totals.__struct_fields__, 0)

    def __enter__(self) -> Self:
        with ExitStack() as resources:
            for feed in (self._placement, self._objects, self._contents):
                resources.enter_context(feed)
            resources.push(self._hand_over_rest)
            self._resources = resources.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.__exit__(kind, error, trace)

    def put(self, *records: ContentsRecord) -> None:
        """Add to contents; a warning is reported as well."""
        for record in records:
            match record:
                case EnvironmentRecord():
                    self._counts["environments"] += 1
                case FileRecord():
                    self._counts["files"] += 1
                case WarningRecord():
                    self._counts["warnings"] += 1
                    self._reporter.warn(f"media/{record.path}: {record.reason}")
            self._batch.append(record)
            if isinstance(record, FileRecord | DirectoryRecord | SymlinkRecord) and record.mtime_ns in LIMITS:
                self.put(warning_record(record.path_bytes, OUT_OF_TIME))
        if len(self._batch) >= _BATCH:
            self._hand_over()

    def register(self, record: ObjectRecord, key: str | None = None) -> None:
        """This object belongs to the backup; it lies at ``key``, where this is not one of the backup's own objects."""
        key = key or object_key(self._place.retention_class, self._place.source, record.id, record.kind)
        self._counts["objects"] += 1
        self._counts["plaintext_bytes"] += record.plaintext_size
        self._counts["stored_bytes"] += record.stored_size
        self._stored[key] = record.stored_size
        self._objects.put([record])
        self._placement.put([PlacementRecord(id=record.id, key=key)])

    @property
    def totals(self) -> Totals:
        return Totals(**self._counts)

    @property
    def contents(self) -> Digest:
        return _digest(self._contents.result)

    @property
    def objects(self) -> Digest:
        return _digest(self._objects.result)

    @property
    def stored(self) -> dict[str, int]:
        """By key how many bytes the store must have of each object and list; once the block has ended."""
        place = self._place
        feeds: dict[str, Feed[Any, Written]] = {
            place.contents: self._contents,
            place.objects: self._objects,
            place.placement: self._placement,
        }
        return self._stored | {key: feed.result.stored.size for key, feed in feeds.items()}

    def _hand_over(self) -> None:
        self._contents.put(self._batch)
        self._batch = []

    def _hand_over_rest(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if error is None:
            self._hand_over()

    def _feed(self, key: str, decoder: Decoder[R], recipients: Sequence[Recipient]) -> Feed[list[R], Written]:
        def write(batches: Iterator[list[R]]) -> Written:
            records = chain.from_iterable(batches)
            return write_object(self._store, key, encode_lines(records, decoder), recipients, self._tuning)

        return Feed(write, depth=_BATCHES, abandon=self._store.abandon)


def _digest(written: Written) -> Digest:
    return Digest(stored_size=written.stored.size, blake3=written.stored.blake3)
