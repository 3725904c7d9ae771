"""Small backups made by hand, so that a test can put any one thing of them wrong."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from blake3 import blake3

from archiver.catalog.lines import encode_lines
from archiver.catalog.manifest import Digest, Manifest, Totals, Vault, decode_manifest, encode_manifest
from archiver.catalog.names import BackupPlace, backup_time, new_object_id, object_key, vault_key
from archiver.catalog.records import (
    CONTENTS,
    OBJECTS,
    PLACEMENT,
    ContentsRecord,
    HeaderRecord,
    ObjectRecord,
    PlacementRecord,
)
from archiver.config import Tuning
from archiver.crypto.keys import PublicKey
from archiver.crypto.minisign import SigningKey, VerifyKey
from archiver.crypto.recipients import Identity, vault_id
from archiver.crypto.trust import TrustedKey
from archiver.crypto.vault import Keyring, seal_vault
from archiver.crypto.x25519 import X25519Identity
from archiver.operations.archive import Archive
from archiver.operations.predecessor import link_to
from archiver.operations.writing import Written, write_object
from archiver.stores.base import StoredObject
from archiver.stores.memory import MemoryStore

SOURCE = "prod"
STARTED = datetime(2026, 11, 22, 2, 0, 0, tzinfo=UTC)
DURATION = timedelta(minutes=3)
TUNING = Tuning(frame_size=1000)


class CountingStore(MemoryStore):
    """Notes every read that is made: key, start and length."""

    def __init__(self) -> None:
        super().__init__(clock=lambda: self.now)
        self.now = STARTED
        """What the clock says; committing a backup sets it to the backup's end."""
        self.lists: list[str] = []
        self.reads: list[tuple[str, int, int | None]] = []
        self._counting = threading.Lock()

    def read(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        with self._counting:
            self.reads.append((key, start, length))
        return super().read(key, start, length)

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        self.lists.append(prefix)
        return super().list(prefix)

    def bytes_of(self, key: str) -> bytes:
        """What is stored under ``key``."""
        return b"".join(super().read(key))

    def overwrite(self, key: str, data: bytes) -> None:
        """What no client may do: an attacker, or a failing disk."""
        self._objects[key] = data, self.now

    def remove(self, key: str) -> None:
        """As an expired lifecycle rule, or an attacker, does."""
        del self._objects[key]


@dataclass
class Site:
    """A source's destination and its keys."""

    store: CountingStore = field(default_factory=CountingStore)
    vault: X25519Identity = field(default_factory=X25519Identity.generate)
    operator: X25519Identity = field(default_factory=X25519Identity.generate)
    signing_key: SigningKey = field(default_factory=SigningKey.generate)

    def __post_init__(self) -> None:
        self.put_vault("ada", self.operator.recipient)

    @property
    def vault_id(self) -> str:
        return vault_id(str(self.vault.recipient))

    @property
    def manifest_vault(self) -> Vault:
        """The vault as manifests name it."""
        return Vault(id=self.vault_id, recipient=str(self.vault.recipient))

    def put_vault(self, operator: str, recipient: PublicKey) -> str:
        """Seal the vault to one more operator; the file's key."""
        key = vault_key(SOURCE, self.vault_id, operator, "age")
        self.store.create(key, [seal_vault(self.vault, recipient, SOURCE)])
        return key

    def archive(
        self,
        *,
        trusted: Sequence[VerifyKey | TrustedKey] | Literal["own"] | None = "own",
        identities: Sequence[Identity] | None = None,
    ) -> Archive:
        """The archive as an operator with the right keys opens it."""
        given = [self.signing_key.verify_key] if trusted == "own" else trusted
        keys = None if given is None else [key if isinstance(key, TrustedKey) else TrustedKey(key) for key in given]
        return Archive(self.store, SOURCE, keys, Keyring([self.operator] if identities is None else identities))

    def put_object(self, plaintext: bytes, tuning: Tuning = TUNING) -> ObjectRecord:
        """Store one object in the class ``daily``."""
        identifier = new_object_id()
        key = self.key_of(identifier)
        written = write_object(self.store, key, [plaintext], [self.vault.recipient], tuning)
        return ObjectRecord(
            id=identifier,
            kind="tar",
            stored_size=written.stored.size,
            plaintext_size=written.plaintext.size,
            blake3=written.stored.blake3,
            vault=self.vault_id,
        )

    def key_of(self, identifier: str) -> str:
        return object_key("daily", SOURCE, identifier, "tar")

    def placement_of(self, objects: Iterable[ObjectRecord]) -> dict[str, str]:
        return {record.id: self.key_of(record.id) for record in objects}

    def commit(
        self,
        backup: str = "20261122T020000Z-3f9c2a",
        retention_class: str = "daily",
        objects: Sequence[ObjectRecord] = (),
        contents: Iterable[ContentsRecord] = (),
        signing_key: SigningKey | None = None,
        stored: datetime | None = None,
        **changes: Any,
    ) -> BackupPlace:
        """Write the lists, signature and manifest of a backup; ``changes`` are fields of its manifest.

        The store has it since ``stored``, by default since its end.
        """
        place = BackupPlace(retention_class, SOURCE, backup)
        changes = {"started": backup_time(backup), "finished": backup_time(backup) + DURATION} | changes
        self.store.now = stored or changes["finished"]
        header = HeaderRecord(backup=backup, source=SOURCE, label="by hand")
        records: list[ContentsRecord] = [header, *contents]
        sealed = write_object(
            self.store, place.contents, encode_lines(records, CONTENTS), [self.vault.recipient], TUNING
        )
        listed = write_object(self.store, place.objects, encode_lines(objects, OBJECTS), [], TUNING)
        placed = [PlacementRecord(id=record.id, key=self.key_of(record.id)) for record in objects]
        write_object(self.store, place.placement, encode_lines(placed, PLACEMENT), [], TUNING)
        signer = signing_key or self.signing_key
        fields = {"totals": totals(objects), "signer": signer.verify_key.key_id} | changes
        self.sign(place, self._manifest(backup, sealed, listed, fields), signer)
        return place

    def follow(self, before: BackupPlace, backup: str, **changes: Any) -> BackupPlace:
        """As ``commit``, for a backup that names the one at ``before`` as an honest host does."""
        data = self.store.bytes_of(before.manifest)
        manifest = decode_manifest(data, before.manifest)
        link = link_to(manifest, blake3(data).hexdigest())
        fields: dict[str, Any] = {"previous": link, "sequence": manifest.sequence + 1}
        return self.commit(backup, **fields | changes)

    def sign(self, place: BackupPlace, manifest: Manifest, signer: SigningKey | None = None) -> None:
        """Put signature and manifest where ``place`` says."""
        data = encode_manifest(manifest)
        self.store.create(place.signature, [(signer or self.signing_key).sign(data, "by hand").encode()])
        self.store.create(place.manifest, [data])

    def copy(self, place: BackupPlace, to: BackupPlace) -> None:
        """Manifest and signature, verbatim, as anybody who may create keys can copy them."""
        self.store.create(to.signature, [self.store.bytes_of(place.signature)])
        self.store.create(to.manifest, [self.store.bytes_of(place.manifest)])

    def _manifest(self, backup: str, contents: Written, objects: Written, changes: dict[str, Any]) -> Manifest:
        fields: dict[str, Any] = {
            "version": 1,
            "backup": backup,
            "source": SOURCE,
            "keep_days": 35,
            "lease_days": 7,
            "consistency": "none",
            "sequence": 1,
            "previous": None,
            "signer": self.signing_key.verify_key.key_id,
            "contents": Digest(stored_size=contents.stored.size, blake3=contents.stored.blake3),
            "objects": Digest(stored_size=objects.stored.size, blake3=objects.stored.blake3),
            "vaults": [self.manifest_vault],
        }
        return Manifest(**{**fields, **changes})


def totals(objects: Sequence[ObjectRecord]) -> Totals:
    """The totals of a backup that consists of ``objects`` alone."""
    return Totals(environments=0, files=0, plaintext_bytes=0, objects=len(objects), stored_bytes=0, warnings=0)
