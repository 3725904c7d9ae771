"""What a backup is asked for, and what comes of it."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import msgspec

from archiver.catalog.manifest import Manifest
from archiver.catalog.records import EnvironmentRecord
from archiver.config import PinLimits, RetentionClass, Tuning
from archiver.crypto.keys import PublicKey
from archiver.crypto.minisign import SigningKey
from archiver.crypto.trust import TrustedKey
from archiver.operations.sources import Source


class BackupRequest(msgspec.Struct, frozen=True):
    """What to back up, how, and for how long."""

    source: Source
    retention_class: str
    classes: Mapping[str, RetentionClass]
    """All that are configured, ``retention_class`` among them; a rule of the bucket that deletes sooner makes the
    promise shorter."""
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


class BackupResult(msgspec.Struct, frozen=True):
    """A committed backup."""

    manifest: Manifest
    retention_class: str
    environments: Sequence[EnvironmentRecord]
    skew_seconds: float
    """Between the first and the last pin."""
    reused_objects: int
    """Objects of earlier backups that its files lie in."""
    reused_bytes: int
    """What these have in the store."""
    requests: Mapping[str, int]
    """What was sent to the destination's service, by operation; empty for a directory."""
