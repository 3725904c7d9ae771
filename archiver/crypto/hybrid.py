"""Hybrid post-quantum recipients: ML-KEM-768 and X25519 together, so that breaking one of them opens nothing.

Source: the age v1 specification, https://c2sp.org/age, section "The mlkem768x25519 recipient type": HPKE (RFC 9180) in
base mode with KEM 0x647a, HKDF-SHA-256 and ChaCha20-Poly1305. An identity is the seed of
https://datatracker.ietf.org/doc/draft-connolly-cfrg-xwing-kem/, section 5.2, from which both halves are derived.
"""

import hashlib
import os
from typing import ClassVar, Self

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from archiver.crypto import bech32
from archiver.crypto.header import Stanza, decode_base64, encode_base64
from archiver.crypto.recipients import check_stanza, decode_key
from archiver.errors import FormatError, UsageError

KIND = "mlkem768x25519"
_INFO = b"age-encryption.org/mlkem768x25519"
_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
_RECIPIENT_PREFIX = "age1pq"
_IDENTITY_PREFIX = "AGE-SECRET-KEY-PQ-"
_SEED_SIZE = 32
_MLKEM_SEED_SIZE = 64
_X25519_SIZE = 32
_RECIPIENT_SIZE = 1184 + _X25519_SIZE
_SHARE_SIZE = 1088 + _X25519_SIZE


class HybridRecipient(msgspec.Struct, frozen=True):
    """A post-quantum age public key, ``age1pq1…``: that of ML-KEM-768 (1,184 bytes), then that of X25519."""

    key: bytes
    label: ClassVar[str] = "postquantum"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``age1pq1…``, lower case as ``age`` demands; raises ``FormatError``."""
        return cls(decode_key(text, _RECIPIENT_PREFIX, _RECIPIENT_SIZE, "a post-quantum recipient"))

    def __str__(self) -> str:
        return bech32.encode(_RECIPIENT_PREFIX, self.key)

    def __repr__(self) -> str:
        return f"<HybridRecipient {str(self)[:24]}…>"

    def wrap(self, file_key: bytes) -> Stanza:
        """Encapsulate a new key for ``file_key``; raises ``UsageError`` for a recipient that is no valid key."""
        try:
            public_key = MLKEM768X25519PublicKey(
                MLKEM768PublicKey.from_public_bytes(self.key[:-_X25519_SIZE]),
                X25519PublicKey.from_public_bytes(self.key[-_X25519_SIZE:]),
            )
            sealed = _SUITE.encrypt(file_key, public_key, _INFO)
        except ValueError:
            raise UsageError(f"the recipient {str(self)[:24]}… cannot be used: it is no valid key") from None
        return Stanza(KIND, (encode_base64(sealed[:_SHARE_SIZE]),), sealed[_SHARE_SIZE:])


class HybridIdentity:
    """A post-quantum age secret key. Only ``encode`` shows it; ``str`` and ``repr`` name its recipient."""

    __slots__ = ("_key", "_seed", "_x25519", "recipient")

    def __init__(self, seed: bytes) -> None:
        expanded = hashlib.shake_256(seed).digest(_MLKEM_SEED_SIZE + _X25519_SIZE)
        mlkem = MLKEM768PrivateKey.from_seed_bytes(expanded[:_MLKEM_SEED_SIZE])
        self._seed = seed
        self._x25519 = X25519PrivateKey.from_private_bytes(expanded[_MLKEM_SEED_SIZE:])
        self._key = MLKEM768X25519PrivateKey(mlkem, self._x25519)
        self.recipient = HybridRecipient(
            mlkem.public_key().public_bytes_raw() + self._x25519.public_key().public_bytes_raw()
        )

    @classmethod
    def generate(cls) -> Self:
        """A new identity from the system's random source."""
        return cls(os.urandom(_SEED_SIZE))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``AGE-SECRET-KEY-PQ-1…``, upper case as ``age`` demands; raises ``FormatError``, which never shows
        it."""
        return cls(decode_key(text, _IDENTITY_PREFIX, _SEED_SIZE, "a post-quantum identity"))

    def encode(self) -> str:
        """The secret text, ``AGE-SECRET-KEY-PQ-1…``."""
        return bech32.encode(_IDENTITY_PREFIX, self._seed)

    def __repr__(self) -> str:
        return f"<HybridIdentity of {self.recipient!r}>"

    def unwrap(self, stanza: Stanza) -> bytes | None:
        """The file key, or None when ``stanza`` is for another; raises ``FormatError`` for a malformed stanza."""
        if stanza.kind != KIND:
            return None
        check_stanza(stanza, arguments=1)
        share = decode_base64(stanza.args[0].encode("ascii"))
        if len(share) != _SHARE_SIZE:
            raise FormatError(f"malformed {KIND} stanza: expected a share of {_SHARE_SIZE} bytes, got {len(share)}")
        try:
            self._x25519.exchange(X25519PublicKey.from_public_bytes(share[-_X25519_SIZE:]))
        except ValueError:
            raise FormatError(f"malformed {KIND} stanza: its share is of low order") from None
        try:
            return _SUITE.decrypt(share + stanza.body, self._key, _INFO)
        except InvalidTag:
            return None
