"""Signatures and keys in minisign's formats: Ed25519 over the BLAKE2b-512 hash of the message.

Source: https://jedisct1.github.io/minisign/, section "File formats". Keys and signatures are those of the stock
``minisign``; secret keys are not encrypted, as ``minisign -G -W`` makes them, because a backup host must sign alone.
"""

import base64
import binascii
import hashlib
import os
from typing import Self

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from archiver.errors import AuthenticityError, FormatError, UsageError

MAX_TRUSTED_COMMENT = 1024
"""Bytes; the stock tool cannot write much more than 4,000."""

_UNTRUSTED = "untrusted comment: "
_TRUSTED = "trusted comment: "
_KEY_ALGORITHM = b"Ed"
_PREHASHED = b"ED"
_NO_ENCRYPTION = b"\0\0"
_CHECKSUM_ALGORITHM = b"B2"
_NUMBER_SIZE = 8
_KEY_SIZE = 32
_SIGNATURE_SIZE = 64
_CHECKSUM_SIZE = 32
_PASSWORD_PARAMETERS = bytes(48)
"""Salt and costs of deriving a key from a password: zeros without one."""

_SECRET_BEGINNINGS = ("RWQAAEIy", "RWRTY0Iy")
"""The algorithms at the start of a secret key in base64, without and with a password."""


class VerifyKey(msgspec.Struct, frozen=True):
    """A minisign public key."""

    number: bytes
    key: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse ``RW…`` or a whole ``.pub`` file; raises ``FormatError``."""
        raw = _decode(_key_line(text, "public"), "minisign public key")
        if len(raw) != 2 + _NUMBER_SIZE + _KEY_SIZE or not raw.startswith(_KEY_ALGORITHM):
            raise FormatError("not a minisign public key: expected RW and 54 more characters")
        return cls(raw[2 : 2 + _NUMBER_SIZE], raw[2 + _NUMBER_SIZE :])

    def __str__(self) -> str:
        return _encode(_KEY_ALGORITHM + self.number + self.key)

    @property
    def key_id(self) -> str:
        """The key's number in hex, as minisign prints it."""
        return key_id(self.number)

    def encode(self) -> str:
        """The text of a ``.pub`` file."""
        return f"{_UNTRUSTED}minisign public key {self.key_id}\n{self}\n"

    def verify(self, message: bytes, signature_text: str) -> str:
        """Check the text of a ``.minisig`` file over ``message``; returns its trusted comment.

        Raises ``AuthenticityError`` for a malformed signature, one by another key, one of the legacy algorithm that
        does not hash first, and for a message or trusted comment that was not signed.
        """
        number, signature, comment, global_signature = _parse_signature(signature_text)
        if number != self.number:
            raise AuthenticityError(f"signed by key {key_id(number)}, expected key {self.key_id}")
        key = Ed25519PublicKey.from_public_bytes(self.key)
        try:
            key.verify(signature, hashlib.blake2b(message).digest())
        except InvalidSignature:
            raise AuthenticityError(f"the signature by key {self.key_id} is not of these bytes") from None
        try:
            key.verify(global_signature, signature + comment.encode("utf-8"))
        except InvalidSignature:
            raise AuthenticityError(f"the trusted comment of a signature by key {self.key_id} was altered") from None
        return comment


