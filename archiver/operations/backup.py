"""``archiver backup``: pin, copy, pack, upload, commit.

The order is the safety: the right to create keys is proven before anything is pinned, all environments are pinned
before media is read, every object is in the store before a list names it, and the manifest comes last.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from msgspec.json import Decoder

from archiver.buffers import Buffer, split
from archiver.catalog.lines import encode_lines
from archiver.catalog.manifest import (
    VERSION,
    Digest,
    Manifest,
    Previous,
    Totals,
    Vault,
    decode_manifest,
    encode_manifest,
)
from archiver.catalog.names import BackupPlace, new_backup_id, new_object_id, object_key, vault_prefix
from archiver.catalog.records import (
    CONSISTENCIES,
    CONTENTS,
    OBJECTS,
    PLACEMENT,
    Consistency,
    ContentsRecord,
    EnvironmentRecord,
    Extent,
    FileRecord,
    HeaderRecord,
    Method,
    ObjectKind,
    ObjectRecord,
    PlacementRecord,
    WarningRecord,
)
from archiver.config import RetentionClass, Tuning
from archiver.crypto.minisign import SigningKey
from archiver.crypto.recipients import X25519Recipient, vault_id
from archiver.environment.copying import copy_stream
from archiver.environment.snapshot import Snapshot, SnapshotChangedError
from archiver.errors import ConfigError, IntegrityError, NotFoundError
from archiver.operations.archive import Archive, Backup
from archiver.operations.objects import Written, write_object
from archiver.operations.run_lock import run_lock
from archiver.operations.sources import Source
from archiver.parallel import Feed
from archiver.progress import Reporter
from archiver.sources.entries import CHANGED, FileEntry, HardLinks, UnreadableError, warning_record
from archiver.sources.environments import data_files, environment_record, pin_all
from archiver.sources.files import LargeFile
from archiver.sources.media import Batch, MediaTree, batches
from archiver.sources.packs import Member, Pack
from archiver.stages.measure import Meter, measured
from archiver.stores.base import Store

R = TypeVar("R")

EXTENT_LIMIT = 1024 * 1024 * 1024
"""Plaintext bytes of one object of an environment or a large file: far below the format's 4 GiB, so that a lost
connection or an interrupted restore repeats little."""
COLD_ATTEMPTS = 3
"""How often cold copies are begun anew when somebody committed while they were made."""


@dataclass(frozen=True, slots=True)
class BackupRequest:
    """What to back up, how, and for how long."""

    source: Source
    retention_class: str
    retention: RetentionClass
    vault: X25519Recipient
    signing_key: SigningKey
    state_directory: Path
    """Of this source: its lock lies here, and the journal of what it has open in the store."""
    tuning: Tuning
    label: str = ""


@dataclass(frozen=True, slots=True)
class BackupResult:
    """A committed backup."""

    manifest: Manifest
    retention_class: str
    environments: Sequence[EnvironmentRecord]
    skew_seconds: float
    """Between the first and the last pin."""


def backup(store: Store, request: BackupRequest, reporter: Reporter) -> BackupResult:
    """Make one backup and commit it. On any failure the store has no new backup and nothing open."""
    with run_lock(request.state_directory, request.source.name):
        aborted = store.recover()
        if aborted:
            reporter.event("recovered", interrupted_uploads=aborted)
        _check_vault(store, request)
        previous = _previous(store, request, reporter)
        started = _start(store, previous)
        place = BackupPlace(request.retention_class, request.source.name, new_backup_id(started))
        # Also the proof that this host may create keys, before it pins anything.
        store.create(place.started, [])
        return _Run(store, request, place, reporter).execute(started, previous)


def _check_vault(store: Store, request: BackupRequest) -> None:
    vault = vault_id(str(request.vault))
    if next(store.list(vault_prefix(request.source.name, vault)), None) is None:
        raise ConfigError(
            f"{store.url} holds no key file of vault {vault} of source {request.source.name!r}: nobody could restore",
            hint="Check that vault and destination in archiver.toml belong together; archiver init makes a new pair.",
        )


def _previous(store: Store, request: BackupRequest, reporter: Reporter) -> Backup | None:
    """The newest backup that this host's own key has signed. One that anybody else planted must not stop the run."""
    archive = Archive(store, request.source.name, [request.signing_key.verify_key])
    for place in archive.places():
        try:
            return archive.load(place)
        except (IntegrityError, NotFoundError) as error:
            reporter.warn(f"not continuing from {place.backup}: {error.message}")
    return None


