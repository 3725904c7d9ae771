"""Where to read from and with which keys: from the configuration, from the command line, or from the recovery card.

On the worst day there is no configuration: the recovery card, or four options, must be enough.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from archiver.config import Config, Tuning, find_config, load_config
from archiver.crypto.card import CardValues, parse_card
from archiver.crypto.identities import read_identity_file, read_secret_file
from archiver.crypto.minisign import VerifyKey
from archiver.crypto.recipients import Identity
from archiver.crypto.trust import TrustedKey
from archiver.crypto.vault import Keyring
from archiver.errors import FormatError, UsageError
from archiver.operations.archive import Archive
from archiver.stores.destination import Destination, open_store, parse_destination

_KEY_PREFIX = "AGE-SECRET-KEY-"


@dataclass(frozen=True, slots=True)
class AccessOptions:
    """What the operator gave on the command line; every field may be missing."""

    config: Path | None = None
    source: str | None = None
    destination: str | None = None
    identity: Path | None = None
    verify_keys: tuple[str, ...] = ()
    trust_unsigned: bool = False


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
    text = None if options.identity is None else read_secret_file(options.identity)
    card = None if text is None else _card(text, str(options.identity))
    url = options.destination or (card.destination if card is not None and options.config is None else None)
    config = load_config(find_config(options.config)) if url is None else None
    if config is not None:
        destination = parse_destination(config.destination, config.destination_options)
    else:
        destination = parse_destination(url or "")
    source = _source(options.source, None if card is None else card.source, config)
    if card is not None and card.source is not None and card.source != source:
        raise UsageError(
            f"{options.identity} is the recovery card of source {card.source!r}, expected that of {source!r}",
            hint="Give the card of this source, or name the other one with --source.",
        )
    return Access(
        destination=destination,
        source=source,
        trusted=_trusted(options, card.verify_key if card is not None else None, config),
        keyring=Keyring(_identities(options.identity, text or "", card)),
        tuning=Tuning() if config is None else config.tuning,
        config=config,
    )


def _source(given: str | None, on_card: str | None, config: Config | None) -> str:
    if config is not None:
        return config.source(given or (on_card if on_card in config.sources else None)).name
    if given is None and on_card is None:
        raise UsageError("no source named", hint="Give --source NAME.")
    return given or on_card or ""


def _trusted(options: AccessOptions, on_card: VerifyKey | None, config: Config | None) -> tuple[TrustedKey, ...] | None:
    if options.trust_unsigned:
        return None
    texts = options.verify_keys or (config.trusted if config is not None else ())
    if not options.verify_keys and on_card is not None:
        return (TrustedKey(on_card),)
    if not texts:
        raise UsageError(
            "no key to verify backups with",
            hint="Give --verify-key RW…, or --trust-unsigned to restore without knowing who wrote the backup.",
        )
    try:
        return tuple(TrustedKey(VerifyKey.parse(text)) for text in texts)
    except FormatError as error:
        raise UsageError(f"invalid verification key: {error.message}", hint=error.hint) from None


def _card(text: str, name: str) -> CardValues:
    try:
        return parse_card(text, name)
    except FormatError as error:
        raise UsageError(error.message, hint=error.hint) from None


def _identities(path: Path | None, text: str, card: CardValues | None) -> Sequence[Identity]:
    """The identities in a file. A card whose key is held elsewhere has none, and is good for list and verify."""
    if path is None or (card is not None and card.destination is not None and _KEY_PREFIX not in text.upper()):
        return []
    return read_identity_file(path)
