"""The reading side of a destination: which backups of a source there are, what they say, and what opens them."""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from msgspec.structs import replace

from archiver.buffers import Buffer
from archiver.catalog.lines import decode_lines
from archiver.catalog.manifest import MAX_MANIFEST, MAX_SIGNATURE, Digest, Manifest, Vault, decode_manifest
from archiver.catalog.names import VAULTS, BackupPlace, backup_time, check_object_key
from archiver.catalog.records import CONTENTS, OBJECTS, PLACEMENT, ContentsRecord, HeaderRecord, ObjectRecord
from archiver.crypto.age import unseal
from archiver.crypto.recipients import Identity, vault_id
from archiver.crypto.trust import TrustedKey, check_signature, possible_signers
from archiver.crypto.vault import Keyring
from archiver.errors import (
    AuthenticityError,
    FormatError,
    IntegrityError,
    NotFoundError,
    RefusedError,
    UnsignedError,
    UsageError,
)
from archiver.operations.chain import TOLERANCE, Chain
from archiver.operations.history import Backup, History, Survey, Unreadable
from archiver.operations.objects import StoredKey, naming
from archiver.operations.reading import ObjectReader
from archiver.operations.vaults import put_back, read_small, unlock_vault, vault_places
from archiver.stages.frames import decompress
from archiver.stages.measure import Meter, measured
from archiver.stores.base import Store

_DATE = re.compile(r"[0-9]{4}-?[0-9]{2}-?[0-9]{2}")
NO_KEYS = Keyring()
_HELD = 16 * 1024 * 1024
"""Stored bytes of a list up to which it is held in memory until its hash is proven."""


