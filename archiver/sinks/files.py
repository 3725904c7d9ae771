"""A restored file on its way: written at offsets, sparse, and proven before it counts."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from blake3 import blake3

from archiver.buffers import Buffer
from archiver.catalog.records import FileRecord
from archiver.errors import ArchiverError, FormatError, IntegrityError, TargetError
from archiver.filesystem import NOT_FOLLOWED, Beneath, data_regions, hash_zeros, read_region
from archiver.sinks.direct import DirectFile, whole_pages
from archiver.sinks.durability import begin_writing, sync_file
from archiver.sinks.owners import OwnerMap, is_dressed

_ZEROS = bytearray(64 * 1024)
_WORTH_A_HINT = 1024 * 1024
"""Bytes from which on the disk is told to begin with them at once."""


class StagedFile:
    """A new file of ``size`` bytes at ``path``, readable by this user only until it is finished.

    ``path`` is relative to the open directory ``dir_fd`` where one is given; ``name`` is what messages call it.
    Blocks of zeros are not written, so the file is as sparse as its content allows. Large stretches go past the page
    cache where the file system can do that (direct.py). ``finish`` ends it: until then the file proves nothing.
    ``dress`` is called with the descriptor when the content has been proven. Nothing is removed after a failure:
    whoever made the staging directory removes it. Errors: ``TargetError``; ``IntegrityError`` when the path exists
    already, because a catalog names each path once.
    """

    def __init__(
        self,
        path: Path | bytes,
        size: int,
        *,
        dir_fd: int | None = None,
        name: str | None = None,
        dress: Callable[[int], None] | None = None,
    ) -> None:
        self.size = size
        self._name = name or str(path)
        self._dress = dress
        self._hasher: blake3 | None = blake3()
        self._hashed = 0
        try:
            self._descriptor = os.open(
                path, os.O_RDWR | os.O_CREAT | os.O_EXCL | NOT_FOLLOWED, mode=0o600, dir_fd=dir_fd
            )
        except OSError as error:
            raise translation(self._name, error) from error
        self._direct = DirectFile(self._descriptor, size)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._direct.close()
        os.close(self._descriptor)

    def write_at(self, offset: int, buffer: Buffer) -> None:
        """Put ``buffer`` at byte ``offset``; from any thread. No byte may be written twice: zeros do not replace what
        is there."""
        view = memoryview(buffer)
        if offset + len(view) > self.size:
            raise FormatError(f"{self._name}: data up to byte {offset + len(view)}, expected {self.size} bytes")
        try:
            for first, last in data_runs(view):
                self._put(view[first:last], offset + first)
        except OSError as error:
            raise translation(self._name, error) from error

    def observe(self, offset: int, buffer: Buffer) -> None:
        """Hash what was written to ``offset``, from one thread. Where offsets ascend, ``finish`` need not read it."""
        if offset < self._hashed:
            self._hasher = None
        if self._hasher is not None:
            hash_zeros(self._hasher, offset - self._hashed)
            self._hasher.update(buffer)
            self._hashed = offset + len(buffer)

    def finish(self, blake3_hex: str) -> None:
        """Prove that the BLAKE3 of the whole file, holes as zeros, is ``blake3_hex``: of the bytes that were
        observed, if their offsets were ascending, else of all of the file, read back. It is durable only once its
        file system is (durability.py)."""
        try:
            if os.lseek(self._descriptor, 0, os.SEEK_END) != self.size:
                os.ftruncate(self._descriptor, self.size)
            found = self._digest()
            if found != blake3_hex:
                raise damage(self._name, found, blake3_hex)
            if self._dress is not None:
                self._dress(self._descriptor)
            sync_file(self._descriptor)
        except (OSError, OverflowError) as error:
            raise translation(self._name, error) from error

    def _put(self, view: memoryview, offset: int) -> None:
        # No page goes both ways: one that two writes share is whole in neither of them.
        start, end = whole_pages(offset, len(view))
        end = start + self._direct.write(view[start:end], offset + start)
        for first, last in ((0, start), (end, len(view))):
            write_all(self._descriptor, view[first:last], offset + first)
            if last - first >= _WORTH_A_HINT:
                begin_writing(self._descriptor, offset + first, last - first)

    def _digest(self) -> str:
        if self._hasher is None or not self._hashed:
            return _hash(self._descriptor, self.size)
        hash_zeros(self._hasher, self.size - self._hashed)
        return self._hasher.hexdigest()


def is_unchanged(root: Path, record: FileRecord, owners: OwnerMap) -> bool:
    """Whether the file that ``record`` names below ``root`` is what restoring it would make, and has no other name.

    A question, not a proof: it decides what a restore leaves alone. Content, mode, time and owner count. No symbolic
    link below ``root`` is followed. A file that is missing or cannot be read is not the same.
    """
    try:
        with Beneath(root) as tree, tree.parent(record.path_bytes) as (directory, name):
            descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK | NOT_FOLLOWED, dir_fd=directory)
        try:
            status = os.fstat(descriptor)
            return (
                stat.S_ISREG(status.st_mode)
                and (status.st_nlink, status.st_size) == (1, record.size)
                and is_dressed(status, record, owners)
                and _hash(descriptor, record.size) == record.blake3
            )
        finally:
            os.close(descriptor)
    except OSError:
        return False


@contextmanager
def translated(name: str) -> Iterator[None]:
    """Turn an ``OSError`` within the block into a ``TargetError``, or an ``IntegrityError``, that names ``name``."""
    try:
        yield
    except (OSError, OverflowError) as error:
        raise translation(name, error) from error


def translation(name: str, error: OSError | OverflowError) -> ArchiverError:
    """What it means that ``error`` came of writing what messages call ``name``."""
    if isinstance(error, OverflowError):
        return FormatError(f"{name}: its owner or time is out of range")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return TargetError(
            f"{name}: cannot be written: {os.strerror(error.errno)}".lower(),
            hint="Free space on the target's file system, or restore to another one with --to.",
        )
    if error.errno in (errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ELOOP):
        return conflict(name)
    return TargetError(f"{name}: cannot be written: {(error.strerror or str(error)).lower()}")


def damage(name: str, found: str, expected: str) -> IntegrityError:
    """The error for content with another BLAKE3 than the catalog says."""
    return IntegrityError(
        f"{name}: restored content hashes to {found}, expected {expected}",
        hint="Restore it from another backup or another copy of this one.",
    )


def conflict(name: str) -> IntegrityError:
    """The error for a catalog that wants two things at ``name``."""
    return IntegrityError(
        f"{name}: the backup's catalog has two entries in one place",
        hint="Restore another backup, and report this one: its catalog contradicts itself.",
    )


def write_all(descriptor: int, view: memoryview, offset: int) -> None:
    """Write ``view`` to ``offset``, however many calls that takes."""
    while view:
        written = os.pwrite(descriptor, view, offset)
        view = view[written:]
        offset += written


def data_runs(view: memoryview) -> Iterator[tuple[int, int]]:
    """The stretches (start, end) of ``view`` outside its blocks of zeros."""
    start = None
    block = len(_ZEROS)
    for position in range(0, len(view), block):
        piece = view[position : position + block]
        if piece[0]:
            if start is None:
                start = position
            continue
        # A bytearray compares itself with any buffer by memcmp; a memoryview would go element by element.
        zeros = _ZEROS if len(piece) == block else _ZEROS[: len(piece)]
        if zeros == piece:
            if start is not None:
                yield start, position
                start = None
        elif start is None:
            start = position
    if start is not None:
        yield start, len(view)


def _hash(descriptor: int, size: int) -> str:
    hasher = blake3()
    position = 0
    for offset, length in data_regions(descriptor, size):
        hash_zeros(hasher, offset - position)
        for block in read_region(descriptor, offset, length):
            hasher.update(block)
        position = offset + length
    hash_zeros(hasher, size - position)
    return hasher.hexdigest()
