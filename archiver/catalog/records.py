"""The records of the store's lists: one JSON object per line (docs/FORMAT.md).

A path or name is text where its bytes are valid UTF-8, else Base64 in the field that ends in ``_b64``; exactly one
of the two is set. Everything is validated when decoded: the store is not trusted.
"""

import base64
from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from archiver.errors import FormatError

Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
# Patterns end in \Z: a $ would let a line feed follow.
Hash = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
"""BLAKE3, 32 bytes in lower-case hex, as ``b3sum`` prints it."""
ObjectId = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
VaultId = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}\Z")]
Name = Annotated[str, Meta(pattern=r"^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?\Z")]
"""A source, class, environment or operator name."""
ObjectKind = Literal["mdb", "tar", "file"]
Method = Literal["locked", "cold", "external", "frozen"]
"""How a snapshot was taken (docs/FORMAT.md, "Consistency")."""
Consistency = Method | Literal["none"]
"""That of a whole backup; ``none`` without environments."""
CONSISTENCIES: tuple[Method, ...] = ("locked", "cold", "external", "frozen")
"""Best first."""

MAX_PATH = 4096
MAX_OBJECT = 4 * 1024**3
"""Stored bytes: what one server-side copy can handle."""


class Extent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``length`` bytes at ``offset`` of a file are the plaintext of ``object`` from ``object_offset`` on."""

    offset: Count
    length: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    object: ObjectId
    object_offset: Count


class _Path(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    path: str | None = None
    path_b64: str | None = None

    @property
    def path_bytes(self) -> bytes:
        """The path's bytes: relative to the media directory, validated."""
        return decode_text(self.path, self.path_b64)

    def __post_init__(self) -> None:
        check_relative(self.path_bytes)


class HeaderRecord(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="header", forbid_unknown_fields=True
):
    """The first line of contents: which backup this is, and its label."""

    backup: str
    source: Name
    label: str = ""


class DatabaseRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One database of an environment at its snapshot; the unnamed main database has neither name."""

    name: str | None = None
    name_b64: str | None = None
    entries: Count
    flags: list[Literal["reverse_key", "dupsort", "integerkey", "integerdup", "dupfixed", "reversedup"]] = []

    def __post_init__(self) -> None:
        if self.name is not None or self.name_b64 is not None:
            decode_text(self.name, self.name_b64)


class EnvironmentRecord(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="environment", forbid_unknown_fields=True
):
    """One environment: what its ``data.mdb`` is made of and what a restored one must contain."""

    name: Name
    method: Method
    pinned: datetime
    txnid: Count
    page_size: Annotated[int, Meta(ge=256, le=65536)]
    map_size: Count
    layout: Literal["compact"]
    mode: Annotated[int, Meta(ge=0, le=0o7777)]
    uid: Count
    gid: Count
    owner: str = ""
    group: str = ""
    size: Count
    blake3: Hash
    databases: list[DatabaseRecord]
    extents: list[Extent]

    def __post_init__(self) -> None:
        check_extents(self.extents, self.size, self.name.encode())
        if sum(extent.length for extent in self.extents) != self.size:
            raise FormatError(f"extents of {self.name!r} leave out some of its {self.size} bytes")


class _Inode(_Path, frozen=True, kw_only=True):
    mode: Annotated[int, Meta(ge=0, le=0o7777)]
    mtime_ns: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
    uid: Count
    gid: Count
    owner: str = ""
    group: str = ""


class FileRecord(_Inode, frozen=True, kw_only=True, tag_field="type", tag="file"):
    """A regular file. Bytes that no extent covers are zeros (holes); extents are in order and do not overlap."""

    size: Count
    blake3: Hash
    extents: list[Extent] = []

    def __post_init__(self) -> None:
        path = self.path_bytes
        check_relative(path)
        check_extents(self.extents, self.size, path)


class DirectoryRecord(_Inode, frozen=True, kw_only=True, tag_field="type", tag="directory"):
    """A directory; the media directory itself has the path ``.``."""


class SymlinkRecord(_Inode, frozen=True, kw_only=True, tag_field="type", tag="symlink"):
    """A symbolic link: its target is text that is restored as it is and never followed."""

    target: str | None = None
    target_b64: str | None = None

    @property
    def target_bytes(self) -> bytes:
        return decode_text(self.target, self.target_b64)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.target_bytes or b"\0" in self.target_bytes:
            raise FormatError(f"impossible target of a symbolic link: {self.target_bytes[:200]!r}")


class HardLinkRecord(_Path, frozen=True, kw_only=True, tag_field="type", tag="hardlink"):
    """One more name of the file at ``target``, which comes earlier in the list."""

    target: str | None = None
    target_b64: str | None = None

    @property
    def target_bytes(self) -> bytes:
        return decode_text(self.target, self.target_b64)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_relative(self.target_bytes)


class WarningRecord(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="warning", forbid_unknown_fields=True
):
    """Something that this backup does not hold, or not as it should be, and why."""

    path: str
    reason: str


MediaRecord = FileRecord | DirectoryRecord | SymlinkRecord | HardLinkRecord
ContentsRecord = HeaderRecord | EnvironmentRecord | MediaRecord | WarningRecord


class ObjectRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line of the objects list: all that may be known of an object without a key."""

    id: ObjectId
    kind: ObjectKind
    stored_size: Annotated[int, Meta(ge=0, le=MAX_OBJECT)]
    plaintext_size: Count
    blake3: Hash
    """Of the ciphertext: the stored bytes as they are."""
    vault: VaultId


class PlacementRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line of the placement: where an object lies in this destination."""

    id: ObjectId
    key: str


CONTENTS: msgspec.json.Decoder[ContentsRecord] = msgspec.json.Decoder(ContentsRecord)
OBJECTS = msgspec.json.Decoder(ObjectRecord)
PLACEMENT = msgspec.json.Decoder(PlacementRecord)


def encode_text(raw: bytes) -> tuple[str | None, str | None]:
    """``raw`` as (text, None) where it is valid UTF-8, else as (None, Base64)."""
    try:
        return raw.decode("utf-8"), None
    except UnicodeDecodeError:
        return None, base64.b64encode(raw).decode("ascii")


def decode_text(text: str | None, encoded: str | None) -> bytes:
    """The inverse of encode_text; raises ``FormatError`` unless exactly one of the two is given and valid."""
    if text is not None and encoded is None:
        try:
            return text.encode("utf-8")
        except UnicodeEncodeError:
            raise FormatError(f"text is not valid Unicode: {text!r}") from None
    if encoded is not None and text is None:
        try:
            return base64.b64decode(encoded, validate=True)
        except ValueError:
            raise FormatError(f"invalid base64: {encoded!r}") from None
    raise FormatError("expected a text or its base64 form, got both or neither")


def check_relative(path: bytes) -> None:
    """Raise ``FormatError`` unless ``path`` stays below the directory that it is relative to.

    Refused: empty, absolute, longer than 4,096 bytes, NUL bytes, and empty, ``.`` or ``..`` segments; the one path
    ``.`` names the directory itself.
    """
    if path == b".":
        return
    bounded = b"/%b/" % path
    if len(path) > MAX_PATH or b"\0" in path or b"//" in bounded or b"/./" in bounded or b"/../" in bounded:
        raise FormatError(f"unsafe path in contents: {path[:200]!r}")


def check_extents(extents: list[Extent], size: int, path: bytes) -> None:
    """Raise ``FormatError`` unless ``extents`` are in order, do not overlap and lie within ``size`` bytes."""
    end = 0
    for extent in extents:
        if extent.offset < end or extent.offset + extent.length > size:
            raise FormatError(f"extents of {path!r} overlap or exceed its {size} bytes")
        end = extent.offset + extent.length
