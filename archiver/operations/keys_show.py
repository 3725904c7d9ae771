"""``archiver keys show``: who can open which vault, as it lies in the destination, beside what the configuration says.

What lies there may have been planted, and an age file does not say whose key it is for. So names and kinds are shown as
what they are, and differences are marked.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Literal

import msgspec

from archiver.catalog.names import VaultPlace, parse_vault_key, vault_prefix
from archiver.config import PASSPHRASE
from archiver.crypto import hybrid, passphrase, x25519
from archiver.crypto.header import parse_header
from archiver.crypto.keys import parse_recipient
from archiver.crypto.kms import parse_kms
from archiver.crypto.recipients import vault_id
from archiver.crypto.vault import MAX_VAULT_FILE
from archiver.errors import FormatError, IntegrityError, NotFoundError, StorageError
from archiver.operations.keys_access import KeySite
from archiver.operations.operator_keys import weakness
from archiver.operations.vaults import read_small
from archiver.progress import Reporter

Kind = Literal["x25519", "post-quantum", "passphrase", "kms", "malformed", "unknown"]
_STANZAS: Mapping[str, Kind] = {x25519.KIND: "x25519", hybrid.KIND: "post-quantum", passphrase.KIND: "passphrase"}


class OperatorFile(msgspec.Struct, frozen=True):
    """One operator's file in a vault."""

    place: VaultPlace
    modified: datetime
    kind: Kind
    """``unknown`` where the file may not be read, as on a backup host."""
    arn: str | None = None
    """Of the KMS key."""
    difference: str | None = None
    """In what it is not as the configuration has it."""


class ShownVault(msgspec.Struct, frozen=True):
    """A vault as it lies in the destination. The one that is configured may be missing there, and has no files then."""

    id: str
    is_current: bool
    files: Sequence[OperatorFile]
    missing: Sequence[str]
    """Operators of the configuration who have no file in the current vault."""


def show_vaults(site: KeySite, reporter: Reporter) -> list[ShownVault]:
    """Every vault of the source, that of new backups first; raises ``NotFoundError`` when there is none.

    Warns of what the configuration and the current vault do not agree in, and of a key that weakens the vault.
    """
    current = site.current()
    first = None if current is None else vault_id(current)
    expected = dict(site.configured.operators) if site.config is not None else {}
    found: dict[str, list[OperatorFile]] = {} if first is None else {first: []}
    for place, modified in _files(site):
        kind, arn = _kind(site, place)
        difference = _difference(expected, place, kind, arn) if place.vault == first and expected else None
        found.setdefault(place.vault, []).append(OperatorFile(place, modified, kind, arn, difference))
    if site.config is None and not any(found.values()):
        raise NotFoundError(f"{site.store.url} holds no vault of source {site.source!r}", hint=site.archive.hint())
    shown = []
    for vault, files in found.items():
        names = {file.place.operator for file in files}
        missing = [name for name in expected if name not in names] if vault == first else []
        shown.append(ShownVault(vault, vault == first, files, missing))
    _warn(site, shown, reporter)
    return shown


def _warn(site: KeySite, shown: Sequence[ShownVault], reporter: Reporter) -> None:
    for vault in shown:
        if not vault.files and not vault.missing:
            reporter.warn(f"{site.store.url} holds no key file of vault {vault.id}, which is in use")
        for name in vault.missing:
            reporter.warn(f"{name!r} is an operator of the configuration and has no file in vault {vault.id}")
        for file in vault.files:
            if file.difference is not None:
                reporter.warn(f"{file.place.key}: {file.difference}")
    if site.config is None:
        return
    # What cannot be parsed has been told of as another kind.
    with suppress(FormatError):
        recipient = parse_recipient(site.configured.vault)
        for name, text in site.configured.operators.items():
            if text.startswith("age1"):
                problem = weakness(recipient, name, parse_recipient(text))
                if problem is not None:
                    reporter.warn(problem)


def _files(site: KeySite) -> Iterator[tuple[VaultPlace, datetime]]:
    try:
        for item in site.store.list(vault_prefix(site.source)):
            place = parse_vault_key(item.key)
            if place is not None:
                yield place, item.modified
    except NotFoundError:
        # Of a directory that nothing was created in.
        return


def _kind(site: KeySite, place: VaultPlace) -> tuple[Kind, str | None]:
    try:
        data = read_small(site.store, place.key, MAX_VAULT_FILE)
        if place.form == "kms":
            return "kms", parse_kms(data).key
        header, _ = parse_header(data)
        kinds = {stanza.kind for stanza in header.stanzas}
        return (_STANZAS.get(kinds.pop(), "malformed") if len(kinds) == 1 else "malformed"), None
    except (IntegrityError, NotFoundError):
        return "malformed", None
    except StorageError:
        return ("kms" if place.form == "kms" else "unknown"), None


def _difference(expected: Mapping[str, str], place: VaultPlace, kind: Kind, arn: str | None) -> str | None:
    text = expected.get(place.operator)
    if text is None:
        return "not in the configuration"
    wanted = _expected_kind(text)
    # The file names the key itself, so the ARN of an alias cannot be compared with it.
    if kind == wanted == "kms" and arn is not None and ":key/" in text and text != arn:
        return f"the configuration has {text}"
    if kind in ("unknown", wanted):
        return None
    return f"the configuration has a key of the kind {wanted}"


def _expected_kind(text: str) -> Kind:
    if text == PASSPHRASE:
        return "passphrase"
    if text.startswith("arn:"):
        return "kms"
    try:
        return "post-quantum" if isinstance(parse_recipient(text), hybrid.HybridRecipient) else "x25519"
    except FormatError:
        return "malformed"
