"""``archiver ls`` and ``archiver cat``: what a backup holds, and one file of it, by ranged reads."""

import os
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

import msgspec

from archiver.buffers import Buffer
from archiver.catalog.records import (
    DirectoryRecord,
    EnvironmentRecord,
    Extent,
    FileRecord,
    HardLinkRecord,
    HeaderRecord,
    SymlinkRecord,
    WarningRecord,
)
from archiver.errors import FormatError, IntegrityError, NotFoundError, UsageError
from archiver.operations.archive import Archive
from archiver.operations.copies import naming_copies, whole_copy
from archiver.operations.history import Backup
from archiver.operations.paths import MEDIA, item_path, selector
from archiver.stages.measure import Meter

_ZEROS = bytes(1024 * 1024)


class Inside(msgspec.Struct, frozen=True):
    """What is worth showing of contents, beside the files."""

    label: str
    environments: list[EnvironmentRecord]
    warnings: list[WarningRecord]


def describe_contents(archive: Archive, backup: Backup) -> Inside:
    """Read all of contents; only then is any of it returned."""
    inside = Inside("", [], [])
    for record in archive.contents(backup):
        match record:
            case HeaderRecord():
                inside = Inside(record.label, [], [])
            case EnvironmentRecord():
                inside.environments.append(record)
            case WarningRecord():
                inside.warnings.append(record)
    return inside


class Entry(msgspec.Struct, frozen=True):
    """One line of ``ls``."""

    path: str
    kind: str
    size: int = 0
    """Bytes."""
    mode: int = 0
    modified: datetime | None = None
    target: str | None = None
    """Of a symbolic or hard link."""


def list_entries(archive: Archive, backup: Backup, path: str = "") -> Iterator[Entry]:
    """The entries of ``backup`` at and below ``path``, or matching it as a glob; streaming."""
    selected = selector([path] if path else [])
    for record in archive.contents(backup):
        if not isinstance(record, HeaderRecord | WarningRecord) and selected(item_path(record)):
            yield _entry(record)


def _entry(record: EnvironmentRecord | FileRecord | DirectoryRecord | SymlinkRecord | HardLinkRecord) -> Entry:
    path = item_path(record)
    match record:
        case EnvironmentRecord():
            return Entry(path, "environment", record.size, record.mode, record.pinned)
        case HardLinkRecord():
            return Entry(path, "hardlink", target=f"{MEDIA}/{os.fsdecode(record.target_bytes)}")
    modified = datetime.fromtimestamp(record.mtime_ns // 10**9, UTC)
    match record:
        case FileRecord():
            return Entry(path, "file", record.size, record.mode, modified)
        case DirectoryRecord():
            return Entry(path, "directory", 0, record.mode, modified)
        case SymlinkRecord():
            return Entry(path, "symlink", 0, record.mode, modified, os.fsdecode(record.target_bytes))


def read_file(archive: Archive, backup: Backup, path: str, warn: Callable[[str], None]) -> Iterator[Buffer]:
    """The bytes of one file of ``backup``; its hash is proven when the iterator ends, not before.

    ``warn`` hears of copies that are damaged, and not read. Raises ``NotFoundError`` for a path that the backup does
    not hold, ``UsageError`` for one without bytes.
    """
    with naming_copies(backup, "cat", path):
        size, blake3, extents = _find(archive, backup, path.strip("/"))
        copy = whole_copy(archive, backup, {extent.object for extent in extents})
    for doubt in copy.irregular[len(backup.irregular) :]:
        warn(doubt)
    with naming_copies(copy, "cat", path):
        meter = Meter()
        yield from _pieces(archive, copy, extents, meter)
        yield from _holes(size - meter.size, meter)
        if meter.blake3 != blake3:
            raise IntegrityError(f"{path}: hashes to {meter.blake3}, expected {blake3}")


def _pieces(archive: Archive, backup: Backup, extents: Sequence[Extent], meter: Meter) -> Iterator[Buffer]:
    """The bytes of ``extents`` and of the holes before them."""
    objects = archive.objects(backup)
    placement = archive.placement(backup)
    for extent in extents:
        yield from _holes(extent.offset - meter.size, meter)
        if extent.object not in objects:
            raise IntegrityError(f"contents name object {extent.object}, which is not in the objects list")
        record = objects[extent.object]
        start, end = extent.object_offset, extent.object_offset + extent.length
        for offset, buffer in archive.reader(backup, record, placement).read([(start, extent.length)], record.blake3):
            piece = memoryview(buffer)[max(start - offset, 0) : end - offset]
            meter.update(piece)
            yield piece


def _holes(count: int, meter: Meter) -> Iterator[Buffer]:
    while count > 0:
        piece = memoryview(_ZEROS)[:count]
        meter.update(piece)
        yield piece
        count -= len(piece)


def _find(archive: Archive, backup: Backup, path: str, *, linked: bool = False) -> tuple[int, str, list[Extent]]:
    """Size, hash and extents of the file at ``path``; reads contents to their end, because only that proves them."""
    found: FileRecord | EnvironmentRecord | None = None
    kind: str | None = None
    link: str | None = None
    for record in archive.contents(backup):
        if isinstance(record, HeaderRecord | WarningRecord) or item_path(record) != path:
            continue
        kind = _entry(record).kind
        if isinstance(record, HardLinkRecord):
            link = _entry(record).target
        elif isinstance(record, FileRecord | EnvironmentRecord):
            found = record
    if link is not None:
        if linked:
            raise FormatError(f"{path!r} is a hard link to a hard link")
        return _find(archive, backup, link, linked=True)
    if found is not None:
        return found.size, found.blake3, found.extents
    if kind is not None:
        raise UsageError(f"{path!r} is a {kind}, expected a file")
    raise NotFoundError(
        f"backup {backup.manifest.backup} has no {path!r}",
        hint=f"archiver ls {backup.manifest.backup} shows what it holds.",
    )
