"""Where to read from and with which keys: from the configuration, from the command line, or from the recovery card.

On the worst day there is no configuration: the recovery card, or four options, must be enough.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

from archiver.config import Config, Tuning, find_config, load_config
from archiver.crypto.card import CardValues, parse_card
from archiver.crypto.identities import parse_identities, read_identity_text, secret_name
from archiver.crypto.minisign import VerifyKey
from archiver.crypto.recipients import Identity
from archiver.crypto.trust import TrustedKey
from archiver.crypto.vault import Keyring
from archiver.errors import FormatError, UsageError
from archiver.operations.archive import Archive
from archiver.stores.destination import Destination, open_store, parse_destination


@dataclass(frozen=True, slots=True)
class AccessOptions:
    """What the operator gave on the command line; every field may be missing."""

    config: Path | None = None
    source: str | None = None
    destination: str | None = None
    identity: Path | None = None
    """The recovery card or an identity file, on standard input where it is ``STANDARD_INPUT``."""
    verify_keys: tuple[str, ...] = ()
    trust_unsigned: bool = False
    passphrase: Identity | None = None
    kms: bool = False
    """Whether AWS KMS may be asked."""


@dataclass(frozen=True, slots=True)
class Access:
    """All that is needed to read a source's backups."""

    destination: Destination
    source: str
    trusted: tuple[TrustedKey, ...] | None
    keyring: Keyring
    tuning: Tuning
    config: Config | None
    """None when the destination came from the recovery card or the command line."""

    @contextmanager
    def open(self) -> Iterator[Archive]:
        """The archive, its store closed at the end."""
        with closing(open_store(self.destination)) as store:
            yield Archive(store, self.source, self.trusted, self.keyring, workers=self.tuning.workers)


def resolve_access(options: AccessOptions) -> Access:
    """Put together what ``options``, the recovery card among them and the configuration say, in this order of weight.

    A configuration is read only when it is named, or when the others do not name a destination. Raises ``UsageError``
    that says what is missing.
    """
    given = _Given.read(options.identity)
    card = given.card
    url = options.destination or (card.destination if options.config is None else None)
    config = load_config(find_config(options.config)) if url is None else None
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
        trusted=None if options.trust_unsigned else trusted_keys(options.verify_keys, card.verify_keys, config),
        keyring=Keyring(secrets, options.kms),
        tuning=Tuning() if config is None else config.tuning,
        config=config,
    )


def trusted_keys(given: Sequence[str], on_card: Sequence[TrustedKey], config: Config | None) -> tuple[TrustedKey, ...]:
    """The signing keys that are believed: those ``given`` on the command line, else those on the card, else those of
    the configuration.

    A revocation counts wherever it stands, whichever list counts; the earliest date, if there are several. Raises
    ``UsageError`` for a malformed key, and when there is none at all.
    """
    configured = () if config is None else configured_keys(config)
    keys = [_verify_key(text) for text in given] or [trusted.key for trusted in on_card or configured]
    if not keys:
        raise UsageError(
            "no key to verify backups with",
            hint="Give --verify-key RW…, or --trust-unsigned to restore without knowing who wrote the backup.",
        )
    revoked: dict[VerifyKey, datetime] = {}
    for trusted in (*on_card, *configured):
        if trusted.revoked is not None:
            revoked[trusted.key] = min(trusted.revoked, revoked.get(trusted.key, trusted.revoked))
    return tuple(TrustedKey(key, revoked.get(key)) for key in dict.fromkeys(keys))


def configured_keys(config: Config) -> tuple[TrustedKey, ...]:
    """The signing keys that the configuration trusts, with their revocations; raises ``UsageError``."""
    return tuple(TrustedKey(_verify_key(text), config.revoked.get(text)) for text in config.trusted)


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


@dataclass(frozen=True, slots=True)
class _Given:
    """What ``--identity`` holds. It is read once: it may be a pipe."""

    name: str
    card: CardValues
    identities: tuple[Identity, ...]

    @classmethod
    def read(cls, path: Path | None) -> Self:
        """Raises ``UsageError`` for what is neither a recovery card nor an identity file."""
        if path is None:
            return cls("", CardValues(), ())
        text, name = read_identity_text(path), secret_name(path)
        try:
            card = parse_card(text, name)
            if card.destination is not None and all(line.strip()[:1] in ("", "#") for line in text.split("\n")):
                # A card whose key is held elsewhere: it is good for list and verify, or beside a passphrase or KMS.
                return cls(name, card, ())
            return cls(name, card, tuple(parse_identities(text, name)))
        except FormatError as error:
            raise UsageError(error.message, hint=error.hint) from None
