"""``archiver backup``: pin, copy, pack, upload, commit.

The order is the safety: the right to create keys is proven before anything is pinned, all environments are pinned
before media is read, every object is in the store before a list names it, and the manifest comes last.
"""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from archiver.buffers import Buffer, split
from archiver.catalog.manifest import (
    MAX_SEQUENCE,
    VERSION,
    Manifest,
    Vault,
    decode_manifest,
    encode_manifest,
)
from archiver.catalog.names import BackupPlace, new_backup_id, new_object_id, object_key
from archiver.catalog.records import (
    CONSISTENCIES,
    Consistency,
    ContentsRecord,
    EnvironmentRecord,
    Extent,
    HeaderRecord,
    Method,
    ObjectKind,
    ObjectRecord,
)
from archiver.config import PinLimits, RetentionClass, Tuning
from archiver.crypto.keys import PublicKey
from archiver.crypto.minisign import SigningKey
from archiver.crypto.recipients import vault_id
from archiver.crypto.trust import TrustedKey
from archiver.environment.copying import copy_stream
from archiver.environment.external import remove_leftovers
from archiver.environment.snapshot import Snapshot
from archiver.errors import PinGivenUpError, SnapshotChangedError
from archiver.operations.archive import Archive
from archiver.operations.backup_lists import BackupLists
from archiver.operations.backup_start import begin, check_vault
from archiver.operations.chain import Statement
from archiver.operations.commit_check import check_stored, promised
from archiver.operations.needs import destination_rules
from archiver.operations.objects import write_object
from archiver.operations.predecessor import Predecessor, conclude, find_predecessor
from archiver.operations.run_lock import run_lock
from archiver.operations.sources import Source
from archiver.progress import Reporter
from archiver.retention.policy import in_force
from archiver.sources.entries import CHANGED, FileEntry, HardLinks, UnreadableError, warning_record
from archiver.sources.environments import Pins, data_files, environment_record, pin_all
from archiver.sources.files import LargeFile
from archiver.sources.media import Batch, MediaTree, batches
from archiver.sources.packs import Member, Pack
from archiver.stages.measure import Meter, measured
from archiver.stores.base import Store

EXTENT_LIMIT = 1024 * 1024 * 1024
"""Plaintext bytes of one object of an environment or a large file: far below the format's 4 GiB, so that a lost
connection or an interrupted restore repeats little."""


@dataclass(frozen=True, slots=True)
class BackupRequest:
    """What to back up, how, and for how long."""

    source: Source
    retention_class: str
    retention: RetentionClass
    """As configured; a rule of the bucket that deletes sooner makes the promise shorter."""
    vault: PublicKey
    signing_key: SigningKey
    state_directory: Path
    """Of this source: its lock lies here, and the journal of what it has open in the store."""
    tuning: Tuning
    pin: PinLimits
    label: str = ""
    trusted: Sequence[TrustedKey] = ()
    """Keys whose backups this one may continue from, beside those of ``signing_key``."""
    operators: Collection[str] = ()
    """Who is to be able to open the vault; what is missing of them is told."""


@dataclass(frozen=True, slots=True)
class BackupResult:
    """A committed backup."""

    manifest: Manifest
    retention_class: str
    environments: Sequence[EnvironmentRecord]
    skew_seconds: float
    """Between the first and the last pin."""
    requests: Mapping[str, int]
    """What was sent to the destination's service, by operation; empty for a directory."""


def backup(store: Store, request: BackupRequest, reporter: Reporter) -> BackupResult:
    """``make_backup`` under the source's lock; raises ``BusyError`` when another run has it."""
    with run_lock(request.state_directory, request.source.name):
        return make_backup(store, request, reporter)