def _start(store: Store, previous: Backup | None) -> datetime:
    """The store's clock, in a later second than the previous backup's: ids are ordered by age to the second."""
    started = store.clock()
    if previous is not None and started.replace(microsecond=0) == previous.manifest.started.replace(microsecond=0):
        time.sleep(1 - started.microsecond / 1_000_000)
        return store.clock()
    return started


class _Run:
    """One backup under way: what is known of it so far."""

    def __init__(self, store: Store, request: BackupRequest, place: BackupPlace, reporter: Reporter) -> None:
        self._store = store
        self._request = request
        self._place = place
        self._reporter = reporter
        self._vault = Vault(id=vault_id(str(request.vault)), recipient=str(request.vault))
        self._plaintext_bytes = self._stored_bytes = self._objects_count = 0
        self._files = self._warnings = 0
        self._objects: Feed[ObjectRecord, Written]
        self._placement: Feed[PlacementRecord, Written]
        self._contents: Feed[ContentsRecord, Written]

    def execute(self, started: datetime, previous: Backup | None) -> BackupResult:
        """Data, lists, signature, manifest: in this order."""
        place, vault = self._place, [self._request.vault]
        with (
            self._list(place.placement, PLACEMENT, []) as self._placement,
            self._list(place.objects, OBJECTS, []) as self._objects,
            self._list(place.contents, CONTENTS, vault) as self._contents,
        ):
            self._contents.put(HeaderRecord(backup=place.backup, source=place.source, label=self._request.label))
            environments, skew = self._copy_environments()
            for record in environments:
                self._contents.put(record)
            if self._request.source.media is not None:
                self._copy_media(self._request.source.media)
        manifest = self._describe(started, previous, environments)
        self._commit(manifest)
        return BackupResult(manifest, place.retention_class, environments, skew)

    def _list(self, key: str, decoder: Decoder[R], recipients: Sequence[X25519Recipient]) -> Feed[R, Written]:
        """A list that is written to the store while its records arrive."""
        tuning = replace(self._request.tuning, workers=1)

        def write(records: Iterator[R]) -> Written:
            return write_object(self._store, key, encode_lines(records, decoder), recipients, tuning)

        return Feed(write)

    def _copy_environments(self) -> tuple[list[EnvironmentRecord], float]:
        """All environments, pinned together; begun anew when somebody wrote to one that was copied cold."""
        specs = self._request.source.environments
        for attempt in range(1, COLD_ATTEMPTS + 1):
            try:
                with pin_all(specs) as snapshots:
                    for name, first in snapshots.duplicates:
                        self._reporter.event("same environment", environment=name, backed_up_as=first)
                    copies = [self._copy_environment(snapshot) for snapshot in snapshots]
                    skew = snapshots.skew.total_seconds()
            except SnapshotChangedError as error:
                if attempt == COLD_ATTEMPTS:
                    raise
                self._reporter.warn(f"beginning anew: {error.message}")
            else:
                for _, objects in copies:
                    for record in objects:
                        self._register(record)
                return [record for record, _ in copies], skew
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _copy_environment(self, snapshot: Snapshot) -> tuple[EnvironmentRecord, list[ObjectRecord]]:
        self._reporter.phase(f"environment {snapshot.name}", snapshot.estimated_copy_size)
        meter = Meter()
        objects: list[ObjectRecord] = []
        extents: list[Extent] = []
        copy = measured(copy_stream(snapshot, self._request.tuning.frame_size), meter)
        offset = 0
        with closing(copy):
            for piece in split(copy, EXTENT_LIMIT):
                record = self._write("mdb", piece)
                objects.append(record)
                extents.append(Extent(offset=offset, length=record.plaintext_size, object=record.id, object_offset=0))
                offset += record.plaintext_size
        snapshot.release()
        return environment_record(snapshot, meter.size, meter.blake3, extents), objects

    def _copy_media(self, root: Path) -> None:
        self._reporter.phase("media")
        links = HardLinks()
        skip = data_files(self._request.source.environments)
        with MediaTree(root, skip=skip, exclude=self._request.source.exclude) as tree:
            for batch in batches(tree.walk()):
                self._copy_batch(tree, batch, links)

    def _copy_batch(self, tree: MediaTree, batch: Batch, links: HardLinks) -> None:
        """A batch's small files as one pack, its large ones as objects of their own; then all records, in order."""
        pack = Pack(tree, batch.small, links)
        pack_id = ""
        if not pack.empty:
            record = self._write("tar", pack.buffers())
            self._register(record)
            pack_id = record.id
        large: dict[bytes, list[ContentsRecord]] = {}
        for file in (*batch.large, *pack.grown):
            large[file.path] = self._copy_large(tree, file, links)
        for entry in batch.entries:
            if entry.path in large:
                self._put(*large[entry.path])
                continue
            outcome = pack.outcomes[entry.path] if isinstance(entry, FileEntry) else entry
            if not isinstance(outcome, Member):
                self._put(outcome.record())
                continue
            self._put(outcome.record(pack_id))
            if outcome.changed:
                self._put(warning_record(entry.path, CHANGED))

    def _copy_large(self, tree: MediaTree, file: FileEntry, links: HardLinks) -> list[ContentsRecord]:
        """The records that a large file becomes: itself or a link, and a warning where there is one."""
        link = links.find(file)
        if link is not None:
            return [link.record()]
        try:
            with LargeFile(tree, file.path) as source:
                objects: list[ObjectRecord] = []
                extents: list[Extent] = []
                for piece in source.pieces(EXTENT_LIMIT):
                    objects.append(self._write("file", piece.buffers()))
                    extents += piece.extents(objects[-1].id)
                result: list[ContentsRecord] = [source.record(extents)]
                if source.changed:
                    result.append(warning_record(file.path, CHANGED))
                links.remember(source.entry)
        except UnreadableError as error:
            return [error.skipped.record()]
        for record in objects:
            self._register(record)
        return result

    def _put(self, *records: ContentsRecord) -> None:
        for record in records:
            if isinstance(record, WarningRecord):
                self._warnings += 1
                self._reporter.warn(f"media/{record.path}: {record.reason}")
            self._files += isinstance(record, FileRecord)
            self._contents.put(record)

    def _write(self, kind: ObjectKind, plaintext: Iterable[Buffer]) -> ObjectRecord:
        """One new object, in the store when this returns."""
        object_id = new_object_id()
        key = object_key(self._place.retention_class, self._place.source, object_id, kind)
        request = self._request
        written = write_object(
            self._store, key, plaintext, [request.vault], request.tuning, advance=self._reporter.advance
        )
        return ObjectRecord(
            id=object_id,
            kind=kind,
            stored_size=written.stored.size,
            plaintext_size=written.plaintext.size,
            blake3=written.stored.blake3,
            vault=self._vault.id,
        )

    def _register(self, record: ObjectRecord) -> None:
        """The object belongs to this backup."""
        self._plaintext_bytes += record.plaintext_size
        self._stored_bytes += record.stored_size
        self._objects_count += 1
        key = object_key(self._place.retention_class, self._place.source, record.id, record.kind)
        self._objects.put(record)
        self._placement.put(PlacementRecord(id=record.id, key=key))

    def _describe(
        self, started: datetime, previous: Backup | None, environments: Sequence[EnvironmentRecord]
    ) -> Manifest:
        place, request = self._place, self._request
        return Manifest(
            version=VERSION,
            backup=place.backup,
            source=place.source,
            started=started,
            finished=self._store.clock(),
            keep_days=request.retention.keep,
            lease_days=request.retention.lease,
            consistency=weakest(record.method for record in environments),
            totals=Totals(
                environments=len(environments),
                files=self._files,
                plaintext_bytes=self._plaintext_bytes,
                objects=self._objects_count,
                stored_bytes=self._stored_bytes,
                warnings=self._warnings,
            ),
            sequence=1 if previous is None else previous.manifest.sequence + 1,
            previous=None if previous is None else Previous(backup=previous.manifest.backup, blake3=previous.blake3),
            # minisign writes the number without its leading zeros.
            signer=request.signing_key.verify_key.key_id.zfill(16),
            contents=_digest(self._contents.result),
            objects=_digest(self._objects.result),
            vaults=[self._vault],
        )

    def _commit(self, manifest: Manifest) -> None:
        """The signature first: the manifest's own key is the commit point."""
        data = encode_manifest(manifest)
        decode_manifest(data, self._place.manifest)
        comment = f"archiver backup {manifest.backup} of {manifest.source}"
        signature = self._request.signing_key.sign(data, comment)
        self._store.create(self._place.signature, [signature.encode("ascii")])
        self._store.create(self._place.manifest, [data])
        self._reporter.event("committed", backup=manifest.backup, key=self._place.manifest)


def _digest(written: Written) -> Digest:
    return Digest(stored_size=written.stored.size, blake3=written.stored.blake3)


def weakest(methods: Iterable[Method]) -> Consistency:
    """The label of a whole backup: that of its least protected environment."""
    found = set(methods)
    return next((label for label in reversed(CONSISTENCIES) if label in found), "none")
