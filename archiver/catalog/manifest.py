"""The manifest: the small, public, signed description of one backup. Its existence is what commits a backup."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from archiver.catalog.names import check_backup_id
from archiver.catalog.records import Consistency, Count, Hash, Name, VaultId
from archiver.errors import FormatError

VERSION: Final = 1
MAX_MANIFEST = 1024 * 1024
"""Bytes; a reader refuses a larger manifest before it reads it."""
MAX_SIGNATURE = 4096
"""Bytes; so of a signature. With the longest trusted comment one has about 1,300."""

MAX_SEQUENCE = 2**53
Days = Annotated[int, Meta(ge=1, le=36500)]
KeyId = Annotated[str, Meta(pattern=r"^[0-9A-F]{1,16}\Z")]
"""A signing key's number in hex without leading zeros, as minisign prints it."""


class Digest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Size in bytes and BLAKE3 of a list as it is stored."""

    stored_size: Count
    blake3: Hash


class Totals(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the backup holds, in counts and bytes."""

    environments: Count
    files: Count
    plaintext_bytes: Count
    objects: Count
    stored_bytes: Count
    warnings: Count


class Previous(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The source's manifest before this one: the link that shows removed or reordered backups."""

    backup: str
    blake3: Hash
    promised_until: datetime
    """Of that backup: whoever misses it before then knows that it was removed, and did not expire."""

    def __post_init__(self) -> None:
        check_backup_id(self.backup)
        _check_time(self.promised_until)


class Vault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A vault that objects of this backup are encrypted to; the first one is that of contents."""

    id: VaultId
    recipient: Annotated[str, Meta(max_length=4096)]


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """docs/FORMAT.md, "manifest.json"."""

    version: Literal[1]
    backup: str
    source: Name
    started: datetime
    """By the store's clock, before anything was created."""
    finished: datetime
    keep_days: Days
    lease_days: Days
    consistency: Consistency
    """The weakest method by which any environment of this backup was taken."""
    totals: Totals
    sequence: Annotated[int, Meta(ge=1, le=MAX_SEQUENCE)]
    previous: Previous | None
    signer: KeyId
    contents: Digest
    objects: Digest
    vaults: Annotated[list[Vault], Meta(min_length=1, max_length=1000)]

    def __post_init__(self) -> None:
        check_backup_id(self.backup)
        _check_time(self.started)
        _check_time(self.finished)
        try:
            _check_time(self.promised_until)
        except OverflowError:
            raise FormatError(f"a manifest's promise ends after the year 9999: {self.started}") from None

    @property
    def promised_until(self) -> datetime:
        """Until when the backup is sure to be restorable, as far as this manifest's own class goes."""
        return self.started + timedelta(days=self.keep_days)


def _check_time(moment: datetime) -> None:
    """Refuse what cannot be compared with other times, or told in UTC."""
    if moment.tzinfo is None:
        raise FormatError("a manifest's times need a time zone")
    try:
        moment.astimezone(UTC)
    except OverflowError:
        raise FormatError(f"a time in a manifest is beyond the years 1 to 9999: {moment}") from None


def encode_manifest(manifest: Manifest) -> bytes:
    """The exact bytes that are signed and stored: indented JSON in the order of the fields."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def decode_manifest(data: bytes, what: str) -> Manifest:
    """Parse and validate; ``what`` names the manifest in errors."""
    stated = re.search(rb'"version"\s*:\s*([0-9]{1,9})\b', data[:4096])
    if stated is not None and int(stated[1]) > VERSION:
        raise FormatError(
            f"{what} has format version {int(stated[1])}, this archiver reads up to {VERSION}",
            hint="Install a newer archiver.",
        )
    try:
        return msgspec.json.decode(data, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"{what}: {error}") from None
    except FormatError as error:
        raise FormatError(f"{what}: {error.message}") from None
