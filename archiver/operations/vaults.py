"""The vaults of a source as they lie in a destination: whose files there are, and opening one of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from archiver.catalog.names import VaultPlace, parse_vault_key, vault_prefix
from archiver.crypto.keys import SecretKey
from archiver.crypto.recipients import vault_id
from archiver.crypto.vault import MAX_VAULT_FILE, Keyring, open_vault
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


@dataclass(frozen=True, slots=True)
class OpenedVault:
    """A vault's identity, and the operator's file that gave it."""

    identity: SecretKey
    place: VaultPlace


def vault_places(store: Store, source: str, vault: str = "") -> list[VaultPlace]:
    """The operators' files of one vault of ``source``, or of all, in order of their keys; empty where there is none."""
    try:
        found = [parse_vault_key(item.key) for item in store.list(vault_prefix(source, vault))]
    except NotFoundError:
        return []
    return [place for place in found if place is not None]


def unlock_vault(store: Store, places: Sequence[VaultPlace], keyring: Keyring, recipient: str | None) -> OpenedVault:
    """Open one vault by any of its files ``places``, of which there is at least one.

    Anybody can seal an identity to an operator, so it counts only if it is that of ``recipient`` or, without one, has
    the vault's own fingerprint. Whatever is wrong with one file, another may still open the vault; files of KMS come
    last, because age files open without asking anybody. Raises ``UsageError`` for an empty keyring. When none opens:
    the ``StorageError`` of KMS or the store if there was one, which may mend; else what is wrong with a file that
    should open; else ``NoIdentityError``: nothing in ``keyring`` is for any of the files.
    """
    vault, source = places[0].vault, places[0].source
    operators = ", ".join(f"{place.operator}.{place.form}" for place in places)
    if not keyring:
        raise UsageError(
            f"vault {vault} of {source!r} needs an operator's identity (it is sealed to: {operators})",
            hint=_hint(places),
        )
    problems: list[ArchiverError] = []
    for place in sorted(places, key=lambda place: place.form):
        try:
            with naming(place.key):
                return OpenedVault(_open(store, place, keyring, recipient), place)
        except NoIdentityError:
            continue
        except (IntegrityError, NotFoundError, StorageError) as error:
            error.hint = error.hint or _hint(places)
            problems.append(error)
    if problems:
        # Anybody who can plant a file can make it malformed: that must not hide what the operator can mend.
        raise min(problems, key=lambda problem: not isinstance(problem, StorageError))
    raise NoIdentityError(
        f"none of the given identities opens vault {vault} of {source!r} (it is sealed to: {operators})",
        hint=_hint(places),
    )


def _open(store: Store, place: VaultPlace, keyring: Keyring, recipient: str | None) -> SecretKey:
    data = read_small(store, place.key, MAX_VAULT_FILE)
    identity = open_vault(data, place.form, keyring, place.source, place.vault)
    found = str(identity.recipient)
    if found != recipient and (recipient is not None or vault_id(found) != place.vault):
        raise IntegrityError(f"{place.key} holds the identity of another vault")
    return identity


def read_small(store: Store, key: str, limit: int) -> bytes:
    """All of a small file; a larger one is refused, whatever the store says of its size."""
    data = bytearray()
    for buffer in store.read(key):
        data += buffer
        if len(data) > limit:
            raise FormatError(f"{key} has more than {limit} bytes")
    return bytes(data)


def _hint(places: Sequence[VaultPlace]) -> str:
    """Which options can open these files."""
    ways = []
    if any(place.form == "age" for place in places):
        ways.append("--identity with the recovery card or an identity file, or --passphrase")
    if any(place.form == "kms" for place in places):
        ways.append("--kms with AWS credentials that may use the key")
    return f"Give {', or '.join(ways)}, of one of these operators."
