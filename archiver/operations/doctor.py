"""``archiver doctor``: would the next backup work, and could it be restored? Looks, changes nothing."""

import os
import stat
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from archiver.catalog.names import vault_prefix
from archiver.config import Config, SourceConfig
from archiver.crypto.identities import read_secret_file
from archiver.crypto.minisign import SigningKey, VerifyKey
from archiver.crypto.recipients import X25519Recipient, vault_id
from archiver.environment.inspection import inspect
from archiver.errors import ArchiverError
from archiver.operations.sources import resolve_source
from archiver.sources.environments import EnvironmentSpec
from archiver.stores.base import Store
from archiver.stores.destination import open_store, parse_destination

Severity = Literal["ok", "warning", "error"]
_SKEW_LIMIT = 60
"""Seconds that this host's clock may differ from the store's: S3 refuses requests at 15 minutes."""
_FULL = 0.85
"""The share of a map or a disk from which on a pinned snapshot is a danger to the server's writes."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    severity: Severity
    subject: str
    message: str
    hint: str | None = None


def examine(config: Config) -> Iterator[Finding]:
    """Everything that a backup of each source needs, and what a restore will need."""
    yield from _signing(config)
    destination = parse_destination(config.destination, config.destination_options)
    with closing(open_store(destination)) as store:
        reachable = True
        for finding in _destination(store):
            reachable = reachable and finding.severity != "error"
            yield finding
        for source in config.sources.values():
            yield from _source(source)
            if reachable:
                yield from _vault(store, source)
    if not config.sources:
        yield Finding("error", str(config.path), "defines no source", "Run archiver init.")


def _failure(subject: str, error: ArchiverError) -> Finding:
    return Finding("error", subject, error.message, error.hint)


def _signing(config: Config) -> Iterator[Finding]:
    if config.signing_key is None:
        yield Finding("error", "signing key", "no signing.key in the configuration", "Run archiver init.")
        return
    subject = f"signing key {config.signing_key}"
    try:
        key = SigningKey.parse(read_secret_file(config.signing_key)).verify_key
        trusted = [VerifyKey.parse(text) for text in config.trusted]
    except ArchiverError as error:
        yield _failure(subject, error)
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


def _destination(store: Store) -> Iterator[Finding]:
    subject = f"destination {store.url}"
    try:
        skew = (datetime.now(UTC) - store.clock()).total_seconds()
        list(store.list_names())
    except ArchiverError as error:
        yield _failure(subject, error)
        return
    if abs(skew) > _SKEW_LIMIT:
        yield Finding("warning", subject, f"this host's clock differs by {skew:.0f} s", "Let NTP set the clock.")
    yield Finding("ok", subject, "reachable, and may be listed")


def _vault(store: Store, source: SourceConfig) -> Iterator[Finding]:
    subject = f"vault of {source.name}"
    try:
        vault = vault_id(str(X25519Recipient.parse(source.vault)))
        files = [item.key for item in store.list(vault_prefix(source.name, vault))]
    except ArchiverError as error:
        yield _failure(subject, error)
        return
    if not files:
        yield Finding(
            "error", subject, f"the destination holds no key file of vault {vault}: nobody could restore",
            "Check that vault and destination belong together.",
        )  # fmt: skip
    else:
        yield Finding("ok", subject, f"{vault}, opened by {', '.join(key.rsplit('/', 1)[-1] for key in files)}")


def _source(config: SourceConfig) -> Iterator[Finding]:
    try:
        source = resolve_source(config)
    except ArchiverError as error:
        yield _failure(f"source {config.name}", error)
        return
    for spec in source.environments:
        yield from _environment(config.name, spec)
    if source.media is not None:
        subject = f"media of {config.name}"
        if os.path.isdir(source.media) and os.access(source.media, os.R_OK | os.X_OK):
            yield Finding("ok", subject, str(source.media))
        else:
            yield Finding(
                "error", subject, f"{source.media} is no readable directory", "Check the path, and that it is mounted."
            )


def _environment(source: str, spec: EnvironmentSpec) -> Iterator[Finding]:
    subject = f"environment {spec.name} of {source}"
    try:
        report = inspect(spec.directory)
    except ArchiverError as error:
        yield _failure(subject, error)
        return
    if report.refusal is not None:
        yield _failure(subject, report.refusal)
        return
    if report.fullness > _FULL:
        yield Finding(
            "warning", subject, f"its map is {report.fullness:.0%} full",
            "Raise the server's map size: writes fail with MDB_MAP_FULL when it is full.",
        )  # fmt: skip
    holder = report.lock.holder_text if report.lock.live else "no live process"
    pages = f"{report.used_pages} of {report.last_page + 1} pages in use, {report.page_size} bytes each"
    yield Finding(
        "ok", subject, f"{spec.directory}: {report.method}, {holder}, {pages}, map {report.fullness:.0%} full"
    )
