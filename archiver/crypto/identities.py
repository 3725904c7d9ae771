"""Files of secrets: age identity files are read, and new secrets are written so that only their owner can read them.

Source of the format: ``age-keygen``'s output; one identity a line, ``#`` begins a comment line. No message ever shows
a line of such a file.
"""

import os
import re
import sys
from pathlib import Path
from typing import BinaryIO

from archiver.crypto.keys import SecretKey, parse_identity
from archiver.errors import AlreadyExistsError, ArchiverError, FormatError, UsageError
from archiver.filesystem import sync_directory

MAX_IDENTITY_FILE = 1 << 20
"""Bytes; more is no identity file, and is not read into memory."""
STANDARD_INPUT = Path("-")

_AGE_FILES = (b"age-encryption.org/v1", b"-----BEGIN AGE ENCRYPTED FILE-----")
_MINISIGN_FILE = b"untrusted comment:"
_IDENTITY = "AGE-SECRET-KEY-"
_RECIPIENT = "age1"
_CONFIGURATION = re.compile(r"^\[(destination|signing|source\..+)\]\s*$", re.MULTILINE)
_PEM_KEY = (b"-----BEGIN ", b"PRIVATE KEY-----")


def parse_identities(text: str, name: str) -> list[SecretKey]:
    """The identities in an age identity file; ``name`` says in messages which file it is.

    Blank lines and white space around a line, such as the line ends of other systems, do not matter. Raises
    ``FormatError`` naming the line for anything that is no identity, and for a file without one.
    """
    identities: list[SecretKey] = []
    for number, line in enumerate(text.split("\n"), start=1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        try:
            identities.append(parse_identity(entry))
        except FormatError as error:
            raise FormatError(
                f"line {number} of {name} is not an age identity: {_explained(entry, text) or error.message}",
                hint="Every line of an identity file is a comment that starts with # or an AGE-SECRET-KEY-1… line.",
            ) from None
    if not identities:
        raise FormatError(
            f"{name} holds no identity",
            hint="Append the AGE-SECRET-KEY-1… line that belongs to it.",
        )
    return identities


def _explained(line: str, text: str) -> str | None:
    """What ``line`` is instead, where that can be told without showing it."""
    if _CONFIGURATION.search(text):
        return "this is archiver.toml, not a key"
    if line.startswith(_RECIPIENT):
        return "it is a public key (age1…), expected the secret one"
    if line.startswith(_IDENTITY) and any(character.isspace() for character in line):
        return "there is a space inside the key"
    return None


def read_identity_file(path: Path) -> list[SecretKey]:
    """The identities in the file at ``path``, wherever it lies and whatever its mode.

    Raises ``UsageError`` when it cannot be read or is no identity file.
    """
    try:
        return parse_identities(read_identity_text(path), str(path))
    except FormatError as error:
        raise UsageError(error.message, hint=error.hint) from None


def read_identity_text(path: Path) -> str:
    """The text of the identity file or recovery card at ``path``, or on standard input for ``STANDARD_INPUT``.

    Raises ``UsageError`` when it cannot be read, and for other kinds of secrets, which are easily taken for it.
    """
    if str(path).strip().upper().startswith(_IDENTITY):
        # Here, in the list of processes and in the shell's history it is seen; it need not be in a log as well.
        raise UsageError(
            "expected the name of a file with an identity, got an identity",
            hint="Write it into a file of mode 0600, or give it on standard input with --identity -.",
        )
    data = _read_standard_input() if path == STANDARD_INPUT else _read_file(path)
    name = secret_name(path)
    first = data.removeprefix(b"\xef\xbb\xbf").lstrip().split(b"\n", 1)[0].rstrip()
    if first.startswith(_AGE_FILES):
        raise UsageError(
            f"{name} is encrypted with age, expected an identity",
            hint="An operator's file of a vault stays in the destination: give what opens it. Decrypt anything else on "
            "the way in: age -d FILE | archiver … --identity -.",
        )
    if first.startswith(_MINISIGN_FILE):
        raise UsageError(
            f"{name} is a minisign key, expected an age identity",
            hint="minisign keys sign and check backups: give the recovery card or an operator's AGE-SECRET-KEY-… file.",
        )
    if first.startswith(_PEM_KEY[0]) and first.endswith(_PEM_KEY[1]):
        raise UsageError(
            f"{name} is a private key as SSH and TLS use them, expected an age identity",
            hint="Give the recovery card or an operator's AGE-SECRET-KEY-… file.",
        )
    return _decode(data, name)


def read_secret_file(path: Path) -> str:
    """The text of a small file of keys; raises ``UsageError`` when it cannot be read, is too large or not UTF-8."""
    return _decode(_read_file(path), str(path))


def secret_name(path: Path) -> str:
    """What messages call the file at ``path``."""
    return "standard input" if path == STANDARD_INPUT else str(path)


def _read_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return _read(file, str(path))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


def _read_standard_input() -> bytes:
    name = secret_name(STANDARD_INPUT)
    if sys.stdin is None:
        raise UsageError(f"cannot read {name}: it is closed")
    if sys.stdin.isatty():
        # A terminal would show what is typed.
        raise UsageError(
            f"expected an identity on {name}, got a terminal",
            hint="Pipe it in, as with age -d FILE | archiver … --identity -, or name a file.",
        )
    try:
        return _read(sys.stdin.buffer, name)
    except OSError as error:
        raise UsageError(f"cannot read {name}: {error.strerror}") from error


def _read(file: BinaryIO, name: str) -> bytes:
    data = file.read(MAX_IDENTITY_FILE + 1)
    if len(data) > MAX_IDENTITY_FILE:
        raise UsageError(f"{name} is not a file of keys: it has more than {MAX_IDENTITY_FILE} bytes")
    return data


def _decode(data: bytes, name: str) -> str:
    try:
        # The -sig form drops the mark that editors on Windows put at the beginning.
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    # Not in the handler: that error holds the bytes of the file, and would stay attached to this one.
    raise UsageError(f"{name} is not a file of keys: it is not utf-8 text")


def write_secret_file(path: Path, text: str) -> None:
    """Create ``path`` with ``text``, mode 0600, durable on return.

    Raises ``AlreadyExistsError`` when anything has that name, which then stays as it is, and ``ArchiverError`` when
    it cannot be written; nothing is left behind then.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise AlreadyExistsError(
            f"{path} exists already", hint="Move it away if it may be replaced; it may hold the only copy of a key."
        ) from None
    except OSError as error:
        raise ArchiverError(f"cannot create {path}: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        sync_directory(path.parent)
    except BaseException as error:
        path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise ArchiverError(f"cannot write {path}: {error.strerror}") from error
        raise
