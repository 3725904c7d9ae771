"""Where to read from and with which keys: from the configuration, from the command line, or from the recovery card.

On the worst day there is no configuration: the recovery card, or four options, must be enough.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Self

import msgspec
from msgspec.structs import replace

from archiver.config import Config, Tuning, find_config, load_config
from archiver.crypto.card import CardValues, parse_card
from archiver.crypto.identities import parse_identities, read_identity_text, secret_name
from archiver.crypto.minisign import VerifyKey, is_secret_key
from archiver.crypto.recipients import Identity, vault_id
from archiver.crypto.trust import TrustedKey
from archiver.crypto.vault import Keyring
from archiver.errors import ConfigError, FormatError, UsageError
from archiver.operations.archive import Archive
from archiver.retention.attributes import attribution, no_attributes
from archiver.stores.destination import Destination, open_store, parse_destination, with_surroundings
from archiver.stores.limits import Limits


class AccessOptions(msgspec.Struct, frozen=True):
    """What the operator gave on the command line; every field may be missing."""

    config: Path | None = None
    source: str | None = None
    destination: str | None = None
    identity: Path | Sequence[Path] = ()
    """The recovery card and identity files; one is on standard input where it is ``STANDARD_INPUT``."""
    verify_keys: tuple[str, ...] = ()
    trust_unsigned: bool = False
    passphrase: Identity | None = None
    kms: bool = False
    """Whether AWS KMS may be asked."""
    workers: int | None = None
    limit_download: int | None = None

    def tuning(self, config: Config | None) -> Tuning:
        """What counts before ``config``, and what that says else."""
        configured = Tuning() if config is None else config.tuning
        return configured.overridden(workers=self.workers, limit_download=self.limit_download)


class Access(msgspec.Struct, frozen=True):
    """All that is needed to read a source's backups."""

    destination: Destination
    source: str
    trusted: tuple[TrustedKey, ...] | None
    keyring: Keyring
    card: CardValues
    """What the recovery card says; empty where none was given."""
    tuning: Tuning
    config: Config | None
    """None when the destination came from the recovery card or the command line."""

    @contextmanager
    def open(self) -> Iterator[Archive]:
        """The archive, its store closed at the end."""
        attributes = no_attributes if self.config is None else attribution(self.config.classes)
        store = open_store(self.destination, attributes=attributes, limits=store_limits(self.tuning))
        with closing(store):
            yield Archive(store, self.source, self.trusted, self.keyring, workers=self.tuning.workers)


def resolve_access(options: AccessOptions) -> Access:
    """Put together what ``options``, the recovery card among them and the configuration say, in this order of weight.

    A configuration is read only when it is named, or when the others do not name a destination; but one at the usual
    place that is about the same backups counts for its revocations. Raises ``UsageError`` that says what is missing.
    """
    given = _Given.read([options.identity] if isinstance(options.identity, Path) else options.identity)
    card = given.card
    url = options.destination or (card.destination if options.config is None else None)
    config = _load_config(options.config, given) if url is None else None
    if config is not None:
        destination = parse_destination(config.destination, config.destination_options)
    else:
        destination = parse_destination(url or "")
    source = _source(options.source, card.source, config)
    if card.source is not None and card.source != source:
        raise UsageError(
            f"{given.name} is the recovery card of source {card.source!r}, expected that of {source!r}",
            hint="Give the card of this source, or name the other one with --source.",
        )
    secrets = given.identities if options.passphrase is None else (*given.identities, options.passphrase)
    return Access(
        destination=destination,
        source=source,
        trusted=None
        if options.trust_unsigned
        else trusted_keys(
            options.verify_keys,
            card.verify_keys,
            config,
            revoked=_revoked_nearby(destination, source) if config is None else (),
        ),
        keyring=Keyring(
            secrets,
            options.kms,
            card=given.name if card.destination is not None else None,
            card_vault=None if card.vault_recipient is None else vault_id(str(card.vault_recipient)),
        ),
        card=card,
        tuning=options.tuning(config),
        config=config,
    )


def store_limits(tuning: Tuning) -> Limits:
    """How fast a run may exchange data with its store."""
    return Limits(upload=tuning.limit_upload, download=tuning.limit_download)


def trusted_keys(
    given: Sequence[str],
    on_card: Sequence[TrustedKey],
    config: Config | None,
    *,
    revoked: Sequence[TrustedKey] = (),
) -> tuple[TrustedKey, ...]:
    """The signing keys that are believed: those ``given`` on the command line, else those on the card, else those of
    the configuration.

    A revocation counts wherever it stands, among ``revoked`` too, whichever list counts; the earliest date, if there
    are several. Raises ``UsageError`` for a malformed key, and when there is none at all.
    """
    configured = () if config is None else configured_keys(config)
    keys = [_verify_key(text) for text in given] or [trusted.key for trusted in on_card or configured]
    if not keys:
        raise UsageError(
            "no key to verify backups with",
            hint="Give --verify-key RW…, or --trust-unsigned to restore without knowing who wrote the backup.",
        )
    since: dict[VerifyKey, datetime] = {}
    for trusted in (*on_card, *configured, *revoked):
        if trusted.revoked is not None:
            since[trusted.key] = min(trusted.revoked, since.get(trusted.key, trusted.revoked))
    return tuple(TrustedKey(key, since.get(key)) for key in dict.fromkeys(keys))


