"""Which backup a new one continues from, as the store has it and as this host remembers it.

Every manifest names the one before it, so that whoever lists them sees when one was removed. This host also remembers
what it committed last: if just that one is taken away, the next backup names it all the same.
"""

import hashlib
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from archiver.catalog.manifest import MAX_SEQUENCE, Manifest, Previous
from archiver.catalog.names import backup_time
from archiver.catalog.records import Count
from archiver.errors import FormatError, NotFoundError, StorageError
from archiver.filesystem import sync_directory
from archiver.operations.archive import Archive
from archiver.operations.chain import Statement, judge, undated
from archiver.operations.history import Backup, Unreadable
from archiver.progress import Reporter

_START = "last-backup-"
"""Of names in a source's state directory: one file for each destination."""


class LastBackup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the state directory remembers of the backup that this host committed last."""

    destination: str
    sequence: Annotated[int, Meta(ge=1, le=MAX_SEQUENCE)]
    files: Count
    link: Previous


class Predecessor(msgspec.Struct, frozen=True):
    """The backup that a new one comes after."""

    link: Previous | None
    """How the new one names it; None where it must not, because nothing vouches for its time."""
    sequence: int
    files: int
    """How many media files it has."""
    latest: str
    """The last of all ids: another one's, where the clock was set back."""

    @property
    def latest_started(self) -> datetime:
        """To the second."""
        return backup_time(self.latest)


def find_predecessor(archive: Archive, directory: Path, reporter: Reporter) -> Predecessor | None:
    """The newest backup that is believed; the one that this host remembers in its state ``directory``, where that one
    was later and is still promised.

    Nothing that somebody planted or removed, and no right that this host lacks, stops the run: it is told instead.
    """
    last = _recall(directory, archive.store.url, reporter)
    here = last is not None and last.destination == archive.store.url
    newest = None
    try:
        newest = _newest(archive, last, reporter)
        if last is not None and (newest is None or not _is(newest, last)):
            here = here and last.link.promised_until > archive.store.clock()
            if here:
                _compare(archive, last, newest, reporter)
            else:
                last = None
    except (StorageError, NotFoundError) as error:
        reporter.warn(f"the earlier backups cannot be looked at: {error.message}")
        last = last if here else None
    if last is not None and (newest is None or newest.manifest.sequence <= last.sequence):
        latest = last.link.backup if newest is None else max(last.link.backup, newest.manifest.backup)
        return Predecessor(last.link, last.sequence, last.files, latest)
    if newest is None:
        return None
    manifest = newest.manifest
    link = link_to(manifest, newest.blake3) if newest.dated == "store" else None
    return Predecessor(link, manifest.sequence, manifest.totals.files, manifest.backup)


def link_to(manifest: Manifest, blake3: str) -> Previous:
    """How the next manifest names this one."""
    return Previous(backup=manifest.backup, blake3=blake3, promised_until=manifest.promised_until)


def conclude(directory: Path, destination: str, committed: Statement, reporter: Reporter) -> None:
    """Look at what was ``committed`` as a reader will, and remember it; what is amiss with that is told."""
    (verdict,) = judge([committed], committed.manifest.finished)
    if verdict.dated == "unproven":
        reporter.warn(undated(committed))
    try:
        remember(directory, destination, committed.manifest, committed.blake3)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        reporter.warn(f"this host will not remember {committed.manifest.backup}: {reason}")


def remember(directory: Path, destination: str, manifest: Manifest, blake3: str) -> None:
    """Write down what was committed; raises ``OSError``."""
    last = LastBackup(
        destination=destination,
        sequence=manifest.sequence,
        files=manifest.totals.files,
        link=link_to(manifest, blake3),
    )
    path = memory(directory, destination)
    temporary = path.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(last) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_directory(directory)


def memory(directory: Path, destination: str) -> Path:
    """Where a source's state ``directory`` remembers the last backup in ``destination``, a URL."""
    return directory / f"{_START}{hashlib.sha256(destination.encode()).hexdigest()[:16]}.json"


def _recall(directory: Path, destination: str, reporter: Reporter) -> LastBackup | None:
    """What was written down of ``destination``, else the last of what was of another: it may have been copied from
    there."""
    own = memory(directory, destination)
    others = sorted(directory.glob(f"{_START}*.json"), key=lambda path: path.lstat().st_mtime)
    path = own if own.exists() or not others else others[-1]
    try:
        if path.exists() and not path.is_file():
            raise FormatError("it is no file")
        return msgspec.json.decode(path.read_bytes(), type=LastBackup)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, msgspec.MsgspecError, FormatError) as error:
        reporter.warn(f"{path}, what this host remembers of its last backup, cannot be read: {error}")
        return None


def _newest(archive: Archive, last: LastBackup | None, reporter: Reporter) -> Backup | None:
    """The newest backup whose time the store vouches for, or which this host remembers; without one, the newest that is
    believed.

    What a thief of a signing key dates back is believed until the key is revoked. A new backup that named it would
    vouch for it even then, so it is not named.
    """
    passed: list[Backup] = []
    for found in archive.newest_first(lazily=True):
        if isinstance(found, Unreadable):
            reporter.warn(f"not continuing from {found.place.backup}: {found.error.message}")
        elif found.dated == "store" or (last is not None and _is(found, last)):
            for backup in passed:
                reporter.warn(f"not continuing from {backup.manifest.backup}: nothing vouches for its time")
            return found
        else:
            passed.append(found)
    if not passed:
        return None
    reporter.warn(f"not naming {passed[0].manifest.backup} as the backup before: nothing vouches for its time")
    return passed[0]


def _compare(archive: Archive, last: LastBackup, newest: Backup | None, reporter: Reporter) -> None:
    """Warn where what this host remembers is not what the store has."""
    backup, url = last.link.backup, archive.store.url
    if backup not in {place.backup for place in archive.places()}:
        until = f"{last.link.promised_until.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
        reporter.warn(f"backup {backup} was removed from {url}: this host made it, and it is promised until {until}")
    elif newest is not None and newest.manifest.backup == backup:
        reporter.warn(f"backup {backup} was replaced in {url}: it is not the one that this host made")


def _is(found: Backup, last: LastBackup) -> bool:
    return (found.manifest.backup, found.blake3) == (last.link.backup, last.link.blake3)
