"""The vault: the key pair that all objects of a source are encrypted to (docs/FORMAT.md).

Backup hosts hold its recipient only. Its identity lies in the destination once per operator, as an age file for that
operator whose plaintext is an age identity file, so that ``age -d`` twice opens every object.
"""

from collections.abc import Sequence

from archiver.crypto.age import seal_bytes, unseal_bytes
from archiver.crypto.identities import parse_identities
from archiver.crypto.recipients import Identity, Recipient, X25519Identity, vault_id
from archiver.errors import FormatError

MAX_VAULT_FILE = 65536
"""Bytes of a sealed vault identity; ours have about 450."""


def create_vault() -> X25519Identity:
    """The identity of a new vault."""
    return X25519Identity.generate()


def seal_vault(identity: X25519Identity, operator_recipient: Recipient) -> bytes:
    """The vault's identity as an age file that ``operator_recipient`` opens."""
    recipient = str(identity.recipient)
    text = f"# archiver vault {vault_id(recipient)}\n# public key: {recipient}\n{identity.encode()}\n"
    return seal_bytes(text.encode("ascii"), [operator_recipient])


def open_vault(data: bytes, identities: Sequence[Identity]) -> X25519Identity:
    """The identity in a sealed vault file.

    Raises ``DecryptionError`` when none of ``identities`` opens it, ``FormatError`` when it is malformed, too large or
    does not hold exactly one identity. Anybody can encrypt a file to an operator: the caller compares the recipient of
    the result with the one that the signed manifest names.
    """
    if len(data) > MAX_VAULT_FILE:
        raise FormatError(f"a vault file has {len(data)} bytes, expected at most {MAX_VAULT_FILE}")
    try:
        text = unseal_bytes(data, identities).decode("ascii")
    except UnicodeDecodeError:
        raise FormatError("a vault file does not hold an identity file: it is not ascii text") from None
    found = parse_identities(text, "the vault file")
    if len(found) != 1 or not isinstance(found[0], X25519Identity):
        raise FormatError(f"expected one identity in a vault file, got {len(found)}")
    return found[0]
