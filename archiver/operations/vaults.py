"""The vaults of a source as they lie in a destination: whose files there are, and opening one of them."""

import itertools
from collections.abc import Sequence

import msgspec

from archiver.catalog.names import VaultPlace, parse_vault_key, vault_prefix
from archiver.crypto.keys import SecretKey
from archiver.crypto.passphrase import PassphraseIdentity
from archiver.crypto.recipients import vault_id
from archiver.crypto.vault import MAX_VAULT_FILE, Keyring, is_for_passphrase, open_vault
from archiver.errors import (
    ArchiverError,
    FormatError,
    IntegrityError,
    NoIdentityError,
    NotFoundError,
    StorageError,
    UsageError,
)
from archiver.operations.objects import naming
from archiver.stores.base import Store


class OpenedVault(msgspec.Struct, frozen=True):
    """A vault's identity, and the operator's file that gave it."""

    identity: SecretKey
    place: VaultPlace


def vault_places(store: Store, source: str, vault: str = "") -> list[VaultPlace]:
    """The operators' files of one vault of ``source``, or of all, the oldest first: nobody can plant a file that is
    older than the true ones. Empty where there is none."""
    try:
        items = sorted(store.list(vault_prefix(source, vault)), key=lambda item: (item.modified, item.key))
    except NotFoundError:
        return []
    return [place for place in (parse_vault_key(item.key) for item in items) if place is not None]


def put_back(source: str, vault: str) -> str:
    """What to do where ``vault`` has no file any more: a hint. Another file cannot be made: what is in it is lost."""
    return (
        f"Put what was below {vault_prefix(source, vault)} back from a copy of the destination, or, in a bucket with "
        "versions, from an old version, which archiver's lifecycle rules never delete. If nothing was ever there, the "
        "destination's url is not the one that belongs to this vault."
    )


def unlock_vault(store: Store, places: Sequence[VaultPlace], keyring: Keyring, recipient: str | None) -> OpenedVault:
    """Open one vault by any of its files ``places``, of which there is at least one.

    Anybody can seal an identity to an operator, so it counts only if it is that of ``recipient`` or, without one, has
    the vault's own fingerprint. Whatever is wrong with one file, another may still open the vault. Those of keys are
    tried first, then those of KMS, and last those of passphrases, which cost seconds each. Raises ``UsageError`` for an
    empty keyring. When none opens: the ``StorageError`` of KMS or the store if there was one,
    which may mend; else what is wrong with a file that should open; else ``NoIdentityError``: nothing in ``keyring`` is
    for any of the files.
    """
    if not keyring:
        raise _nothing_given(store, places, keyring)
    problems: list[ArchiverError] = []
    with_passphrase: list[tuple[VaultPlace, bytes]] = []
    by_form = sorted(places, key=lambda place: place.form)
    for place, known in itertools.chain(((place, None) for place in by_form), with_passphrase):
        try:
            with naming(place.key):
                data = read_small(store, place.key, MAX_VAULT_FILE) if known is None else known
                if known is None and place.form == "age" and is_for_passphrase(data):
                    with_passphrase.append((place, data))
                    continue
                return OpenedVault(_open(data, place, keyring, recipient), place)
        except NoIdentityError:
            continue
        except ArchiverError as error:
            problems.append(error)
    if problems:
        # Anybody who can plant a file can make it malformed: that must not hide what the operator can mend.
        problem = min(problems, key=lambda problem: not isinstance(problem, StorageError))
        problem.hint = problem.hint or _hint(places, passphrase=bool(with_passphrase))
        raise problem
    raise _nothing_opens(places, [place for place, _ in with_passphrase], keyring)


def _open(data: bytes, place: VaultPlace, keyring: Keyring, recipient: str | None) -> SecretKey:
    identity = open_vault(data, place.form, keyring, place.source, place.vault)
    found = str(identity.recipient)
    if found != recipient and (recipient is not None or vault_id(found) != place.vault):
        raise IntegrityError(f"{place.key} holds the identity of another vault")
    return identity


def _nothing_given(store: Store, places: Sequence[VaultPlace], keyring: Keyring) -> UsageError:
    vault, source = places[0].vault, places[0].source
    bare = "" if keyring.card is None else f", and {keyring.card} holds no secret key"
    hint = _hint(places, passphrase=_may_have_passphrase(store, places))
    if keyring.card is not None and any(place.form == "age" for place in places):
        hint = f"Append the AGE-SECRET-KEY-… line to a copy of the card. {hint}"
    return UsageError(
        f"vault {vault} of {source!r} needs an operator's identity{bare} (it is sealed to: {_files(places)})", hint=hint
    )


def _nothing_opens(
    places: Sequence[VaultPlace], with_passphrase: Sequence[VaultPlace], keyring: Keyring
) -> NoIdentityError:
    """Says of each thing that was given why it is of no use."""
    vault = f"vault {places[0].vault} of {places[0].source!r}"
    are_passphrases = [isinstance(identity, PassphraseIdentity) for identity in keyring.identities]
    reasons = []
    if not all(are_passphrases):
        reasons.append(f"none of the given identities opens {vault}")
    if any(are_passphrases) and with_passphrase:
        reasons.append(f"the passphrase opens none of: {_files(with_passphrase)} in {vault}")
    elif any(are_passphrases):
        reasons.append(f"no operator of {vault} has a passphrase")
    if keyring.kms and all(place.form != "kms" for place in places):
        reasons.append(f"no operator of {vault} uses a KMS key")
    hint = _hint(places, passphrase=bool(with_passphrase))
    if keyring.card_vault not in (None, places[0].vault):
        hint = f"{keyring.card} is of vault {keyring.card_vault}: look for another card, such as a newer one. {hint}"
    return NoIdentityError(f"{', and '.join(reasons)} (it is sealed to: {_files(places)})", hint=hint)


def _may_have_passphrase(store: Store, places: Sequence[VaultPlace]) -> bool:
    """Whether one of the files is, or may be, opened by a passphrase."""
    for place in places:
        if place.form == "age":
            try:
                if is_for_passphrase(read_small(store, place.key, MAX_VAULT_FILE)):
                    return True
            except ArchiverError:
                return True
    return False


def read_small(store: Store, key: str, limit: int) -> bytes:
    """All of a small file; a larger one is refused, whatever the store says of its size."""
    data = bytearray()
    for buffer in store.read(key):
        data += buffer
        if len(data) > limit:
            raise FormatError(f"{key} has more than {limit} bytes")
    return bytes(data)


def _files(places: Sequence[VaultPlace]) -> str:
    return ", ".join(sorted(f"{place.operator}.{place.form}" for place in places))


def _hint(places: Sequence[VaultPlace], *, passphrase: bool) -> str:
    """Which options can open these files."""
    ways = []
    if any(place.form == "age" for place in places):
        ways.append("--identity with the recovery card or an identity file")
    if passphrase:
        ways.append("--passphrase")
    if any(place.form == "kms" for place in places):
        ways.append("--kms with AWS credentials that may use the key")
    return f"Give {', or '.join(ways)}, of one of these operators."
