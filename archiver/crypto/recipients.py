"""Who can open an age file: recipients wrap its file key, identities unwrap it.

Source: the age v1 specification, https://c2sp.org/age. The kinds are in ``x25519.py``, ``hybrid.py`` and
``passphrase.py``; ``keys.py`` tells them apart by their text.
"""

import hashlib
from typing import Protocol

from archiver.crypto import bech32
from archiver.crypto.header import FILE_KEY_SIZE, Stanza
from archiver.errors import FormatError

WRAPPED_SIZE = FILE_KEY_SIZE + 16
"""Bytes of a wrapped file key, in every kind of stanza that we read."""
ZERO_NONCE = bytes(12)


class Recipient(Protocol):
    """A public key, or another means, to which a file key can be wrapped. ``str()`` of it is public text."""

    @property
    def label(self) -> str:
        """Recipients of one file must have the same: a weaker one beside a stronger would decide for both."""

    def wrap(self, file_key: bytes) -> Stanza:
        """A new stanza that holds ``file_key``; raises ``UsageError`` when this recipient cannot be used."""


class Identity(Protocol):
    """The secret counterpart of a recipient."""

    def unwrap(self, stanza: Stanza) -> bytes | None:
        """The file key, or None when ``stanza`` is not for this identity.

        Raises ``FormatError`` for a stanza of this identity's own kind that is malformed.
        """


def vault_id(recipient: str) -> str:
    """The fingerprint that names a vault: ``printf %s age1… | sha256sum | cut -c1-16``."""
    return hashlib.sha256(recipient.encode("utf-8")).hexdigest()[:16]


def check_stanza(stanza: Stanza, *, arguments: int) -> None:
    """Raise ``FormatError`` unless ``stanza`` has so many arguments and the body of a wrapped file key.

    A length of the body that varied would let one stanza open under several keys (a partitioning oracle).
    """
    if len(stanza.args) != arguments:
        noun = "argument" if arguments == 1 else "arguments"
        raise FormatError(f"malformed {stanza.kind} stanza: expected {arguments} {noun}, got {len(stanza.args)}")
    if len(stanza.body) != WRAPPED_SIZE:
        raise FormatError(
            f"malformed {stanza.kind} stanza: expected a body of {WRAPPED_SIZE} bytes, got {len(stanza.body)}"
        )


def decode_key(text: str, prefix: str, size: int, noun: str) -> bytes:
    """The ``size`` bytes of a key in Bech32 under ``prefix``; raises ``FormatError``, which never shows ``text``.

    ``noun`` says, with its article, what it should have been.
    """
    found, key = bech32.decode(text)
    if found != prefix:
        raise FormatError(f"not {noun}: expected it to start with {prefix}1")
    if len(key) != size:
        raise FormatError(f"not {noun}: expected {size} bytes, got {len(key)}")
    return key