def make_backup(store: Store, request: BackupRequest, reporter: Reporter) -> BackupResult:
    """Make one backup and commit it, for the one run that holds the source's lock. On any failure the store has no new
    backup and nothing open."""
    aborted = store.recover()
    if aborted:
        reporter.event("recovered", interrupted_uploads=aborted)
    remove_leftovers(request.state_directory)
    check_vault(store, request.source.name, request.vault, request.operators, reporter)
    own = TrustedKey(request.signing_key.verify_key)
    keys = [key for key in request.trusted if key.key != own.key]
    archive = Archive(store, request.source.name, [own, *keys])
    previous = find_predecessor(archive, request.state_directory, reporter)
    started = begin(store, previous, reporter)
    place = BackupPlace(request.retention_class, request.source.name, new_backup_id(started))
    # Also the proof that this host may create keys, before it pins anything.
    first = store.create(place.started, [])
    return _Run(store, request, place, first.modified, reporter).execute(started, previous)


class _Run:
    """One backup under way."""

    def __init__(
        self, store: Store, request: BackupRequest, place: BackupPlace, began: datetime, reporter: Reporter
    ) -> None:
        self._store = store
        self._request = request
        self._place = place
        self._began = began
        self._reporter = reporter
        self._vault = Vault(id=vault_id(str(request.vault)), recipient=str(request.vault))
        self._lists = BackupLists(store, place, request.vault, request.tuning, reporter)

    def execute(self, started: datetime, previous: Predecessor | None) -> BackupResult:
        """Data and lists, then signature and manifest."""
        place, source = self._place, self._request.source
        with ExitStack() as resources:
            # Opened before hours of copying: a volume that is not mounted is better noticed now.
            tree = resources.enter_context(self._open_media(source.media)) if source.media is not None else None
            resources.enter_context(self._lists)
            self._lists.put(HeaderRecord(backup=place.backup, source=place.source, label=self._request.label))
            environments, skew = self._copy_environments()
            self._lists.put(*environments)
            if tree is not None:
                self._copy_media(tree, 0 if previous is None else previous.files)
        rules = destination_rules(self._store)
        term = in_force({place.retention_class: self._request.retention}, rules)[place.retention_class]
        manifest = self._describe(started, previous, environments, promised(term))
        check_stored(self._store, self._lists.stored, manifest.promised_until, term, rules)
        self._commit(manifest)
        return BackupResult(manifest, place.retention_class, environments, skew, self._store.requests)

    def _copy_environments(self) -> tuple[list[EnvironmentRecord], float]:
        """All environments, pinned together; begun anew when somebody wrote to one that was copied without a pin, and
        after a pause when a pin was given up for the sake of the live server."""
        limits = self._request.pin
        for attempt in range(1, limits.attempts + 1):
            try:
                return self._copy_pinned()
            except (SnapshotChangedError, PinGivenUpError) as error:
                if attempt == limits.attempts:
                    raise
                pause = limits.pause if isinstance(error, PinGivenUpError) else 0
                self._reporter.warn(f"beginning anew{f' in {pause} s' if pause else ''}: {error.message}")
                time.sleep(pause)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _copy_pinned(self) -> tuple[list[EnvironmentRecord], float]:
        """All environments, pinned together, and the seconds between the first pin and the last."""
        request = self._request
        with pin_all(request.source.environments, request.pin, request.state_directory) as snapshots:
            for name, first in snapshots.duplicates:
                self._reporter.event("same environment", environment=name, backed_up_as=first)
            copies = [self._copy_environment(snapshot, snapshots) for snapshot in snapshots]
            skew = snapshots.skew.total_seconds()
        for _, objects in copies:
            self._lists.register(*objects)
        return [record for record, _ in copies], skew

    def _copy_environment(self, snapshot: Snapshot, pins: Pins) -> tuple[EnvironmentRecord, list[ObjectRecord]]:
        self._reporter.phase(f"environment {snapshot.name}", snapshot.estimated_copy_size)
        meter = Meter()
        objects: list[ObjectRecord] = []
        extents: list[Extent] = []
        copy = measured(pins.guard(copy_stream(snapshot, self._request.tuning.frame_size)), meter)
        offset = 0
        with closing(copy):
            for piece in split(copy, EXTENT_LIMIT):
                record = self._write("mdb", piece)
                objects.append(record)
                extents.append(Extent(offset=offset, length=record.plaintext_size, object=record.id, object_offset=0))
                offset += record.plaintext_size
        snapshot.release()
        return environment_record(snapshot, meter.size, meter.blake3, extents), objects

    def _open_media(self, root: Path) -> MediaTree:
        source = self._request.source
        return MediaTree(root, skip=data_files(source.environments), exclude=source.exclude)

    def _copy_media(self, tree: MediaTree, expected: int) -> None:
        """Everything in ``tree``; the previous backup had ``expected`` files."""
        self._reporter.phase("media")
        links = HardLinks()
        for batch in batches(tree.walk()):
            self._copy_batch(tree, batch, links)
        if expected and not self._lists.totals.files:
            reason = f"holds no file, the previous backup had {expected:,}: is its volume mounted?"
            self._lists.put(warning_record(b".", reason))

    def _copy_batch(self, tree: MediaTree, batch: Batch, links: HardLinks) -> None:
        """A batch's small files as one pack, its large ones as objects of their own; then all records, in order."""
        pack = Pack(tree, batch.small, links)
        pack_id = ""
        if not pack.empty:
            record = self._write("tar", pack.buffers())
            self._lists.register(record)
            pack_id = record.id
        large: dict[bytes, list[ContentsRecord]] = {}
        for file in (*batch.large, *pack.grown):
            large[file.path] = self._copy_large(tree, file, links)
        for entry in batch.entries:
            if entry.path in large:
                self._lists.put(*large[entry.path])
                continue
            outcome = pack.outcomes[entry.path] if isinstance(entry, FileEntry) else entry
            if not isinstance(outcome, Member):
                self._lists.put(outcome.record())
                continue
            self._lists.put(outcome.record(pack_id))
            if outcome.changed:
                self._lists.put(warning_record(entry.path, CHANGED))

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
        self._lists.register(*objects)
        return result

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

    def _describe(
        self,
        started: datetime,
        previous: Predecessor | None,
        environments: Sequence[EnvironmentRecord],
        retention: RetentionClass,
    ) -> Manifest:
        place, request = self._place, self._request
        return Manifest(
            version=VERSION,
            backup=place.backup,
            source=place.source,
            started=started,
            finished=self._store.clock(),
            keep_days=retention.keep,
            lease_days=retention.lease,
            consistency=weakest(record.method for record in environments),
            totals=self._lists.totals,
            sequence=1 if previous is None else min(previous.sequence + 1, MAX_SEQUENCE),
            previous=None if previous is None else previous.link,
            signer=request.signing_key.verify_key.key_id,
            contents=self._lists.contents,
            objects=self._lists.objects,
            vaults=[self._vault],
        )

    def _commit(self, manifest: Manifest) -> None:
        """The signature first: the manifest's own key is the commit point."""
        data = encode_manifest(manifest)
        decode_manifest(data, self._place.manifest)
        comment = f"archiver backup {manifest.backup} of {manifest.source}"
        signature = self._request.signing_key.sign(data, comment)
        self._store.create(self._place.signature, [signature.encode("ascii")])
        stored = self._store.create(self._place.manifest, [data])
        self._reporter.event("committed", backup=manifest.backup, key=self._place.manifest)
        meter = Meter()
        meter.update(data)
        signer = TrustedKey(self._request.signing_key.verify_key)
        statement = Statement(manifest, meter.blake3, signer, stored.modified, self._began)
        conclude(self._request.state_directory, self._store.url, statement, self._reporter)


def weakest(methods: Iterable[Method]) -> Consistency:
    """The label of a whole backup: that of its least protected environment."""
    found = set(methods)
    return next((label for label in reversed(CONSISTENCIES) if label in found), "none")
