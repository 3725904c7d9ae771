"""Names and keys: what objects are called in a store (docs/FORMAT.md, "Keys"). All keys are relative to the prefix."""

import re
import secrets
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from archiver.catalog.records import ObjectKind
from archiver.errors import FormatError, UsageError

VAULTS = "vault/"
RESERVED_CLASSES = frozenset({"vault", "hold"})

_NAME = re.compile(r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?")
# Hour 24 is none, but some versions of Python take it for midnight.
_BACKUP_ID = re.compile(r"[0-9]{8}T(?:[01][0-9]|2[0-3])[0-9]{4}Z-[0-9a-f]{6}")
_MANIFEST_KEY = re.compile(rf"({_NAME.pattern})/backups/({_NAME.pattern})/({_BACKUP_ID.pattern})/manifest\.json")
_OBJECT_KEY = re.compile(
    rf"({_NAME.pattern})/data/({_NAME.pattern})/([0-9a-f]{{32}})(\.[0-9a-f]{{8}})?\.(mdb|tar|file)\.zst\.age"
)

_VAULT_KEY = re.compile(rf"vault/({_NAME.pattern})/([0-9a-f]{{16}})/({_NAME.pattern})\.(age|kms)")


def check_name(name: str, what: str) -> str:
    """``name`` itself, if it may be part of a key: 1 to 63 of ``a-z 0-9 - _``, beginning and ending with a letter or
    digit; else ``UsageError``."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"invalid {what} name {name!r}",
            hint="Use up to 63 lower-case letters, digits, - and _, beginning and ending with a letter or digit.",
        )
    return name


def check_class(name: str) -> str:
    """``name`` itself, if a retention class may be called so."""
    if name in RESERVED_CLASSES:
        raise UsageError(f"{name!r} cannot be the name of a class", hint="Choose another name, such as daily.")
    return check_name(name, "class")


def is_class(name: str) -> bool:
    """Whether a retention class may be called ``name``."""
    return name not in RESERVED_CLASSES and _NAME.fullmatch(name) is not None


def new_backup_id(started: datetime) -> str:
    """``started`` (UTC) to the second, and 24 random bits, so that two runs in one second differ."""
    return f"{started.astimezone(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def check_backup_id(text: str) -> str:
    """``text`` itself, if it is a backup id; else ``FormatError``."""
    backup_time(text)
    return text


def backup_time(backup: str) -> datetime:
    """When the backup began, to the second, as its id says; raises ``FormatError`` for what is no backup id."""
    try:
        if _BACKUP_ID.fullmatch(backup):
            # What strptime imports would cost each command some milliseconds.
            return datetime.fromisoformat(backup.partition("-")[0])
    except ValueError:
        pass
    raise FormatError(f"invalid backup id {backup!r}, expected one like 20261122T020000Z-3f9c2a")


def new_object_id() -> str:
    """128 random bits in hex."""
    return secrets.token_hex(16)


def new_copy() -> str:
    """32 random bits in hex: what tells a further copy of an object from the first in the same class."""
    return secrets.token_hex(4)


class BackupPlace(NamedTuple):
    """Where one backup's manifest lies."""

    retention_class: str
    source: str
    backup: str

    @property
    def manifest(self) -> str:
        return f"{backups_prefix(self.retention_class, self.source)}{self.backup}/manifest.json"

    @property
    def signature(self) -> str:
        return f"{self.manifest}.minisig"

    @property
    def terms(self) -> str:
        """For how long this copy is kept, where that is not what the manifest says: it was copied into the class."""
        return f"{backups_prefix(self.retention_class, self.source)}{self.backup}/terms.json"

    @property
    def started(self) -> str:
        """The run's first key: an empty object whose age is the run's start by the store's clock."""
        return f"{self._data}.started"

    @property
    def contents(self) -> str:
        return f"{self._data}.contents.jsonl.zst.age"

    @property
    def objects(self) -> str:
        return f"{self._data}.objects.jsonl.zst"

    @property
    def placement(self) -> str:
        return f"{self._data}.placement.jsonl.zst"

    @property
    def _data(self) -> str:
        return f"{data_prefix(self.retention_class, self.source)}{self.backup}"


def backups_prefix(retention_class: str, source: str) -> str:
    return f"{retention_class}/backups/{source}/"


def data_prefix(retention_class: str, source: str) -> str:
    return f"{retention_class}/data/{source}/"


def vault_prefix(source: str, vault: str = "") -> str:
    return f"{VAULTS}{source}/{vault}/" if vault else f"{VAULTS}{source}/"


def vault_key(source: str, vault: str, operator: str, form: str) -> str:
    return f"{vault_prefix(source, vault)}{operator}.{form}"


class VaultPlace(NamedTuple):
    """Where one operator's copy of a vault's identity lies."""

    source: str
    vault: str
    operator: str
    form: Literal["age", "kms"]

    @property
    def key(self) -> str:
        return vault_key(self.source, self.vault, self.operator, self.form)


def parse_vault_key(key: str) -> VaultPlace | None:
    """The place that ``key`` is; None for a key that is no operator's file of a vault."""
    match = _VAULT_KEY.fullmatch(key)
    return None if match is None else VaultPlace(match[1], match[3], match[4], "kms" if match[6] == "kms" else "age")


def object_key(retention_class: str, source: str, object_id: str, kind: ObjectKind, copy: str = "") -> str:
    """``copy`` is empty for the first key of the object in the class, else what ``new_copy`` gave."""
    name = f"{object_id}.{copy}" if copy else object_id
    return f"{data_prefix(retention_class, source)}{name}.{kind}.zst.age"


class ObjectPlace(NamedTuple):
    """What the key of an object says."""

    retention_class: str
    source: str
    object_id: str
    kind: str


def parse_object_key(key: str) -> ObjectPlace | None:
    """What ``key`` says; None for a key that is no object's."""
    match = _OBJECT_KEY.fullmatch(key)
    if match is None or match[1] in RESERVED_CLASSES:
        return None
    return ObjectPlace(match[1], match[3], match[5], match[7])


def parse_manifest_key(key: str) -> BackupPlace | None:
    """The place of the backup whose ``manifest.json`` is ``key``; None for any other key."""
    match = _MANIFEST_KEY.fullmatch(key)
    if match is None or match[1] in RESERVED_CLASSES:
        return None
    try:
        return BackupPlace(match[1], match[3], check_backup_id(match[5]))
    except FormatError:
        return None


def check_object_key(key: str, object_id: str) -> str:
    """``key`` itself, if it is a well-formed key of the object ``object_id``; else ``FormatError``."""
    place = parse_object_key(key)
    if place is None or place.object_id != object_id:
        raise FormatError(f"placement names {key!r} for object {object_id}")
    return key
