"""``archiver keys card``: the recovery card anew, after a rotation, another signing key, or another operator."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from archiver.config import PASSPHRASE
from archiver.crypto.card import OpensWith, RecoveryCard
from archiver.crypto.hybrid import HybridIdentity
from archiver.crypto.identities import write_secret_file
from archiver.crypto.keys import SecretKey, parse_recipient
from archiver.crypto.recipients import vault_id
from archiver.crypto.x25519 import X25519Identity
from archiver.errors import ConfigError, FormatError, UsageError
from archiver.operations.access import configured_keys
from archiver.operations.keys_access import KeySite
from archiver.operations.vaults import unlock_vault, vault_places
from archiver.stores.destination import parse_destination, with_surroundings


@dataclass(frozen=True, slots=True)
class WrittenCard:
    """A card that now exists, unless it was a dry run."""

    path: Path
    text: str
    vault: str
    has_identity: bool
    opened_by: str | None
    """Key of the file through which the given identity opened the vault."""


def write_card(site: KeySite, path: Path, *, dry_run: bool = False) -> WrittenCard:
    """Write the recovery card of the source to ``path``, which must not exist.

    It holds the operator's identity if exactly one was given. An identity, passphrase or KMS that is given must open
    the current vault: a card that does not is worse than none. Raises ``UsageError`` for several identities.
    """
    config, source = site.configuration, site.configured
    try:
        recipient = parse_recipient(source.vault)
    except FormatError as error:
        raise ConfigError(f"{config.path}: source.{source.name}.vault: {error.message}", hint=error.hint) from None
    secrets = [item for item in site.keyring.identities if isinstance(item, X25519Identity | HybridIdentity)]
    if len(secrets) > 1:
        raise UsageError(
            f"expected one identity for the card, got {len(secrets)}", hint="Give a file with one operator's identity."
        )
    opened_by = None
    if site.keyring:
        places = vault_places(site.store, site.source, vault_id(source.vault))
        opened_by = unlock_vault(site.store, places, site.keyring, source.vault).place.key
    destination = parse_destination(config.destination, config.destination_options)
    card = RecoveryCard(
        destination=with_surroundings(destination, os.environ).display,
        source=source.name,
        vault_recipient=recipient,
        verify_keys=configured_keys(config),
        created=datetime.now(UTC),
        identity=secrets[0] if secrets else None,
        opens_with=_ways(site, secrets),
    )
    text = card.render()
    if not dry_run:
        write_secret_file(path, text)
    return WrittenCard(path, text, vault_id(source.vault), bool(secrets), opened_by)


def _ways(site: KeySite, secrets: Sequence[SecretKey]) -> tuple[OpensWith, ...]:
    """What the card says to give beside it: that which just opened the vault, else whatever the operators have."""
    if site.keyring:
        if secrets:
            return ("key",)
        return ("kms",) if site.keyring.kms and not site.keyring.identities else ("passphrase",)
    ways: list[OpensWith] = []
    for text in site.configured.operators.values():
        way: OpensWith = "passphrase" if text == PASSPHRASE else "kms" if text.startswith("arn:") else "key"
        if way not in ways:
            ways.append(way)
    return tuple(ways) or ("key",)
