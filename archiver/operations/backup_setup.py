"""From configuration to a backup, or to what a backup would be."""

import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import msgspec

from archiver.catalog.names import check_class
from archiver.config import HELD, Config, PinLimits, RetentionClass, SourceConfig
from archiver.crypto.identities import read_secret_file
from archiver.crypto.keys import parse_recipient
from archiver.crypto.minisign import SigningKey, VerifyKey
from archiver.crypto.trust import TrustedKey
from archiver.environment.inspection import inspect
from archiver.environment.messages import Declared, Method
from archiver.errors import ArchiverError, ConfigError, FormatError, UsageError
from archiver.operations.access import configured_keys, store_limits
from archiver.operations.backup import backup
from archiver.operations.backup_request import BackupRequest, BackupResult
from archiver.operations.sources import Source, resolve_source
from archiver.progress import Reporter
from archiver.retention.attributes import attribution
from archiver.sources.entries import FileEntry, Skipped
from archiver.sources.environments import EnvironmentSpec, damage_explained, data_files
from archiver.sources.media import MediaTree
from archiver.stores.base import Store
from archiver.stores.destination import Destination, FileDestination, open_store, parse_destination


class PreviewedEnvironment(msgspec.Struct, frozen=True):
    """How an environment would be taken now."""

    name: str
    directory: Path
    method: Method
    copy_size: int | None
    """About how many bytes; None where a command makes the copy."""


class Preview(msgspec.Struct, frozen=True):
    """What a backup made now would hold. Sizes are bytes before compression."""

    source: Source
    environments: Sequence[PreviewedEnvironment]
    files: int
    file_bytes: int
    skipped: Sequence[Skipped]


def backup_source(
    config: Config, name: str | None, retention_class: str, label: str, reporter: Reporter
) -> tuple[BackupResult, float]:
    """Back up the source called ``name``, and nothing more; the result, and the seconds it took."""
    began = time.monotonic()
    source = config.source(name)
    request = backup_request(config, source, retention_class, label)
    with closing(open_destination(config, source)) as store:
        return backup(store, request, reporter), time.monotonic() - began


def preview(config: Config, name: str | None, retention_class: str) -> Preview:
    """Everything but the backup: keys and destination are checked, environments inspected, the media tree listed."""
    request = backup_request(config, config.source(name), retention_class, "")
    source = request.source
    environments = [_previewed(spec, config.pin) for spec in source.environments]
    files = size = 0
    skipped = []
    if source.media is not None:
        with MediaTree(source.media, skip=data_files(source.environments), exclude=source.exclude) as tree:
            for entry in tree.walk():
                if isinstance(entry, FileEntry):
                    files += 1
                    size += entry.size
                elif isinstance(entry, Skipped):
                    skipped.append(entry)
    return Preview(source, environments, files, size, skipped)


def _previewed(spec: EnvironmentSpec, limits: PinLimits) -> PreviewedEnvironment:
    """Raises what a backup would; a command is not run, so that what it would write is not known."""
    if spec.command is not None:
        return PreviewedEnvironment(spec.name, spec.directory, "external", None)
    declared: Declared | None = "frozen" if spec.frozen else None
    with damage_explained(spec):
        report = inspect(spec.directory, limits=limits, declared=declared, max_size=spec.max_size)
    if isinstance(report.way, ArchiverError):
        raise report.way
    return PreviewedEnvironment(spec.name, spec.directory, report.way, report.copy_size)


def check_backup_class(config: Config, name: str) -> RetentionClass:
    """The terms of the class called ``name``; raises ``UsageError`` for one that nothing can be backed up into."""
    if name == HELD:
        raise UsageError(
            f"nothing is backed up into class {HELD!r}: it keeps copies until they are released",
            hint="Back up into another class, then run archiver hold latest.",
        )
    return config.retention_class(check_class(name))


def open_destination(config: Config, source: SourceConfig) -> Store:
    """The configuration's store, to back up ``source`` into; the caller closes it."""
    destination = parse_destination(config.destination, config.destination_options)
    return open_store(
        destination,
        config.state_directory / source.name / "journal",
        attribution(config.classes),
        store_limits(config.tuning),
    )


def backup_request(config: Config, source: SourceConfig, retention_class: str, label: str) -> BackupRequest:
    """Everything that must be right before anything is read or sent."""
    check_backup_class(config, retention_class)
    if config.signing_key is None:
        raise ConfigError(f"{config.path} names no signing key", hint="Run archiver init, or set signing.key.")
    try:
        vault = parse_recipient(source.vault)
    except FormatError as error:
        raise ConfigError(f"{config.path}: source.{source.name}.vault: {error.message}", hint=error.hint) from None
    try:
        signing_key = SigningKey.parse(read_secret_file(config.signing_key))
    except (FormatError, UsageError) as error:
        raise ConfigError(
            f"{config.path}: signing.key: {error.message}",
            hint=error.hint
            or "Restore the key, or make a new one with archiver keys generate --signing: docs/SECURITY.md.",
        ) from None
    trusted = configured_keys(config)
    _check_trusted(signing_key.verify_key, trusted, config)
    resolved = resolve_source(source)
    _check_apart(parse_destination(config.destination, config.destination_options), resolved)
    return BackupRequest(
        source=resolved,
        retention_class=retention_class,
        classes=config.classes,
        vault=vault,
        signing_key=signing_key,
        state_directory=config.state_directory / source.name,
        tuning=config.tuning,
        pin=config.pin,
        label=label,
        trusted=trusted,
        operators=tuple(source.operators),
    )


def _check_trusted(own: VerifyKey, trusted: Sequence[TrustedKey], config: Config) -> None:
    """A backup that nobody would believe is none."""
    found = next((key for key in trusted if key.key == own), None)
    if found is None:
        raise ConfigError(
            f"{config.path}: signing.key: its public key {own} is not in signing.trusted",
            hint="Add it there, and write the recovery card anew with archiver keys card: else no backup verifies.",
        )
    if found.revoked is not None:
        raise ConfigError(
            f"{config.path}: signing.key: key {own.key_id} is revoked since {found.revoked:%Y-%m-%dT%H:%M:%SZ}",
            hint="Make a new one with archiver keys generate --signing, name it in signing.key and add it to "
            "signing.trusted.",
        )


def _check_apart(destination: Destination, source: Source) -> None:
    """A destination inside the media tree would be part of every backup, with all earlier ones in it."""
    if isinstance(destination, FileDestination) and source.media is not None:
        root = destination.root.resolve()
        if root.is_relative_to(source.media.resolve()):
            raise ConfigError(
                f"the destination {root} lies inside the media directory {source.media}",
                hint="Choose a destination outside of what is backed up.",
            )
