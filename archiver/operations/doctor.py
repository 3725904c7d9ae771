"""``archiver doctor``: would the next backup work, and could it be restored? Looks, and changes no data."""

import os
import stat
from collections.abc import Iterator
from contextlib import closing

from archiver.config import Config, SourceConfig
from archiver.crypto.card import parse_card
from archiver.crypto.identities import read_secret_file
from archiver.crypto.minisign import SigningKey
from archiver.crypto.recipients import vault_id
from archiver.crypto.trust import TrustedKey
from archiver.errors import ArchiverError
from archiver.operations.access import configured_keys
from archiver.operations.doctor_destination import directory_findings, examine_bucket, overdue_findings, reach
from archiver.operations.doctor_environment import examine_environment
from archiver.operations.doctor_vault import vault_findings
from archiver.operations.findings import Finding, nearest
from archiver.operations.sources import resolve_source
from archiver.stores.destination import FileDestination, S3Destination, open_store, parse_destination


def examine(config: Config) -> Iterator[Finding]:
    """Everything that a backup of each source needs, and what a restore will need."""
    yield from _signing(config)
    yield from _cards(config)
    yield from _state(config)
    destination = parse_destination(config.destination, config.destination_options)
    with closing(open_store(destination)) as store:
        if isinstance(destination, FileDestination):
            yield from directory_findings(destination.root)
        reached = list(reach(destination, store))
        yield from reached
        reachable = all(finding.severity != "error" for finding in reached)
        if reachable and isinstance(destination, S3Destination):
            yield from examine_bucket(destination, store, config)
        elif reachable:
            yield from overdue_findings(store, config)
        for source in config.sources.values():
            yield from _source(source, config)
            if reachable:
                yield from vault_findings(store, source)
    if not config.sources:
        yield Finding("error", str(config.path), "defines no source", "Run archiver init.")


def _signing(config: Config) -> Iterator[Finding]:
    if config.signing_key is None:
        yield Finding("error", "signing key", "no signing.key in the configuration", "Run archiver init.")
        return
    subject = f"signing key {config.signing_key}"
    try:
        key = SigningKey.parse(read_secret_file(config.signing_key)).verify_key
        trusted = configured_keys(config)
    except ArchiverError as error:
        yield Finding.of(subject, error)
        return
    mode = stat.S_IMODE(config.signing_key.stat().st_mode)
    if mode & 0o077:
        yield Finding("warning", subject, f"other users may read it (mode {mode:04o})", "chmod 600 the file.")
    own = next((item for item in trusted if item.key == key), None)
    if own is None:
        yield Finding(
            "error", subject, f"its public key {key} is not in signing.trusted", "Add it: else no backup verifies."
        )
    elif own.revoked is not None:
        yield Finding(
            "error", subject, f"{key.key_id} is revoked since {own.revoked:%Y-%m-%dT%H:%M:%SZ}: it signs no backup",
            "Make a new one with archiver keys generate --signing, for signing.key and signing.trusted.",
        )  # fmt: skip
    else:
        yield Finding("ok", subject, f"signs as {key.key_id}")
    others = [item for item in trusted if item.key != key]
    if others:
        yield Finding("ok", "trusted signing keys", ", ".join(_key_in_words(item) for item in others))


def _key_in_words(trusted: TrustedKey) -> str:
    if trusted.revoked is None:
        return trusted.key.key_id
    return f"{trusted.key.key_id} until {trusted.revoked:%Y-%m-%dT%H:%M:%SZ}"


def _cards(config: Config) -> Iterator[Finding]:
    """Recovery cards that ``init`` or ``keys card`` wrote here and that were left with their secret."""
    for path in sorted(config.path.parent.glob("recovery-card*.txt")):
        try:
            text = read_secret_file(path)
            vault = parse_card(text, str(path)).vault_recipient
        except ArchiverError:
            # Of another user, or no card.
            continue
        if any(line.strip().startswith("AGE-SECRET-KEY-") for line in text.split("\n")):
            opened = "backups" if vault is None else f"vault {vault_id(str(vault))}"
            yield Finding(
                "warning", f"recovery card {path}", f"beside {config.path.name}, with a secret key that opens {opened}",
                "Move it offline, to two places, and delete it here: whoever takes this host could read the backups.",
            )  # fmt: skip


def _state(config: Config) -> Iterator[Finding]:
    directory = nearest(config.state_directory)
    if not os.access(directory, os.W_OK | os.X_OK):
        yield Finding(
            "error", f"state directory {config.state_directory}", f"{directory} cannot be written to by this user",
            "Set state_directory in archiver.toml to a directory that this user may write.",
        )  # fmt: skip


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