def configured_keys(config: Config) -> tuple[TrustedKey, ...]:
    """The signing keys that the configuration trusts, with their revocations; raises ``UsageError``."""
    for number, text in enumerate(config.trusted):
        if is_secret_key(text):
            raise ConfigError(
                f"{config.path}: signing.trusted[{number}] is a secret key: take it out",
                hint="Treat it as stolen if others could read it: docs/SECURITY.md. The public key is shorter, and "
                "stands in the first line of the key's file.",
            )
    since: dict[VerifyKey, datetime | None] = {}
    for text in config.trusted:
        # One key may be written in two ways: its revocation counts for both.
        key, revoked = _verify_key(text), config.revoked.get(text)
        since[key] = min((date for date in (revoked, since.get(key)) if date is not None), default=None)
    return tuple(TrustedKey(key, revoked) for key, revoked in since.items())


def nearby_config(destination: Destination, source: str) -> Config | None:
    """The configuration at the usual place, if it backs up ``source`` to ``destination``; raises ``ConfigError`` for a
    malformed one."""
    try:
        path = find_config(None)
    except ConfigError:
        return None
    config = load_config(path)
    return config if source in config.sources and is_about(config, destination) else None


def is_about(config: Config, destination: Destination) -> bool:
    """Whether ``config`` backs up to ``destination``, however the two are written."""
    configured = parse_destination(config.destination, config.destination_options)
    return with_surroundings(configured, os.environ).identity == with_surroundings(destination, os.environ).identity


def _revoked_nearby(destination: Destination, source: str) -> Sequence[TrustedKey]:
    """What the configuration at the usual place knows of stolen keys, which a card of before does not."""
    # The card is enough: a configuration that cannot be read must not be in the way of a restore.
    with suppress(UsageError):
        config = nearby_config(destination, source)
        if config is not None:
            return configured_keys(config)
    return ()


def _load_config(path: Path | None, given: "_Given") -> Config:
    """Raises ``ConfigError`` that says what else is enough."""
    try:
        found = find_config(path)
    except ConfigError as error:
        if path is None and given.identities:
            error.hint = (
                f"{given.name} holds a key, but is no recovery card: give the card as a second --identity, or --from "
                "URL --source NAME --verify-key RW…, or name a configuration with --config."
            )
        elif path is None:
            error.hint = (
                "Name one with --config, or give the recovery card with --identity, or --from URL --source NAME "
                "--verify-key RW…; archiver init writes one."
            )
        raise
    return load_config(found)


def _verify_key(text: str) -> VerifyKey:
    try:
        return VerifyKey.parse(text)
    except FormatError as error:
        raise UsageError(f"invalid verification key: {error.message}", hint=error.hint) from None


def _source(given: str | None, on_card: str | None, config: Config | None) -> str:
    if config is not None:
        return config.source(given or (on_card if on_card in config.sources else None)).name
    if given is None and on_card is None:
        raise UsageError("no source named", hint="Give --source NAME.")
    return given or on_card or ""


class _Given(msgspec.Struct, frozen=True):
    """What the files given with ``--identity`` hold. Each is read once: it may be a pipe."""

    name: str
    """Of the recovery card, if there is one among them."""
    card: CardValues
    identities: tuple[Identity, ...]

    @classmethod
    def read(cls, paths: Sequence[Path]) -> Self:
        """Raises ``UsageError`` for what is neither a recovery card nor an identity file, and for two cards."""
        found = cls(", ".join(map(secret_name, paths)), CardValues(), ())
        for path in dict.fromkeys(paths):
            name = secret_name(path)
            card, identities = _read_identities(path)
            if _is_card(card):
                if _is_card(found.card):
                    raise UsageError(
                        f"{found.name} and {name} are both recovery cards, expected one",
                        hint="Give the newest card of the source, and beside it files that hold nothing but keys.",
                    )
                found = replace(found, name=name, card=card)
            found = replace(found, identities=(*found.identities, *identities))
        return found


def _is_card(values: CardValues) -> bool:
    return any((values.destination, values.source, values.vault_recipient, values.verify_keys))


def _read_identities(path: Path) -> tuple[CardValues, Sequence[Identity]]:
    text, name = read_identity_text(path), secret_name(path)
    try:
        card = parse_card(text, name)
        if card.destination is not None and all(line.strip()[:1] in ("", "#") for line in text.split("\n")):
            # A card whose key is held elsewhere: it is good for list and verify, or beside what opens the vault.
            return card, ()
        return card, parse_identities(text, name)
    except FormatError as error:
        raise UsageError(error.message, hint=error.hint) from None
