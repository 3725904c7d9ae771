"""The recipient that is a passphrase, stretched with scrypt.

Source: the age v1 specification, https://c2sp.org/age, section "The scrypt recipient type".
"""

import os
import re
from typing import ClassVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from archiver.crypto.header import Stanza, decode_base64, encode_base64
from archiver.crypto.recipients import ZERO_NONCE, check_stanza
from archiver.errors import ArchiverError, FormatError, UsageError

KIND = "scrypt"
WORK_FACTOR = 18
"""log2 of scrypt's cost, as ``age`` chooses it: 256 MiB of memory and about a second."""
MAX_WORK_FACTOR = 20
"""1 GiB of memory. A file says its own cost, and anybody can write one, so more is refused."""
MIN_PASSPHRASE = 12
"""Characters. A vault file may be attacked for years by whoever can read the bucket."""
_LABEL = b"age-encryption.org/v1/scrypt"
_SALT_SIZE = 16
_COST = re.compile(r"[1-9][0-9]?")


class PassphraseRecipient:
    """Wraps to a passphrase; the one stanza of its file.

    Raises ``UsageError`` for a passphrase that is too short or no UTF-8. ``repr`` does not show it.
    """

    __slots__ = ("_passphrase", "_work_factor")
    label: ClassVar[str] = "passphrase"

    def __init__(self, passphrase: str, work_factor: int = WORK_FACTOR) -> None:
        if len(passphrase) < MIN_PASSPHRASE:
            raise UsageError(
                f"expected a passphrase of at least {MIN_PASSPHRASE} characters, got {len(passphrase)}",
                hint="Take five or more random words.",
            )
        if not 0 < work_factor <= MAX_WORK_FACTOR:
            raise ValueError(f"cannot write a work factor of {work_factor}: it would not be read")
        self._passphrase = _encode(passphrase)
        self._work_factor = work_factor

    def __str__(self) -> str:
        return "a passphrase"

    def __repr__(self) -> str:
        return "<PassphraseRecipient>"

    def wrap(self, file_key: bytes) -> Stanza:
        """Wrap ``file_key`` under a key made of the passphrase and a new salt; raises ``ArchiverError`` when there is
        too little memory for that."""
        salt = os.urandom(_SALT_SIZE)
        wrap_key = _stretch(self._passphrase, salt, self._work_factor)
        body = ChaCha20Poly1305(wrap_key).encrypt(ZERO_NONCE, file_key, None)
        return Stanza(KIND, (encode_base64(salt), str(self._work_factor)), body)


class PassphraseIdentity:
    """Opens what was wrapped to a passphrase. Raises ``UsageError`` for one that is no UTF-8; ``repr`` does not show
    it."""

    __slots__ = ("_passphrase",)

    def __init__(self, passphrase: str) -> None:
        self._passphrase = _encode(passphrase)

    def __repr__(self) -> str:
        return "<PassphraseIdentity>"

    def unwrap(self, stanza: Stanza) -> bytes | None:
        """The file key, or None for another passphrase.

        Raises ``FormatError`` for a malformed stanza and for a work factor beyond ``MAX_WORK_FACTOR``, and
        ``ArchiverError`` when there is too little memory.
        """
        if stanza.kind != KIND:
            return None
        check_stanza(stanza, arguments=2)
        salt = decode_base64(stanza.args[0].encode("ascii"))
        if len(salt) != _SALT_SIZE:
            raise FormatError(f"malformed {KIND} stanza: expected a salt of {_SALT_SIZE} bytes, got {len(salt)}")
        cost = stanza.args[1]
        if not _COST.fullmatch(cost) or int(cost) > MAX_WORK_FACTOR:
            raise FormatError(
                f"malformed {KIND} stanza: expected a work factor from 1 to {MAX_WORK_FACTOR}, got {cost[:20]!r}"
            )
        try:
            return ChaCha20Poly1305(_stretch(self._passphrase, salt, int(cost))).decrypt(ZERO_NONCE, stanza.body, None)
        except InvalidTag:
            return None


def _encode(passphrase: str) -> bytes:
    try:
        return passphrase.encode("utf-8")
    except UnicodeEncodeError:
        # From a terminal of another encoding. The error itself would carry the passphrase along.
        raise UsageError("the passphrase is not utf-8 text", hint="Set the terminal and the locale to UTF-8.") from None


def _stretch(passphrase: bytes, salt: bytes, work_factor: int) -> bytes:
    try:
        return Scrypt(salt=_LABEL + salt, length=32, n=1 << work_factor, r=8, p=1).derive(passphrase)
    except MemoryError:
        size = (1 << work_factor) >> 10
        raise ArchiverError(
            f"a passphrase takes {size} MiB of memory with the work factor {work_factor}, and there is less",
            hint="Raise the memory limit, or use another machine.",
        ) from None
