"""The vault: the key pair that all objects of a source are encrypted to (docs/FORMAT.md).

Backup hosts hold its recipient only. Its identity lies in the destination once per operator: as an age file whose
plaintext is an age identity file, so that ``age -d`` twice opens every object, or as a ciphertext of AWS KMS.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

from archiver.crypto.age import seal_bytes, unseal_bytes
from archiver.crypto.header import parse_header
from archiver.crypto.identities import parse_identities
from archiver.crypto.keys import PublicKey, SecretKey, generate_identity
from archiver.crypto.kms import KmsKey, encryption_context, kms_open, kms_seal
from archiver.crypto.passphrase import KIND as PASSPHRASE_KIND
from archiver.crypto.passphrase import PassphraseRecipient
from archiver.crypto.recipients import Identity, vault_id
from archiver.errors import FormatError, NoIdentityError

MAX_VAULT_FILE = 65536
"""Bytes of a sealed vault identity; ours have about 450, or 3,800 where everything is post-quantum."""

OperatorKey = PublicKey | PassphraseRecipient | KmsKey
"""What a vault's identity can be sealed to."""
VaultForm = Literal["age", "kms"]
"""The two kinds of files that a vault's identity lies in, by the end of their names."""


class Keyring(msgspec.Struct, frozen=True):
    """All that an operator opens vaults with."""

    identities: Sequence[Identity] = ()
    kms: bool = False
    """Whether AWS KMS may be asked, with the credentials of the AWS environment."""
    card: str | None = None
    """What messages call the recovery card that was given, with a key on it or without."""
    card_vault: str | None = None
    """Id of the vault for which that card was written."""

    def __bool__(self) -> bool:
        return bool(self.identities) or self.kms


def create_vault(*, post_quantum: bool = False) -> SecretKey:
    """The identity of a new vault."""
    return generate_identity(post_quantum=post_quantum)


def vault_form(operator: OperatorKey) -> VaultForm:
    """Which kind of file ``seal_vault`` makes for ``operator``."""
    return "kms" if isinstance(operator, KmsKey) else "age"


def seal_vault(identity: SecretKey, operator: OperatorKey, source: str) -> bytes:
    """The vault's identity as a file that ``operator`` opens. Raises ``UsageError`` for a key that cannot be used, and
    for one of KMS what ``kms_seal`` raises."""
    recipient = str(identity.recipient)
    text = f"# archiver vault {vault_id(recipient)}\n# public key: {recipient}\n{identity.encode()}\n".encode("ascii")
    if isinstance(operator, KmsKey):
        return kms_seal(text, operator, encryption_context(source, vault_id(recipient)))
    return seal_bytes(text, [operator])


def open_vault(data: bytes, form: VaultForm, keyring: Keyring, source: str, vault: str) -> SecretKey:
    """The identity in a sealed file of the vault with the id ``vault``.

    Raises ``NoIdentityError`` when nothing in ``keyring`` is for this file, ``DecryptionError`` when it was altered,
    ``FormatError`` when it is malformed, too large or does not hold exactly one identity, and for a file of KMS what
    ``kms_open`` raises. Anybody can encrypt a file to an operator: the caller compares the recipient of the result
    with the one that the signed manifest names.
    """
    if len(data) > MAX_VAULT_FILE:
        raise FormatError(f"a vault file has {len(data)} bytes, expected at most {MAX_VAULT_FILE}")
    text = _unseal(data, form, keyring, source, vault)
    # Asked rather than tried: the error of a failed decoding would carry the text.
    if not text.isascii():
        raise FormatError("a vault file does not hold an identity file: it is not ascii text")
    found = parse_identities(text.decode("ascii"), "the vault file")
    if len(found) != 1:
        raise FormatError(f"expected one identity in a vault file, got {len(found)}")
    return found[0]


def is_for_passphrase(data: bytes) -> bool:
    """Whether the age file ``data`` is opened by a passphrase; False for what is malformed."""
    try:
        header, _ = parse_header(data)
    except FormatError:
        return False
    return header.stanzas[0].kind == PASSPHRASE_KIND


def _unseal(data: bytes, form: VaultForm, keyring: Keyring, source: str, vault: str) -> bytes:
    if form == "age":
        return unseal_bytes(data, keyring.identities)
    if not keyring.kms:
        raise NoIdentityError("the file is sealed to a kms key, and aws kms is not to be asked")
    return kms_open(data, encryption_context(source, vault))
