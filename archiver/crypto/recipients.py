"""Who can open an age file: recipients wrap its file key, identities unwrap it.

Source: the age v1 specification, https://c2sp.org/age, section "The X25519 recipient type".
"""

import hashlib
from dataclasses import dataclass
from typing import Protocol, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from archiver.crypto import bech32
from archiver.crypto.header import FILE_KEY_SIZE, Stanza, decode_base64, derive_key, encode_base64
from archiver.errors import FormatError, UsageError

_KIND = "X25519"
_INFO = b"age-encryption.org/v1/X25519"
_KEY_SIZE = 32
_WRAPPED_SIZE = FILE_KEY_SIZE + 16
_ZERO_NONCE = bytes(12)
_RECIPIENT_PREFIX = "age"
_IDENTITY_PREFIX = "AGE-SECRET-KEY-"


class Recipient(Protocol):
    """A public key, or another means, to which a file key can be wrapped. ``str()`` of it is public text."""

    def wrap(self, file_key: bytes) -> Stanza:
        """A new stanza that holds ``file_key``; raises ``UsageError`` when this recipient cannot be used."""


class Identity(Protocol):
    """The secret counterpart of a recipient."""

    def unwrap(self, stanza: Stanza) -> bytes | None:
        """The file key, or None when ``stanza`` is not for this identity.

        Raises ``FormatError`` for a stanza of this identity's own kind that is malformed.
        """


@dataclass(frozen=True, slots=True)
class X25519Recipient:
    """An age public key, ``age1…``."""

    key: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``age1…``, lower case as ``age`` demands; raises ``FormatError``."""
        return cls(_decode_key(text, _RECIPIENT_PREFIX, "recipient"))

    def __str__(self) -> str:
        return bech32.encode(_RECIPIENT_PREFIX, self.key)

    def wrap(self, file_key: bytes) -> Stanza:
        """Wrap ``file_key`` under a new ephemeral key; raises ``UsageError`` for a key of low order."""
        ephemeral = X25519PrivateKey.generate()
        share = ephemeral.public_key().public_bytes_raw()
        try:
            shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(self.key))
        except ValueError:
            raise UsageError(f"the recipient {self} protects nothing: its key is of low order") from None
        wrap_key = derive_key(shared, salt=share + self.key, info=_INFO)
        body = ChaCha20Poly1305(wrap_key).encrypt(_ZERO_NONCE, file_key, None)
        return Stanza(_KIND, (encode_base64(share),), body)


class X25519Identity:
    """An age secret key. Only ``encode`` shows it; ``str`` and ``repr`` name its recipient."""

    __slots__ = ("_key", "recipient")

    def __init__(self, key: bytes) -> None:
        self._key = X25519PrivateKey.from_private_bytes(key)
        self.recipient = X25519Recipient(self._key.public_key().public_bytes_raw())

    @classmethod
    def generate(cls) -> Self:
        """A new identity from the system's random source."""
        return cls(X25519PrivateKey.generate().private_bytes_raw())

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``AGE-SECRET-KEY-1…``, upper case as ``age`` demands; raises ``FormatError``, which never shows it."""
        return cls(_decode_key(text, _IDENTITY_PREFIX, "identity"))

    def encode(self) -> str:
        """The secret text, ``AGE-SECRET-KEY-1…``."""
        return bech32.encode(_IDENTITY_PREFIX, self._key.private_bytes_raw())

    def __repr__(self) -> str:
        return f"<X25519Identity of {self.recipient}>"

    def unwrap(self, stanza: Stanza) -> bytes | None:
        """The file key, or None when ``stanza`` is for another; raises ``FormatError`` for a malformed stanza."""
        if stanza.kind != _KIND:
            return None
        if len(stanza.args) != 1:
            raise FormatError(f"malformed {_KIND} stanza: expected 1 argument, got {len(stanza.args)}")
        share = decode_base64(stanza.args[0].encode("ascii"))
        if len(share) != _KEY_SIZE:
            raise FormatError(f"malformed {_KIND} stanza: expected a share of {_KEY_SIZE} bytes, got {len(share)}")
        # A length that varied would let one stanza open under several keys (a partitioning oracle).
        if len(stanza.body) != _WRAPPED_SIZE:
            raise FormatError(
                f"malformed {_KIND} stanza: expected a body of {_WRAPPED_SIZE} bytes, got {len(stanza.body)}"
            )
        try:
            shared = self._key.exchange(X25519PublicKey.from_public_bytes(share))
        except ValueError:
            raise FormatError(f"malformed {_KIND} stanza: its share is of low order") from None
        wrap_key = derive_key(shared, salt=share + self.recipient.key, info=_INFO)
        try:
            return ChaCha20Poly1305(wrap_key).decrypt(_ZERO_NONCE, stanza.body, None)
        except InvalidTag:
            return None


def vault_id(recipient: str) -> str:
    """The fingerprint that names a vault: ``printf %s age1… | sha256sum | cut -c1-16``."""
    return hashlib.sha256(recipient.encode("utf-8")).hexdigest()[:16]


def _decode_key(text: str, prefix: str, noun: str) -> bytes:
    found, key = bech32.decode(text)
    if found != prefix:
        raise FormatError(f"not an X25519 {noun}: expected it to start with {prefix}1")
    if len(key) != _KEY_SIZE:
        raise FormatError(f"not an X25519 {noun}: expected {_KEY_SIZE} bytes, got {len(key)}")
    return key
