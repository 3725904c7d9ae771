"""Where a media tree lands: built in a staging directory, file by file, nothing of it outside."""

import os
import stat
from pathlib import Path
from types import TracebackType
from typing import Self

from archiver.buffers import Buffer
from archiver.catalog.records import DirectoryRecord, FileRecord, HardLinkRecord, SymlinkRecord
from archiver.errors import IntegrityError, TargetError
from archiver.filesystem import ROOT, Beneath, printable
from archiver.sinks.durability import sync_file
from archiver.sinks.files import StagedFile, conflict, translated
from archiver.sinks.owners import OwnerMap, by_name, dress
from archiver.sinks.small import put_file


class MediaSink:
    """Builds the media tree below ``staging_root``, which is made (0700) where it is missing.

    Takes records in path order; parents that have no record of their own are made, for this user only. Files get
    their owner, mode and time when each is finished; hard links, symbolic links and the directories' own
    metadata wait for ``finish``, so nothing is ever written through a restored link or into a read-only directory.
    Memory grows with the number of directories and links, not of files. ``file`` may be called while files that it
    returned before are still being written by other threads.
    Two entries in one place, or a hard link to what is no restored regular file, are ``IntegrityError``s.
    """

    def __init__(self, staging_root: Path, owners: OwnerMap = by_name) -> None:
        try:
            staging_root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._tree = Beneath(staging_root)
            # Linking needs two directories at a time, and one Beneath gives one.
            self._targets = Beneath(staging_root)
        except OSError as error:
            raise TargetError(f"{staging_root}: cannot be written: {(error.strerror or str(error)).lower()}") from error
        self._owners = owners
        self._directories: dict[bytes, DirectoryRecord | None] = {}
        self._symlinks: list[SymlinkRecord] = []
        self._hard_links: list[HardLinkRecord] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tree.close()
        self._targets.close()

    def directory(self, record: DirectoryRecord) -> None:
        """Make a directory; its metadata follow in ``finish``."""
        path = record.path_bytes
        if self._directories.get(path) is not None:
            raise conflict(printable(path))
        with translated(printable(path)):
            self._make(path)
        self._directories[path] = record

    def file(self, record: FileRecord) -> StagedFile:
        """Begin a regular file: write its extents, then ``finish(record.blake3)``."""
        path = record.path_bytes
        with translated(printable(path)):
            self._make(_parent(path))
            with self._tree.parent(path) as (directory, name):
                return StagedFile(
                    name,
                    record.size,
                    dir_fd=directory,
                    name=printable(path),
                    dress=lambda descriptor: dress(descriptor, record, self._owners),
                )

    def put(self, record: FileRecord, content: Buffer) -> None:
        """Make a whole regular file of its ``content``, which is proven first."""
        try:
            put_file(self._tree, record, content, self._owners)
        except FileNotFoundError:
            path = record.path_bytes
            with translated(printable(path)):
                self._make(_parent(path))
                put_file(self._tree, record, content, self._owners)

    def symlink(self, record: SymlinkRecord) -> None:
        """Note a symbolic link, to be made by ``finish``."""
        self._symlinks.append(record)

    def hardlink(self, record: HardLinkRecord) -> None:
        """Note a hard link, to be made by ``finish``."""
        self._hard_links.append(record)

    def finish(self) -> None:
        """All files are finished: make the links, give directories their metadata. All of it is durable only once the
        file system is (durability.py)."""
        for link in self._hard_links:
            self._link(link)
        for symlink in self._symlinks:
            self._make_symlink(symlink)
        for path in sorted({ROOT, *self._directories}, key=_depth_first, reverse=True):
            record = self._directories.get(path)
            with translated(printable(path)), self._tree.directory(path) as descriptor:
                if record is not None:
                    dress(descriptor, record, self._owners)
                sync_file(descriptor)

    def _make(self, path: bytes) -> None:
        """Make the directory ``path`` and its parents where they are missing."""
        missing = []
        while True:
            try:
                with self._tree.directory(path):
                    break
            except FileNotFoundError:
                missing.append(path)
                path = _parent(path)
        for directory in reversed(missing):
            with self._tree.parent(directory) as (descriptor, name):
                os.mkdir(name, mode=0o700, dir_fd=descriptor)
            self._directories[directory] = None

    def _link(self, record: HardLinkRecord) -> None:
        path, target = record.path_bytes, record.target_bytes
        with translated(printable(path)):
            self._make(_parent(path))
            with self._tree.parent(path) as (directory, name):
                try:
                    with self._targets.parent(target) as (target_directory, target_name):
                        status = os.stat(target_name, dir_fd=target_directory, follow_symlinks=False)
                        if not stat.S_ISREG(status.st_mode):
                            raise FileNotFoundError
                        os.link(
                            target_name, name, src_dir_fd=target_directory, dst_dir_fd=directory, follow_symlinks=False
                        )
                except FileNotFoundError:
                    raise IntegrityError(
                        f"{printable(path)}: a hard link to {printable(target)}, which is no restored file"
                    ) from None

    def _make_symlink(self, record: SymlinkRecord) -> None:
        path = record.path_bytes
        with translated(printable(path)):
            self._make(_parent(path))
            with self._tree.parent(path) as (directory, name):
                os.symlink(record.target_bytes, name, dir_fd=directory)
                if os.geteuid() == 0:
                    uid, gid = self._owners(record)
                    os.chown(name, uid, gid, dir_fd=directory, follow_symlinks=False)
                times = (record.mtime_ns, record.mtime_ns)
                os.utime(name, ns=times, dir_fd=directory, follow_symlinks=False)


def _parent(path: bytes) -> bytes:
    return path.rpartition(b"/")[0] or ROOT


def _depth_first(path: bytes) -> tuple[bool, bytes]:
    """Sorts a directory before everything below it, and the root before all."""
    return path != ROOT, path
