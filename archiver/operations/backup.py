"""``archiver backup``: pin, copy, pack, upload, commit.

The order is the safety: the right to create keys is proven before anything is pinned, all environments are pinned
before media is read, every object is in the store before the manifest is written, and that comes last.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

from archiver.catalog.manifest import (
    MAX_SEQUENCE,
    VERSION,
    Manifest,
    Vault,
    decode_manifest,
    encode_manifest,
)
from archiver.catalog.names import BackupPlace, new_backup_id
from archiver.catalog.records import CONSISTENCIES, Consistency, EnvironmentRecord, HeaderRecord, Method
from archiver.config import RetentionClass
from archiver.crypto.recipients import vault_id
from archiver.crypto.trust import TrustedKey
from archiver.environment.external import remove_leftovers
from archiver.filesystem import identity
from archiver.operations.archive import Archive
from archiver.operations.backup_environments import EnvironmentCopies
from archiver.operations.backup_lists import BackupLists
from archiver.operations.backup_media import MediaCopy
from archiver.operations.backup_request import BackupRequest, BackupResult
from archiver.operations.backup_start import begin, check_vault
from archiver.operations.chain import Statement
from archiver.operations.commit_check import check_stored, promised
from archiver.operations.needs import destination_rules
from archiver.operations.predecessor import Predecessor, conclude, find_predecessor
from archiver.operations.reuse import Reuse
from archiver.operations.run_lock import run_lock
from archiver.operations.uploads import Uploads
from archiver.progress import Reporter
from archiver.retention.policy import in_force
from archiver.sources.environments import data_files
from archiver.sources.media import MediaTree
from archiver.stages.measure import Meter
from archiver.stores.base import Store


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
        request, place, source = self._request, self._place, self._request.source
        with ExitStack() as resources:
            # Opened before hours of copying: a volume that is not mounted is better noticed now.
            tree = resources.enter_context(self._open_media(source.media)) if source.media is not None else None
            reuse = resources.enter_context(Reuse(self._store, place, request, self._reporter))
            resources.enter_context(self._lists)
            uploads = Uploads(self._store, place, request, self._reporter, reuse.memory.stored)
            resources.enter_context(uploads)
            self._lists.put(HeaderRecord(backup=place.backup, source=place.source, label=request.label))
            environments, skew = EnvironmentCopies(request, uploads, self._lists, self._reporter).copy()
            self._lists.put(*environments)
            used: Mapping[str, int] = {}
            if tree is not None:
                reuse.prepare(started)
                media = MediaCopy(tree, uploads, self._lists, reuse, self._reporter)
                media.copy(0 if previous is None else previous.files)
                used = media.used
        rules = destination_rules(self._store)
        terms = in_force(request.classes, rules)
        # What lies in objects of earlier backups was chosen for the promise of then.
        both = [found[place.retention_class] for found in (reuse.terms, terms) if found is not None]
        manifest = self._describe(started, previous, environments, promised(*both))
        check_stored(self._store, self._lists.stored, manifest.promised_until, terms, rules)
        self._commit(manifest)
        return BackupResult(
            manifest, place.retention_class, environments, skew, len(used), sum(used.values()), self._store.requests
        )

    def _open_media(self, root: Path) -> MediaTree:
        request = self._request
        # The state directory holds paths and hashes in the clear: should it lie among the media, it is not sent.
        skip = data_files(request.source.environments) | {identity(request.state_directory.stat())}
        return MediaTree(root, skip=skip, exclude=request.source.exclude)

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