class Archive:
    """Reads the backups of one ``source`` in ``store``.

    ``trusted`` are the keys that manifests may be signed by; None means that the operator gave ``--trust-unsigned``.
    ``keyring`` is the operator's: it opens vaults, and vaults open objects.
    """

    def __init__(
        self,
        store: Store,
        source: str,
        trusted: Sequence[TrustedKey] | None,
        keyring: Keyring = NO_KEYS,
        *,
        workers: int = 2,
    ) -> None:
        self.store = store
        self.source = source
        self._trusted = trusted
        self._keyring = keyring
        self.workers = workers
        self._vaults: dict[str, Identity] = {}
        self._history = History(store, source, self.load, self._claim)

    def places(self) -> list[BackupPlace]:
        """Where complete backups lie, newest first, the longest list of their classes included."""
        return [item.place for item in self._history.listed()]

    def backups(self, now: datetime | None = None) -> list[Backup | Unreadable]:
        """All backups, newest first, each once; with ``now`` only those still within a promise of any of their copies.

        One that is damaged, that anybody planted, or that later ones speak against, must not hide the others: it is
        ``Unreadable``.
        """
        found = self.newest_first()
        return [backup for backup in found if now is None or backup.is_promised(now)]

    def survey(self, now: datetime, *, everything: bool = False) -> Survey:
        """The backups within their promise at ``now``, or ``everything``, and those that were removed before then."""
        listed, chain = self._history.listed(), Chain(now)
        found = list(self._history.judged(listed, chain))
        removed = chain.removed({item.place.backup for item in listed}, now)
        return Survey([backup for backup in found if everything or backup.is_promised(now)], removed)

    def newest_first(self, *, lazily: bool = False) -> Iterator[Backup | Unreadable]:
        """``backups`` one by one; ``lazily`` reads none before it is asked for."""
        return self._history.judged(self._history.listed(), Chain(self.store.clock()), lazily=lazily)

    def hint(self) -> str:
        """Where to look when the wanted backup is not there."""
        if self.places():
            return "archiver list --all shows the backups that there are."
        sources = ", ".join(self.store.list_names(VAULTS)) or "none"
        return f"Sources of this destination: {sources}. Check --source and the destination's prefix."

    def find(self, reference: str = "latest", at: datetime | None = None) -> Backup:
        """The backup called ``latest``, or by its id or an unambiguous beginning of it; ``latest`` with ``at`` is the
        newest one that had started by then. ``CLASS/ID`` is the copy in that class: a planted copy in another one
        could not be taken away. Raises ``NotFoundError``."""
        retention_class, separator, name = reference.rpartition("/")
        if at is not None and name != "latest":
            raise UsageError(f"both a backup ({reference}) and a time", hint="Give the id or --at, not both.")
        listed = self._history.listed()
        chosen = [item for item in listed if not separator or item.place.retention_class == retention_class]
        if name != "latest":
            chosen = [item for item in chosen if item.place.backup.startswith(name)]
        elif at is not None:
            chosen = [item for item in chosen if backup_time(item.place.backup) <= at]
        if not chosen:
            wanted = "backup" if reference == "latest" else f"backup {reference!r}"
            when = "" if at is None else f" from {at:%Y-%m-%dT%H:%M:%SZ} or before"
            raise NotFoundError(f"{self.store.url} has no {wanted}{when} of source {self.source!r}", hint=self.hint())
        ids = {item.place.backup for item in chosen}
        if len(ids) > 1 and name != "latest":
            raise NotFoundError(f"{reference!r} is the beginning of {len(ids)} backup ids", hint="Give more of the id.")
        backup = chosen[0].place.backup
        try:
            found = self._history.find(backup, listed, retention_class)
        except (IntegrityError, RefusedError) as error:
            if name == "latest":
                error.hint = f"{error.hint or ''} archiver list shows which backups can be had: give the id of one."
                error.hint = error.hint.strip()
            raise
        if name == "latest" and found.manifest.started - self.store.clock() > TOLERANCE:
            odd = f"{backup} was made when a clock was ahead: there may be newer backups with earlier ids"
            found = replace(found, irregular=(*found.irregular, odd))
        return found

    def load(self, place: BackupPlace) -> Backup:
        """Read one manifest and check its signature and that it belongs where it lies. Nothing is judged yet."""
        # The signature first: anybody may plant large manifests, and few can sign.
        signature = None if self._trusted is None else self._read_signature(place, self._trusted)
        data = read_small(self.store, place.manifest, MAX_MANIFEST)
        signer = None
        if signature is not None and self._trusted is not None:
            with naming(place.manifest):
                signer = check_signature(data, signature, self._trusted)
        manifest = decode_manifest(data, place.manifest)
        if (manifest.backup, manifest.source) != (place.backup, place.source):
            raise AuthenticityError(
                f"{place.manifest} describes backup {manifest.backup} of {manifest.source}: it was moved or replayed",
                hint="Restore another backup.",
            )
        if manifest.started.replace(microsecond=0) != backup_time(manifest.backup):
            # Backups are chosen by their ids, and judged by their times.
            raise AuthenticityError(
                f"{place.manifest} says that it was started at {manifest.started}: not as its id says",
                hint="Restore another backup.",
            )
        for vault in manifest.vaults:
            # What opens a vault is told by its recipient, and which vaults an operator may be taken from by its id.
            if vault.id != vault_id(vault.recipient):
                raise FormatError(f"{place.manifest}: vault {vault.id} is not that of the recipient that it names")
        meter = Meter()
        meter.update(data)
        promises = {place.retention_class: manifest.promised_until}
        return Backup(place, manifest, meter.blake3, signer, places=(place,), promises=promises)

    def _claim(self, place: BackupPlace) -> Manifest:
        """What the manifest at ``place`` says, proven by nothing."""
        return decode_manifest(read_small(self.store, place.manifest, MAX_MANIFEST), place.manifest)

    def _read_signature(self, place: BackupPlace, trusted: Sequence[TrustedKey]) -> str:
        """The text of the signature, which one of ``trusted`` may have made."""
        try:
            signature = read_small(self.store, place.signature, MAX_SIGNATURE).decode("ascii", "replace")
        except NotFoundError:
            raise UnsignedError(
                f"{place.manifest} has no signature",
                hint="Restore another backup, or give --trust-unsigned if you know why it is missing.",
            ) from None
        with naming(place.manifest):
            possible_signers(signature, trusted)
        return signature

    def objects(self, backup: Backup) -> dict[str, ObjectRecord]:
        """The objects list: what the backup needs, by object id."""
        buffers = self._proven(backup.place.objects, backup.manifest.objects)
        with naming(backup.place.objects):
            return {record.id: record for record in decode_lines(decompress(buffers), OBJECTS, backup.place.objects)}

    def placement(self, backup: Backup) -> dict[str, str]:
        """Where each object lies in this destination: object id to key. Unsigned: the objects' hashes protect it."""
        buffers = self.store.read(backup.place.placement)
        records = decode_lines(decompress(buffers), PLACEMENT, backup.place.placement)
        found: dict[str, str] = {}
        with naming(backup.place.placement):
            for record in records:
                found[record.id] = check_object_key(record.key, record.id)
                if len(found) > backup.manifest.totals.objects:
                    raise FormatError(f"more than the {backup.manifest.totals.objects} objects of the backup")
        return found

    def contents(self, backup: Backup) -> Iterator[ContentsRecord]:
        """The private list, streaming. Only when the iterator ends without an error is all of it proven authentic."""
        buffers = self._proven(backup.place.contents, backup.manifest.contents)
        plaintext = decompress(unseal(buffers, [self.unlock(backup.manifest.vaults[0])]))
        records = decode_lines(plaintext, CONTENTS, backup.place.contents)
        with naming(backup.place.contents):
            header = next(records, None)
            if not isinstance(header, HeaderRecord) or header.backup != backup.manifest.backup:
                raise FormatError(f"{backup.place.contents} does not begin with the header of its backup")
            yield header
            yield from records

    def prove_contents(self, backup: Backup) -> None:
        """Read the private list as it is stored and prove its hash; needs no identity."""
        for _ in self._proven(backup.place.contents, backup.manifest.contents):
            pass

    def reader(self, backup: Backup, record: ObjectRecord, placement: dict[str, str]) -> ObjectReader:
        """What reads one object of ``backup``; of the object itself, nothing is fetched yet."""
        key = placement.get(record.id)
        if key is None:
            raise IntegrityError(f"the placement does not say where object {record.id} lies")
        vault = next((vault for vault in backup.manifest.vaults if vault.id == record.vault), None)
        if vault is None:
            raise IntegrityError(
                f"object {record.id} is sealed to vault {record.vault}, which its manifest does not name"
            )
        stored = StoredKey(self.store, key, record.stored_size, [self.unlock(vault)])
        return ObjectReader(stored, record.plaintext_size, self.workers)

    def unlock(self, vault: Vault) -> Identity:
        """The identity of ``vault``, opened with the operator's identities; kept once opened.

        Anybody can seal an identity to an operator, so it counts only if its recipient is the one in the manifest.
        """
        if vault.recipient not in self._vaults:
            places = vault_places(self.store, self.source, vault.id)
            if not places:
                raise NotFoundError(
                    f"{self.store.url} holds no key file of vault {vault.id} of source {self.source!r}",
                    hint=put_back(self.source, vault.id),
                )
            self._vaults[vault.recipient] = unlock_vault(self.store, places, self._keyring, vault.recipient).identity
        return self._vaults[vault.recipient]

    def _proven(self, key: str, digest: Digest) -> Iterator[Buffer]:
        """The bytes of a list. One of usual size is proven before the first of them is looked at, a larger one at the
        end of the iterator."""
        meter = Meter()
        held: list[Buffer] = []
        for buffer in measured(self.store.read(key), meter):
            if meter.size > digest.stored_size:
                break
            if digest.stored_size <= _HELD:
                held.append(buffer)
            else:
                yield buffer
        if (meter.size, meter.blake3) != (digest.stored_size, digest.blake3):
            raise IntegrityError(
                f"{key}: expected {digest.stored_size} bytes with BLAKE3 {digest.blake3}, "
                f"got {meter.size} with {meter.blake3}",
                hint="The list was replaced or damaged: restore another backup.",
            )
        yield from held


def parse_time(text: str) -> datetime:
    """A point in time in ISO 8601; UTC where it names no zone, the end of the day where it names no time.

    Raises ``UsageError``.
    """
    if _DATE.fullmatch(text):
        text += "T23:59:59"
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError(f"not a time: {text!r}", hint="Write it like 2026-11-22T02:00:00Z.") from None
