"""Whose a restored file is: by name where this host knows the name, else by number."""

import grp
import os
import pwd
import stat
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from archiver.catalog.records import DirectoryRecord, EnvironmentRecord, FileRecord, SymlinkRecord
from archiver.errors import UsageError

Inode = FileRecord | DirectoryRecord | SymlinkRecord | EnvironmentRecord
OwnerMap = Callable[[Inode], tuple[int, int]]
"""The numbers (uid, gid) that a restored inode gets. Only asked when restoring as root: nobody else may give away."""


def by_name(record: Inode) -> tuple[int, int]:
    """The owner and group of the same name on this host; the recorded number for a name that is not known here."""
    return _user(record.owner, record.uid), _group(record.group, record.gid)


def fixed_owner(text: str) -> OwnerMap:
    """One owner for everything: ``user`` or ``user:group``, names or numbers; a user alone brings his own group.

    Raises ``UsageError`` for a name that this host does not know.
    """
    user, separator, group = text.partition(":")
    try:
        account = None if user.isdecimal() else pwd.getpwnam(user)
        uid = int(user) if account is None else account.pw_uid
        if separator:
            gid = int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
        else:
            gid = uid if account is None else account.pw_gid
    except KeyError:
        raise UsageError(
            f"this host does not know the owner {text!r}", hint="Give numbers, such as 1000:1000."
        ) from None
    return lambda _: (uid, gid)


def give(path: Path, record: Inode, owners: OwnerMap) -> None:
    """Give ``path`` the owner of ``record``, if this process may."""
    if os.geteuid() == 0:
        os.chown(path, *owners(record))


def dress(descriptor: int, record: FileRecord | DirectoryRecord, owners: OwnerMap) -> None:
    """Give the open file or directory its recorded owner, mode and time: what it has already is not set again."""
    status = os.fstat(descriptor)
    owner = owners(record) if os.geteuid() == 0 else None
    if owner == (status.st_uid, status.st_gid):
        owner = None
    if owner is not None or stat.S_IMODE(status.st_mode) != record.mode:
        set_attributes(descriptor, owner, record.mode, record.mtime_ns)
    else:
        os.utime(descriptor, ns=(record.mtime_ns, record.mtime_ns))


def is_dressed(status: os.stat_result, record: FileRecord, owners: OwnerMap) -> bool:
    """Whether a file has the owner, mode and time already that ``dress`` would give it."""
    owner = owners(record) if os.geteuid() == 0 else (status.st_uid, status.st_gid)
    found = (status.st_uid, status.st_gid), stat.S_IMODE(status.st_mode), status.st_mtime_ns
    return found == (owner, record.mode, record.mtime_ns)


def set_attributes(descriptor: int, owner: tuple[int, int] | None, mode: int, mtime_ns: int) -> None:
    """Set owner (unless ``None``), mode and time, in this order: changing the owner clears the set-user-id bits."""
    if owner is not None:
        os.fchown(descriptor, *owner)
    os.fchmod(descriptor, mode)
    os.utime(descriptor, ns=(mtime_ns, mtime_ns))


@lru_cache(maxsize=4096)
def _user(name: str, uid: int) -> int:
    try:
        return pwd.getpwnam(name).pw_uid
    except (KeyError, ValueError):
        return uid


@lru_cache(maxsize=4096)
def _group(name: str, gid: int) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except (KeyError, ValueError):
        return gid
