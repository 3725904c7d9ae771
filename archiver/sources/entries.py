"""What a walk of a media tree finds, and the catalog records that it becomes."""

import grp
import os
import pwd
import stat
from functools import lru_cache
from typing import Self, TypedDict

import msgspec

from archiver.catalog.records import (
    DirectoryRecord,
    Extent,
    FileRecord,
    HardLinkRecord,
    SymlinkRecord,
    WarningRecord,
    encode_text,
)
from archiver.errors import SourceError
from archiver.filesystem import Identity, identity, printable

CHANGED = "changed while it was read"
"""The reason of the warning for a file that is stored as it was last read, but may be a mixture of two states."""


EARLIEST, LATEST = -(2**63), 2**63 - 1
"""Nanoseconds: the years 1677 to 2262. File systems know times beyond; what they say is then moved to this limit."""
OUT_OF_TIME = "has a time beyond the years 1677 to 2262, which is not kept"


class Attributes(msgspec.Struct, frozen=True):
    """What is restored of an inode beside its content: permission bits, time in nanoseconds, owner, group."""

    mode: int
    mtime_ns: int
    uid: int
    gid: int

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        time = status.st_mtime_ns
        if not EARLIEST <= time <= LATEST:
            time = min(max(time, EARLIEST), LATEST)
        return cls(stat.S_IMODE(status.st_mode), time, status.st_uid, status.st_gid)


class DirectoryEntry(msgspec.Struct, frozen=True):
    path: bytes
    attributes: Attributes

    def record(self) -> DirectoryRecord:
        return DirectoryRecord(**_path(self.path), **_inode(self.attributes))


class SymlinkEntry(msgspec.Struct, frozen=True):
    path: bytes
    attributes: Attributes
    target: bytes

    def record(self) -> SymlinkRecord:
        target, target_b64 = encode_text(self.target)
        return SymlinkRecord(**_path(self.path), **_inode(self.attributes), target=target, target_b64=target_b64)


class FileEntry(msgspec.Struct, frozen=True):
    """A regular file as it was when it was listed; what is stored of it is described by what was read."""

    path: bytes
    attributes: Attributes
    size: int
    identity: Identity
    links: int
    """How many names the inode has; more than one makes it a candidate for a hard link."""
    ctime_ns: int
    """When the inode was last changed, in nanoseconds: unlike its other times nobody can set this one."""

    @classmethod
    def of(cls, path: bytes, status: os.stat_result) -> Self:
        return cls(path, Attributes.of(status), status.st_size, identity(status), status.st_nlink, status.st_ctime_ns)

    def record(self, size: int, blake3: str, extents: list[Extent]) -> FileRecord:
        """The record of this file with the ``size`` bytes that were read of it."""
        path, path_b64 = encode_text(self.path)
        attributes = self.attributes
        return FileRecord(
            path=path,
            path_b64=path_b64,
            mode=attributes.mode,
            mtime_ns=attributes.mtime_ns,
            uid=attributes.uid,
            gid=attributes.gid,
            owner=owner_name(attributes.uid),
            group=group_name(attributes.gid),
            size=size,
            blake3=blake3,
            extents=extents,
        )


class HardLinkEntry(msgspec.Struct, frozen=True):
    """One more name of a file that is stored under ``target``."""

    path: bytes
    target: bytes

    def record(self) -> HardLinkRecord:
        target, target_b64 = encode_text(self.target)
        return HardLinkRecord(**_path(self.path), target=target, target_b64=target_b64)


class Skipped(msgspec.Struct, frozen=True):
    """Something that the backup does not hold, and why: a warning, not a failure."""

    path: bytes
    reason: str

    def record(self) -> WarningRecord:
        return warning_record(self.path, f"left out: {self.reason}")


Entry = DirectoryEntry | FileEntry | SymlinkEntry
Found = Entry | Skipped


class UnreadableError(SourceError):
    """One file of a media tree cannot be read; the backup goes on without it and tells ``skipped``."""

    def __init__(self, path: bytes, reason: str) -> None:
        super().__init__(f"{printable(path)}: {reason}")
        self.skipped = Skipped(path, reason)


class HardLinks:
    """Remembers under which path each file with several names was stored, so that it is stored once.

    Decided when a file is read, not when it is listed: a name that vanished before it was read takes nothing with it,
    because the next name of the same file is then read in its place.
    """

    def __init__(self) -> None:
        self._stored: dict[tuple[Identity, int, int], bytes] = {}

    def find(self, file: FileEntry) -> HardLinkEntry | None:
        """The link that ``file`` becomes, where an earlier path of the same file is stored already."""
        target = self._stored.get(_version(file)) if file.links > 1 else None
        return HardLinkEntry(file.path, target) if target is not None and target < file.path else None

    def remember(self, file: FileEntry) -> None:
        """``file`` has been read and is being stored."""
        if file.links > 1:
            self._stored.setdefault(_version(file), file.path)


def _version(file: FileEntry) -> tuple[Identity, int, int]:
    # Size and time too: the number of an inode that was deleted meanwhile may be given to a new file.
    return file.identity, file.size, file.attributes.mtime_ns


def warning_record(path: bytes, reason: str) -> WarningRecord:
    """A warning about ``path``."""
    return WarningRecord(path=printable(path), reason=reason)


def explain(error: OSError) -> str:
    """The reason of a ``Skipped`` in words."""
    if isinstance(error, FileNotFoundError):
        return "vanished while the tree was read"
    return f"cannot be read: {(error.strerror or str(error)).lower()}"


@lru_cache(maxsize=4096)
def owner_name(uid: int) -> str:
    """The name of ``uid`` on this host, empty where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


@lru_cache(maxsize=4096)
def group_name(gid: int) -> str:
    """The name of ``gid`` on this host, empty where it has none."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return ""


class _PathFields(TypedDict):
    path: str | None
    path_b64: str | None


class _InodeFields(TypedDict):
    mode: int
    mtime_ns: int
    uid: int
    gid: int
    owner: str
    group: str


def _path(path: bytes) -> _PathFields:
    text, encoded = encode_text(path)
    return {"path": text, "path_b64": encoded}


def _inode(attributes: Attributes) -> _InodeFields:
    return {
        "mode": attributes.mode,
        "mtime_ns": attributes.mtime_ns,
        "uid": attributes.uid,
        "gid": attributes.gid,
        "owner": owner_name(attributes.uid),
        "group": group_name(attributes.gid),
    }
