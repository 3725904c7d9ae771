"""The textual header of an age file: recipient stanzas and the MAC over them.

Source: the age v1 specification, https://c2sp.org/age. The grammar has exactly one encoding of every header, so a
header that was parsed encodes to the bytes that it came from; the MAC is computed on that.
"""

import base64
import binascii
import hmac
import re
from collections.abc import Sequence

import msgspec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from archiver.buffers import Buffer
from archiver.errors import DecryptionError, FormatError, UsageError

FILE_KEY_SIZE = 16
MAX_HEADER = 65536
"""Bytes; the specification sets no limit, but what is read from a store must not be held without bound."""

_VERSION_LINE = b"age-encryption.org/v1\n"
_COLUMNS = 64
_MAC_SIZE = 32
_BASE64 = re.compile(rb"[A-Za-z0-9+/]*")
_ARGUMENTS = re.compile(rb"-> ([!-~]+(?: [!-~]+)*)")


class IncompleteHeaderError(FormatError):
    """The bytes at hand are a valid beginning and end too early: try again with more of the file."""


class Stanza(msgspec.Struct, frozen=True):
    """One wrapping of the file key: the type of recipient, what it needs beside the key, and the wrapped key."""

    kind: str
    args: tuple[str, ...]
    body: bytes

    def encode(self) -> bytes:
        """The stanza's lines; raises ``FormatError`` for an argument that is empty or not visible ASCII."""
        first = " ".join(("->", self.kind, *self.args)).encode("utf-8")
        if not _ARGUMENTS.fullmatch(first) or first.count(b" ") != len(self.args) + 1:
            raise FormatError(f"an argument of the {self.kind!r} stanza is empty or not visible ascii")
        text = encode_base64(self.body).encode("ascii")
        lines = [text[start : start + _COLUMNS] for start in range(0, len(text) + 1, _COLUMNS)]
        return b"\n".join([first, *lines, b""])


class Header(msgspec.Struct, frozen=True):
    """A parsed header whose MAC is still to be checked, which takes the file key."""

    stanzas: tuple[Stanza, ...]
    mac: bytes

    def authenticate(self, file_key: bytes) -> None:
        """Raise ``DecryptionError`` unless the header is what the holder of ``file_key`` wrote."""
        if not hmac.compare_digest(self.mac, _compute_mac(_encode_stanzas(self.stanzas), file_key)):
            raise DecryptionError("the header of an encrypted file was altered: its mac does not match")


def encode_header(stanzas: Sequence[Stanza], file_key: bytes) -> bytes:
    """The header of a new file. Raises ``UsageError`` without stanzas and when there are too many to be read back."""
    if not stanzas:
        raise UsageError("an encrypted file needs at least one recipient, got none")
    text = _encode_stanzas(stanzas)
    header = text + b" " + encode_base64(_compute_mac(text, file_key)).encode("ascii") + b"\n"
    if len(header) > MAX_HEADER:
        raise UsageError(
            f"{len(stanzas)} recipients make a header of {len(header)} bytes, expected at most {MAX_HEADER}"
        )
    return header


def parse_header(head: Buffer) -> tuple[Header, int]:
    """Parse the header at the start of ``head``: the header and its length in bytes; what follows is ignored.

    Raises ``IncompleteHeaderError`` when ``head`` is a valid beginning that ends within the header, never once it has
    ``MAX_HEADER`` bytes. Raises ``FormatError`` for any deviation from the grammar, for a header beyond
    ``MAX_HEADER`` and for a passphrase stanza that is not alone. The MAC is not checked: see ``authenticate``.
    """
    lines = _Lines(bytes(memoryview(head)[:MAX_HEADER]))
    lines.take_version()
    stanzas = []
    line = lines.take()
    while line.startswith(b"-> "):
        stanzas.append(_parse_stanza(line, lines))
        line = lines.take()
    if not line.startswith(b"--- "):
        raise FormatError("malformed age header: expected a recipient stanza or the mac line")
    mac = decode_base64(line[4:])
    if len(mac) != _MAC_SIZE:
        raise FormatError(f"malformed age header: expected a mac of {_MAC_SIZE} bytes, got {len(mac)}")
    if not stanzas:
        raise FormatError("malformed age header: it has no recipient stanza")
    if len(stanzas) > 1 and any(stanza.kind == "scrypt" for stanza in stanzas):
        raise FormatError("malformed age header: a passphrase stanza stands beside others")
    return Header(tuple(stanzas), mac), lines.position


def derive_key(secret: bytes, *, salt: bytes, info: bytes) -> bytes:
    """HKDF-SHA-256 (RFC 5869) with 32 bytes of output, the only key derivation of the format."""
    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(secret)


def encode_base64(raw: bytes) -> str:
    """Standard base64 (RFC 4648, section 4) without padding."""
    return base64.b64encode(raw).rstrip(b"=").decode("ascii")


def decode_base64(text: bytes) -> bytes:
    """The inverse of ``encode_base64``; raises ``FormatError`` for padding and any encoding but the canonical one."""
    if not _BASE64.fullmatch(text):
        raise FormatError("invalid base64: unexpected character")
    try:
        raw = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        raise FormatError("invalid base64: impossible length") from None
    # b64decode ignores the spare bits of the last character.
    if encode_base64(raw).encode("ascii") != text:
        raise FormatError("invalid base64: not the canonical encoding")
    return raw


class _Lines:
    """Takes lines, which end with a line feed alone, from the first bytes of a file."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0

    def take_version(self) -> None:
        if self._data.startswith(_VERSION_LINE):
            self.position = len(_VERSION_LINE)
        elif _VERSION_LINE.startswith(self._data):
            raise IncompleteHeaderError("an encrypted file ends within its version line")
        else:
            raise FormatError("not an age v1 file: expected it to start with age-encryption.org/v1")

    def take(self) -> bytes:
        end = self._data.find(b"\n", self.position)
        if end < 0:
            if len(self._data) >= MAX_HEADER:
                raise FormatError(f"the header of an encrypted file is longer than {MAX_HEADER} bytes")
            raise IncompleteHeaderError("an encrypted file ends within its header")
        line = self._data[self.position : end]
        self.position = end + 1
        return line


def _parse_stanza(first: bytes, lines: _Lines) -> Stanza:
    match = _ARGUMENTS.fullmatch(first)
    if match is None:
        raise FormatError("malformed age header: expected stanza arguments of visible ascii, one space apart")
    kind, *args = match[1].decode("ascii").split(" ")
    text = bytearray()
    line = lines.take()
    while len(line) == _COLUMNS:
        text += line
        line = lines.take()
    if len(line) > _COLUMNS:
        raise FormatError(
            f"malformed age header: expected body lines of at most {_COLUMNS} characters, got {len(line)}"
        )
    return Stanza(kind, tuple(args), decode_base64(bytes(text + line)))


def _encode_stanzas(stanzas: Sequence[Stanza]) -> bytes:
    """All that the MAC covers: the header up to its final ``---``."""
    return b"".join([_VERSION_LINE, *(stanza.encode() for stanza in stanzas), b"---"])


def _compute_mac(text: bytes, file_key: bytes) -> bytes:
    return hmac.digest(derive_key(file_key, salt=b"", info=b"header"), text, "sha256")
