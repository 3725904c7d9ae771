"""The recipients that the ``age`` of every distribution reads: X25519 key pairs.

Source: the age v1 specification, https://c2sp.org/age, section "The X25519 recipient type".
"""

from typing import ClassVar, Self

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from archiver.crypto import bech32
from archiver.crypto.header import Stanza, decode_base64, derive_key, encode_base64
from archiver.crypto.recipients import ZERO_NONCE, check_stanza, decode_key
from archiver.errors import FormatError, UsageError

KIND = "X25519"
_INFO = b"age-encryption.org/v1/X25519"
_KEY_SIZE = 32
_RECIPIENT_PREFIX = "age"
_IDENTITY_PREFIX = "AGE-SECRET-KEY-"


class X25519Recipient(msgspec.Struct, frozen=True):
    """An age public key, ``age1…``."""

    key: bytes
    label: ClassVar[str] = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``age1…``, lower case as ``age`` demands; raises ``FormatError``."""
        return cls(decode_key(text, _RECIPIENT_PREFIX, _KEY_SIZE, "an X25519 recipient"))

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
        body = ChaCha20Poly1305(wrap_key).encrypt(ZERO_NONCE, file_key, None)
        return Stanza(KIND, (encode_base64(share),), body)


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
        return cls(decode_key(text, _IDENTITY_PREFIX, _KEY_SIZE, "an X25519 identity"))

    def encode(self) -> str:
        """The secret text, ``AGE-SECRET-KEY-1…``."""
        return bech32.encode(_IDENTITY_PREFIX, self._key.private_bytes_raw())

    def __repr__(self) -> str:
        return f"<X25519Identity of {self.recipient}>"

    def unwrap(self, stanza: Stanza) -> bytes | None:
        """The file key, or None when ``stanza`` is for another; raises ``FormatError`` for a malformed stanza."""
        if stanza.kind != KIND:
            return None
        check_stanza(stanza, arguments=1)
        share = decode_base64(stanza.args[0].encode("ascii"))
        if len(share) != _KEY_SIZE:
            raise FormatError(f"malformed {KIND} stanza: expected a share of {_KEY_SIZE} bytes, got {len(share)}")
        try:
            shared = self._key.exchange(X25519PublicKey.from_public_bytes(share))
        except ValueError:
            raise FormatError(f"malformed {KIND} stanza: its share is of low order") from None
        wrap_key = derive_key(shared, salt=share + self.recipient.key, info=_INFO)
        try:
            return ChaCha20Poly1305(wrap_key).decrypt(ZERO_NONCE, stanza.body, None)
        except InvalidTag:
            return None
