"""What a helper process and the process that started it say to each other: one JSON object per line.

The parent writes a ``PinRequest`` to the helper's standard input, later ``COPY``; the end of its input means that the
snapshot is not needed any more. The helper writes ``Pinned`` to its standard output and, after the copy, ``Copied``;
or ``Failed``, at any time, as its last word. The copy itself goes through a pipe of its own. JSON and not pickle: the
helper maps files that may be damaged, and what comes from it is validated.
"""

import os
from datetime import datetime
from typing import Literal

import msgspec

from archiver.environment.databases import Database
from archiver.environment.meta import Meta
from archiver.errors import (
    ArchiverError,
    BusyError,
    FormatError,
    NotFoundError,
    PinGivenUpError,
    SnapshotChangedError,
    SourceError,
)

Method = Literal["locked", "cold", "external", "frozen"]
Declared = Literal["external", "frozen"]
"""What the configuration says of an environment that no process can have open."""

COPY = b"copy\n"
Kind = Literal["BusyError", "FormatError", "NotFoundError", "PinGivenUpError", "SnapshotChangedError", "SourceError"]
_KINDS: dict[Kind, type[ArchiverError]] = {
    "BusyError": BusyError,
    "FormatError": FormatError,
    "NotFoundError": NotFoundError,
    "PinGivenUpError": PinGivenUpError,
    "SnapshotChangedError": SnapshotChangedError,
    "SourceError": SourceError,
}


class PinRequest(msgspec.Struct, frozen=True, tag=True):
    """Which environment to pin. ``headroom`` is a share of its map and its disk, ``seconds`` how long at most, and
    ``max_size`` the bytes of the map that its server is known to have been started with."""

    directory: bytes
    declared: Declared | None
    headroom: float
    seconds: float
    max_size: int | None = None


class Pinned(msgspec.Struct, frozen=True, tag=True):
    """A snapshot is pinned and can be copied."""

    method: Method
    pinned: datetime
    meta: Meta
    databases: tuple[Database, ...]
    used_pages: int


class Copied(msgspec.Struct, frozen=True, tag=True):
    """The copy is complete, and is that of the snapshot; the pin is released."""


class Failed(msgspec.Struct, frozen=True, tag=True):
    """An error that ends the helper, with texts as the file system's bytes: they name paths."""

    kind: Kind
    message: bytes
    hint: bytes

    @staticmethod
    def of(error: ArchiverError) -> "Failed":
        """``error`` on its way to the parent."""
        kind = next(kind for base in type(error).__mro__ for kind in _KINDS if _KINDS[kind] is base)
        return Failed(kind, os.fsencode(error.message), os.fsencode(error.hint or ""))

    @property
    def error(self) -> ArchiverError:
        """The error, to be raised by the parent."""
        return _KINDS[self.kind](os.fsdecode(self.message), hint=os.fsdecode(self.hint) or None)


Reply = Pinned | Copied | Failed


def encode(message: PinRequest | Reply) -> bytes:
    """``message`` as a line."""
    return msgspec.json.encode(message) + b"\n"


def decode_request(line: bytes) -> PinRequest:
    """A line that the parent wrote."""
    return msgspec.json.decode(line, type=PinRequest)


def decode_reply(line: bytes) -> Reply:
    """A line that the helper wrote; raises ``FormatError`` when it is none."""
    try:
        reply: Reply = msgspec.json.decode(line, type=Reply)
    except msgspec.MsgspecError as error:
        raise FormatError(f"a helper process wrote what is no reply: {error}") from error
    return reply
