"""``archiver doctor``: would the next backup work, and could it be restored? Looks, and changes no data."""

import os
import stat
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from archiver.catalog.names import vault_prefix
from archiver.config import Config, SourceConfig
from archiver.crypto.identities import read_secret_file
from archiver.crypto.minisign import SigningKey, VerifyKey
from archiver.crypto.recipients import X25519Recipient, vault_id
from archiver.errors import ArchiverError
from archiver.operations.doctor_environment import examine_environment
from archiver.operations.findings import Finding, nearest
from archiver.operations.sources import resolve_source
from archiver.stores.base import Store
from archiver.stores.destination import FileDestination, open_store, parse_destination

_SKEW_LIMIT = 60
"""Seconds that this host's clock may differ from the store's: S3 refuses requests at 15 minutes."""
_LOW_SPACE = 0.1
"""The share of a destination's file system below which its free space is worth a warning."""


def examine(config: Config) -> Iterator[Finding]:
    """Everything that a backup of each source needs, and what a restore will need."""
    yield from _signing(config)
    yield from _state(config)
    destination = parse_destination(config.destination, config.destination_options)
    with closing(open_store(destination)) as store:
        reachable = True
        if isinstance(destination, FileDestination):
            yield from _directory(destination.root)
        for finding in _destination(store):
            reachable = reachable and finding.severity != "error"
            yield finding
        for source in config.sources.values():
            yield from _source(source, config)
            if reachable:
                yield from _vault(store, source)
    if not config.sources:
        yield Finding("error", str(config.path), "defines no source", "Run archiver init.")


def _signing(config: Config) -> Iterator[Finding]:
    if config.signing_key is None:
        yield Finding("error", "signing key", "no signing.key in the configuration", "Run archiver init.")
        return
    subject = f"signing key {config.signing_key}"
    try:
        key = SigningKey.parse(read_secret_file(config.signing_key)).verify_key
        trusted = [VerifyKey.parse(text) for text in config.trusted]
    except ArchiverError as error:
        yield Finding.of(subject, error)
        return
    mode = stat.S_IMODE(config.signing_key.stat().st_mode)
    if mode & 0o077:
        yield Finding("warning", subject, f"other users may read it (mode {mode:04o})", "chmod 600 the file.")
    if key not in trusted:
        yield Finding(
            "error", subject, f"its public key {key} is not in signing.trusted", "Add it: else no backup verifies."
        )
    else:
        yield Finding("ok", subject, f"signs as {key.key_id}")


def _state(config: Config) -> Iterator[Finding]:
    directory = nearest(config.state_directory)
    if not os.access(directory, os.W_OK | os.X_OK):
        yield Finding(
            "error", f"state directory {config.state_directory}", f"{directory} cannot be written to by this user",
            "Set state_directory in archiver.toml to a directory that this user may write.",
        )  # fmt: skip


def _directory(root: Path) -> Iterator[Finding]:
    """A destination on this host: whether it can be written to, and how full it is."""
    subject, directory = f"destination {root}", nearest(root)
    status = os.statvfs(directory)
    if status.f_flag & os.ST_RDONLY or not os.access(directory, os.W_OK | os.X_OK):
        yield Finding("error", subject, "cannot be written to by this user", "Mount it read-write, or mend its mode.")
    free = status.f_bavail * status.f_frsize
    if free < _LOW_SPACE * status.f_blocks * status.f_frsize:
        yield Finding("warning", subject, f"only {free / 2**20:,.0f} MiB are free", "Free space: backups need room.")


def _destination(store: Store) -> Iterator[Finding]:
    subject = f"destination {store.url}"
    try:
        skew = (datetime.now(UTC) - store.clock()).total_seconds()
        list(store.list_names())
    except ArchiverError as error:
        yield Finding.of(subject, error)
        return
    if abs(skew) > _SKEW_LIMIT:
        yield Finding("warning", subject, f"this host's clock differs by {skew:.0f} s", "Let NTP set the clock.")
    yield Finding("ok", subject, "reachable, and may be listed; each backup proves first that it may create keys")


def _vault(store: Store, source: SourceConfig) -> Iterator[Finding]:
    subject = f"vault of {source.name}"
    try:
        vault = vault_id(str(X25519Recipient.parse(source.vault)))
        files = [item.key for item in store.list(vault_prefix(source.name, vault))]
    except ArchiverError as error:
        yield Finding.of(subject, error)
        return
    if not files:
        yield Finding(
            "error", subject, f"the destination holds no key file of vault {vault}: nobody could restore",
            "Check that vault and destination belong together.",
        )  # fmt: skip
    else:
        yield Finding("ok", subject, f"{vault}, opened by {', '.join(key.rsplit('/', 1)[-1] for key in files)}")


def _source(section: SourceConfig, config: Config) -> Iterator[Finding]:
    try:
        source = resolve_source(section)
    except ArchiverError as error:
        yield Finding.of(f"source {section.name}", error)
        return
    for spec in source.environments:
        yield from examine_environment(section.name, spec, config.pin, config.state_directory)
    if source.media is not None:
        subject = f"media of {section.name}"
        if os.path.isdir(source.media) and os.access(source.media, os.R_OK | os.X_OK):
            if not os.listdir(source.media):
                yield Finding("warning", subject, f"{source.media} is empty", "Check that its volume is mounted.")
            yield Finding("ok", subject, str(source.media))
        else:
            yield Finding(
                "error", subject, f"{source.media} is no readable directory", "Check the path, and that it is mounted."
            )
