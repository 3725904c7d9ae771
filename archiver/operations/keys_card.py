"""``archiver keys card``: the recovery card anew, after a rotation, another signing key, or another operator."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from msgspec.structs import replace

from archiver.config import PASSPHRASE, Config
from archiver.crypto.card import OpensWith, RecoveryCard
from archiver.crypto.hybrid import HybridIdentity
from archiver.crypto.identities import write_secret_file
from archiver.crypto.keys import SecretKey, parse_recipient
from archiver.crypto.recipients import vault_id
from archiver.crypto.trust import TrustedKey
from archiver.crypto.x25519 import X25519Identity
from archiver.errors import AlreadyExistsError, ArchiverError, ConfigError, FormatError, NotFoundError, UsageError
from archiver.operations.access import configured_keys
from archiver.operations.keys_access import KeySite
from archiver.operations.vaults import OpenedVault, unlock_vault, vault_places
from archiver.stores.destination import parse_destination, with_surroundings


class WrittenCard(msgspec.Struct, frozen=True):
    """A card that now exists, unless it was a dry run."""

    path: Path
    text: str
    vault: str
    has_identity: bool
    opened_by: str | None
    """Key of the file through which the given identity opened the vault."""


def write_card(site: KeySite, path: Path, *, dry_run: bool = False) -> WrittenCard:
    """Write the recovery card of the source to ``path``, which must not exist.

    It holds the operator's identity if exactly one was given. What goes on the card must open the current vault, else
    the passphrase or KMS that is given: a card that does not is worse than none. Raises ``UsageError`` for several
    identities, and ``ConfigError`` where the configuration trusts no signing key. A dry run refuses a ``path`` that
    could not be created.
    """
    config, source = site.configuration, site.configured
    verify_keys = _signers(config)
    try:
        recipient = parse_recipient(source.vault)
    except FormatError as error:
        raise ConfigError(f"{config.path}: source.{source.name}.vault: {error.message}", hint=error.hint) from None
    secrets = [item for item in site.keyring.identities if isinstance(item, X25519Identity | HybridIdentity)]
    if len(secrets) > 1:
        raise UsageError(
            f"expected one identity for the card, got {len(secrets)}", hint="Give a file with one operator's identity."
        )
    opened = _open(site, secrets) if site.keyring else None
    destination = parse_destination(config.destination, config.destination_options)
    card = RecoveryCard(
        destination=with_surroundings(destination, os.environ).display,
        source=source.name,
        vault_recipient=recipient,
        verify_keys=verify_keys,
        created=datetime.now(UTC),
        identity=secrets[0] if secrets else None,
        opens_with=_ways(site, secrets, opened),
    )
    text = card.render()
    if dry_run:
        _rehearse(path)
    else:
        write_secret_file(path, text)
    opened_by = None if opened is None else opened.place.key
    return WrittenCard(path, text, vault_id(source.vault), bool(secrets), opened_by)


def _signers(config: Config) -> tuple[TrustedKey, ...]:
    keys = configured_keys(config)
    if not keys:
        raise ConfigError(
            f"{config.path}: expected a signing key in signing.trusted, got none: nothing could be restored with the "
            "card",
            hint="List the public keys that are to be believed.",
        )
    return keys


def _open(site: KeySite, secrets: Sequence[SecretKey]) -> OpenedVault:
    """Open the current vault with what is to go on the card, whatever else was given; if that is nothing, with all."""
    recipient = site.configured.vault
    keyring = replace(site.keyring, identities=secrets, kms=False) if secrets else site.keyring
    places = vault_places(site.store, site.source, vault_id(recipient))
    if not places:
        raise NotFoundError(
            f"{site.store.url} holds no key file of vault {vault_id(recipient)} of source {site.source!r}",
            hint="Check that vault and destination in archiver.toml belong together.",
        )
    return unlock_vault(site.store, places, keyring, recipient)


def _rehearse(path: Path) -> None:
    """Raise for what ``write_secret_file`` would refuse, as far as that shows."""
    if os.path.lexists(path):
        raise AlreadyExistsError(
            f"{path} exists already", hint="Move it away if it may be replaced; it may hold the only copy of a key."
        )
    if not path.parent.is_dir():
        raise ArchiverError(f"cannot create {path}: {path.parent} is no directory")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ArchiverError(f"cannot create {path}: {path.parent} may not be written to")


def _ways(site: KeySite, secrets: Sequence[SecretKey], opened: OpenedVault | None) -> tuple[OpensWith, ...]:
    """What the card says to give beside it: that which just opened the vault, else whatever the operators have."""
    if secrets:
        return ("key",)
    if opened is not None:
        return ("kms",) if opened.place.form == "kms" else ("passphrase",)
    ways: list[OpensWith] = []
    for text in site.configured.operators.values():
        way: OpensWith = "passphrase" if text == PASSPHRASE else "kms" if text.startswith("arn:") else "key"
        if way not in ways:
            ways.append(way)
    return tuple(ways) or ("key",)
