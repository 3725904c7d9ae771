"""What an operator's key is called in the configuration, and whether it is good enough for its vault."""

from collections.abc import Mapping

from archiver.config import PASSPHRASE
from archiver.crypto.card import OpensWith
from archiver.crypto.hybrid import HybridRecipient
from archiver.crypto.keys import PublicKey
from archiver.crypto.kms import KmsKey
from archiver.crypto.passphrase import PassphraseRecipient
from archiver.crypto.vault import OperatorKey
from archiver.crypto.x25519 import X25519Recipient


def operator_text(key: OperatorKey) -> str:
    """What stands for ``key`` in the configuration."""
    return PASSPHRASE if isinstance(key, PassphraseRecipient) else str(key)


def opens_with(key: OperatorKey) -> OpensWith:
    """What the operator needs beside a recovery card that holds no identity."""
    if isinstance(key, KmsKey):
        return "kms"
    return "passphrase" if isinstance(key, PassphraseRecipient) else "key"


def sharing(operators: Mapping[str, str], operator: str, key: str) -> list[str]:
    """Who else of ``operators`` has the key of ``operator``; that two have a passphrase says nothing."""
    return [name for name, text in operators.items() if name != operator and text == key != PASSPHRASE]


def weakness(vault: PublicKey, name: str, key: OperatorKey) -> str | None:
    """Why sealing ``vault`` to the operator called ``name`` makes it weaker than it is; None if it does not.

    A passphrase and KMS are symmetric: what a quantum computer would break is an X25519 key alone.
    """
    if not isinstance(vault, HybridRecipient) or not isinstance(key, X25519Recipient):
        return None
    return f"operator {name!r} has an X25519 key, so the post-quantum vault is only as strong as X25519"