class SigningKey:
    """A minisign secret key. Only ``encode`` shows it; ``repr`` names its number."""

    __slots__ = ("_key", "verify_key")

    def __init__(self, number: bytes, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.verify_key = VerifyKey(number, self._key.public_key().public_bytes_raw())

    @classmethod
    def generate(cls) -> Self:
        """A new key with a random number."""
        return cls(os.urandom(_NUMBER_SIZE), os.urandom(_KEY_SIZE))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a secret key file that has no password.

        Raises ``FormatError`` for a malformed or damaged file and ``UsageError`` for one that has a password.
        """
        raw = _decode(_key_line(text, "secret"), "minisign secret key")
        prefix, secret = raw[: 6 + len(_PASSWORD_PARAMETERS)], raw[6 + len(_PASSWORD_PARAMETERS) :]
        signature_algorithm, encryption, checksum_algorithm = prefix[:2], prefix[2:4], prefix[4:6]
        if (
            len(secret) != _NUMBER_SIZE + 2 * _KEY_SIZE + _CHECKSUM_SIZE
            or signature_algorithm != _KEY_ALGORITHM
            or checksum_algorithm != _CHECKSUM_ALGORITHM
        ):
            raise FormatError("not a minisign secret key: wrong length or algorithm")
        if encryption != _NO_ENCRYPTION:
            raise UsageError(
                "the minisign secret key has a password, expected one without",
                hint="Remove the password from a copy of it with `minisign -C -W -s FILE`.",
            )
        key = cls(secret[:_NUMBER_SIZE], secret[_NUMBER_SIZE : _NUMBER_SIZE + _KEY_SIZE])
        # The stock tool fills in no checksum where there is no password, so one of zeros says nothing.
        if secret not in (key._secret(), key._secret()[:-_CHECKSUM_SIZE] + bytes(_CHECKSUM_SIZE)):
            raise FormatError("the minisign secret key is damaged: its public half or checksum does not match")
        return key

    def encode(self) -> str:
        """The text of a secret key file without a password. Its comment has the public half, which is needed again."""
        prefix = _KEY_ALGORITHM + _NO_ENCRYPTION + _CHECKSUM_ALGORITHM + _PASSWORD_PARAMETERS
        public = f"minisign secret key {self.verify_key.key_id}, public key {self.verify_key}"
        return f"{_UNTRUSTED}{public}\n{_encode(prefix + self._secret())}\n"

    def __repr__(self) -> str:
        return f"<SigningKey {self.verify_key.key_id}>"

    def sign(self, message: bytes, trusted_comment: str) -> str:
        """The text of a ``.minisig`` file over ``message``.

        Raises ``UsageError`` for a comment that is not one printable line (tabs may be in it) of at most
        ``MAX_TRUSTED_COMMENT`` bytes.
        """
        if not _is_comment(trusted_comment):
            raise UsageError(f"expected a trusted comment of one printable line, got {trusted_comment[:100]!r}")
        signature = self._key.sign(hashlib.blake2b(message).digest())
        global_signature = self._key.sign(signature + trusted_comment.encode("utf-8"))
        return (
            f"{_UNTRUSTED}signature by archiver, key {self.verify_key.key_id}\n"
            f"{_encode(_PREHASHED + self.verify_key.number + signature)}\n"
            f"{_TRUSTED}{trusted_comment}\n"
            f"{_encode(global_signature)}\n"
        )

    def _secret(self) -> bytes:
        """Number, secret half, public half and checksum, as they stand in a key file."""
        keys = self.verify_key.number + self._key.private_bytes_raw() + self.verify_key.key
        return keys + hashlib.blake2b(_KEY_ALGORITHM + keys, digest_size=_CHECKSUM_SIZE).digest()


def signer_of(signature_text: str) -> bytes:
    """The number of the key that the text of a ``.minisig`` file says it is by; raises ``AuthenticityError`` for a
    malformed one. Nothing is verified."""
    return _parse_signature(signature_text)[0]


def key_id(number: bytes) -> str:
    """A key's number in hex, as minisign prints it."""
    return f"{int.from_bytes(number, 'little'):X}"


def _parse_signature(text: str) -> tuple[bytes, bytes, str, bytes]:
    """The key's number, the signature of the message, the trusted comment, and the signature of both."""
    lines = text.split("\n")
    if len(lines) != 5 or lines[4]:
        raise AuthenticityError("malformed signature: expected 4 lines, each with a line feed at its end")
    if not lines[0].startswith(_UNTRUSTED) or not lines[2].startswith(_TRUSTED):
        raise AuthenticityError("malformed signature: expected an untrusted and a trusted comment")
    comment = lines[2].removeprefix(_TRUSTED)
    if not _is_comment(comment):
        raise AuthenticityError("malformed signature: its trusted comment is too long or not printable")
    try:
        raw = _decode(lines[1], "signature")
        global_signature = _decode(lines[3], "global signature")
    except FormatError as error:
        raise AuthenticityError(f"malformed signature: {error.message}") from None
    if len(raw) != 2 + _NUMBER_SIZE + _SIGNATURE_SIZE or len(global_signature) != _SIGNATURE_SIZE:
        raise AuthenticityError("malformed signature: wrong length")
    algorithm, number, signature = raw[:2], raw[2 : 2 + _NUMBER_SIZE], raw[2 + _NUMBER_SIZE :]
    if algorithm != _PREHASHED:
        raise AuthenticityError(
            f"unsupported signature algorithm {algorithm!r}, expected {_PREHASHED!r}",
            hint="Sign without minisign's option -l.",
        )
    return number, signature, comment, global_signature


def is_secret_key(text: str) -> bool:
    """Whether ``text`` is the key of a secret key file, with or without a password, in place of a public one."""
    return text.strip().startswith(_SECRET_BEGINNINGS)


def _key_line(text: str, kind: str) -> str:
    """The line that holds the key, of a file whose first line is a comment, or of its own."""
    lines = text.strip().splitlines()
    if len(lines) == 2 and lines[0].startswith(_UNTRUSTED):
        return lines[1]
    if len(lines) == 1:
        return lines[0]
    raise FormatError(f"not a minisign {kind} key: expected one line after an untrusted comment")


def _is_comment(text: str) -> bool:
    return text.replace("\t", " ").isprintable() and len(text.encode("utf-8")) <= MAX_TRUSTED_COMMENT


def _encode(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def _decode(text: str, noun: str) -> bytes:
    """Canonical padded base64; the message never shows ``text``, which may be a secret."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise FormatError(f"the {noun} is not valid base64") from None
    if _encode(raw) != text:
        raise FormatError(f"the {noun} is not canonical base64")
    return raw
