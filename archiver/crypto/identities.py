"""Files of secrets: age identity files are read, and new secrets are written so that only their owner can read them.

Source of the format: ``age-keygen``'s output; one identity a line, ``#`` begins a comment line. No message ever shows
a line of such a file.
"""

import os
from pathlib import Path

from archiver.crypto.keys import SecretKey, parse_identity
from archiver.errors import AlreadyExistsError, ArchiverError, FormatError, UsageError
from archiver.filesystem import sync_directory

MAX_IDENTITY_FILE = 1 << 20
"""Bytes; more is no identity file, and is not read into memory."""


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
                f"line {number} of {name} is not an age identity: {error.message}",
                hint="Every line of an identity file is a comment that starts with # or an AGE-SECRET-KEY-1… line.",
            ) from None
    if not identities:
        raise FormatError(
            f"{name} holds no identity",
            hint="Append the AGE-SECRET-KEY-1… line that belongs to it.",
        )
    return identities


def read_identity_file(path: Path) -> list[SecretKey]:
    """The identities in the file at ``path``, wherever it lies and whatever its mode.

    Raises ``UsageError`` when it cannot be read or is no identity file.
    """
    try:
        return parse_identities(read_secret_file(path), str(path))
    except FormatError as error:
        raise UsageError(error.message, hint=error.hint) from None


def read_secret_file(path: Path) -> str:
    """The text of a small file of keys; raises ``UsageError`` when it cannot be read, is too large or not UTF-8."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_IDENTITY_FILE + 1)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > MAX_IDENTITY_FILE:
        raise UsageError(f"{path} is not a file of keys: it has more than {MAX_IDENTITY_FILE} bytes")
    try:
        # The -sig form drops the mark that editors on Windows put at the beginning.
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not a file of keys: it is not utf-8 text") from None


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
