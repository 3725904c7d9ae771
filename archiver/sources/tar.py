"""The headers of a pack, byte for byte those that Python's ``tarfile`` writes for the same files in its pax format.

Formatted here because ``tarfile`` takes longer for the headers of a small file than all else takes for the file.
Source of the format: POSIX.1-2017, ``pax``, "ustar Interchange Format" and "pax Extended Header"; ``hdrcharset`` and
the name ``././@PaxHeader`` are what ``tarfile`` and GNU tar make of it.

::

    offset 0 | name 100 | mode 8 | uid 8 | gid 8 | size 12 | mtime 12 | checksum 8 | type 1 | link 100
         257 | magic and version 8 | owner 32 | group 32 | device 16 | prefix 155 | unused 12
"""

from functools import lru_cache
from typing import NamedTuple

from archiver.sources.entries import FileEntry, group_name, owner_name

BLOCK = 512
"""Bytes: headers and contents begin at multiples of it."""
END = bytes(2 * BLOCK)
"""What ends a tar."""

_NAME, _OWNER = 100, 32
_LARGEST_ID, _LATEST = 8**7 - 1, 8**11 - 1
_CHECKSUM_AS_SPACES = 8 * ord(" ")
_FILE, _EXTENDED = b"0", b"x"
_NANOSECONDS = 1_000_000_000


class _Constant(NamedTuple):
    """What the headers of many files have in common."""

    before: bytes
    """From the mode to the group's number."""
    after: bytes
    """From the type to the end of the block."""
    checksum: int
    """Of both, and of the field that the checksum itself is in."""


class _Owned(NamedTuple):
    """What mode, owner and group become."""

    constant: _Constant
    records: bytes
    """What ustar cannot hold of the owner."""
    is_text: bool
    """The records are UTF-8."""


def tar_header(file: FileEntry) -> bytes:
    """The blocks before the content of ``file``: an extended header with what ustar cannot hold, then its own.

    The extended header has the exact time always. Files of 8 GiB and more do not fit.
    """
    attributes = file.attributes
    owned = _owned(attributes.mode, attributes.uid, attributes.gid)
    records = _record(b"mtime", _pax_time(attributes.mtime_ns))
    name, is_text = file.path, owned.is_text
    if len(name) > _NAME or not name.isascii():
        text = name.decode("utf-8", "surrogateescape")
        is_text = is_text and _is_utf8(text)
        records += _record(b"path", name)
        name = text.encode("ascii", "replace")[:_NAME]
    records += owned.records
    if not is_text:
        records = _record(b"hdrcharset", b"BINARY") + records
    seconds = attributes.mtime_ns // _NANOSECONDS
    if not 0 <= seconds <= _LATEST:
        seconds = 0
    return b"".join(
        (_extended(len(records)), records, padding(len(records)), _block(name, file.size, seconds, owned.constant))
    )


def padding(size: int) -> bytes:
    """The zeros between ``size`` bytes and the next block."""
    return bytes(-size % BLOCK)


@lru_cache(maxsize=1024)
def _owned(mode: int, uid: int, gid: int) -> _Owned:
    owner, group = owner_name(uid), group_name(gid)
    records = b"".join(
        _record(keyword, value.encode("utf-8", "surrogateescape"))
        for keyword, value in ((b"uname", owner), (b"gname", group))
        if len(value) > _OWNER or not value.isascii()
    )
    records += b"".join(
        _record(keyword, b"%d" % value) for keyword, value in ((b"uid", uid), (b"gid", gid)) if value > _LARGEST_ID
    )
    numbers = (mode, uid if uid <= _LARGEST_ID else 0, gid if gid <= _LARGEST_ID else 0)
    return _Owned(_constant(numbers, _FILE, owner, group), records, _is_utf8(owner) and _is_utf8(group))


@lru_cache(maxsize=1024)
def _extended(size: int) -> bytes:
    """The block before ``size`` bytes of extended records."""
    return _block(b"././@PaxHeader", size, 0, _constant((0, 0, 0), _EXTENDED, "", ""))


def _constant(numbers: tuple[int, int, int], kind: bytes, owner: str, group: str) -> _Constant:
    before = b"%07o\0%07o\0%07o\0" % numbers
    names = b"".join(name.encode("ascii", "replace")[:_OWNER].ljust(_OWNER, b"\0") for name in (owner, group))
    after = kind + bytes(100) + b"ustar\00000" + names + bytes(16 + 155 + 12)
    return _Constant(before, after, sum(before) + sum(after) + _CHECKSUM_AS_SPACES)


def _block(name: bytes, size: int, seconds: int, constant: _Constant) -> bytes:
    numbers = b"%011o\0%011o\0" % (size, seconds)
    checksum = sum(name) + sum(numbers) + constant.checksum
    return b"%b%b%b%06o\0 %b" % (name.ljust(_NAME, b"\0"), constant.before, numbers, checksum, constant.after)


def _record(keyword: bytes, value: bytes) -> bytes:
    """``length keyword=value`` and a line feed, where the length counts its own digits."""
    rest = len(keyword) + len(value) + 3
    length = rest + len(str(rest))
    return b"%d %b=%b\n" % (rest + len(str(length)), keyword, value)


def _pax_time(nanoseconds: int) -> bytes:
    seconds, fraction = divmod(abs(nanoseconds), _NANOSECONDS)
    return b"%b%d.%09d" % (b"-" if nanoseconds < 0 else b"", seconds, fraction)


def _is_utf8(text: str) -> bool:
    """Whether ``text``, decoded with ``surrogateescape``, was UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
